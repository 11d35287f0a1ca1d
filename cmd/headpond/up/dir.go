package up

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// prepareDir makes a server's directory, or a temporary one if path is empty,
// owned by the account that runs the children, and returns its real path:
// without symbolic links, as the kernel shows it as a process' working directory.
func prepareDir(path, name string) (string, *account, error) {
	if path == "" {
		tmp, err := os.MkdirTemp("", "headpond-"+name+"-")
		if err != nil {
			return "", nil, fmt.Errorf("make temporary directory: %w", err)
		}
		path = tmp
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", nil, fmt.Errorf("find directory: %w", err)
	}
	who, err := accountFor(path)
	if err != nil {
		return "", nil, err
	}
	if err := makeDir(path, who); err != nil {
		return "", nil, fmt.Errorf("make directory: %w", err)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", nil, fmt.Errorf("find directory: %w", err)
	}
	return path, who, reachable(path, who)
}

// makeDir makes what is missing. Parents that we make are open to all for
// searching, whatever the umask; the directory itself is the account's alone.
func makeDir(path string, who *account) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := makeParents(filepath.Dir(path)); err != nil {
			return err
		}
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := writable(path); err != nil {
		return err
	}
	if err := oursOrEmpty(path); err != nil {
		return err
	}
	return who.own(path)
}

// oursOrEmpty keeps a mistyped path from being given to another user: what
// Headpond has used before has a lock in it.
func oursOrEmpty(path string) error {
	if _, err := os.Stat(filepath.Join(path, "lock")); err == nil {
		return nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s holds other files (%s): choose a directory that is empty or does not exist", path, entries[0].Name())
	}
	return nil
}

func makeParents(path string) error {
	if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
		return err
	}
	if err := makeParents(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) { // the other server's start was faster
			return nil
		}
		return err
	}
	return os.Chmod(path, 0o755)
}

func writable(path string) error {
	probe, err := os.CreateTemp(path, ".probe-")
	if err != nil {
		return fmt.Errorf("%s is not ours to write: run as its owner, or choose another data directory: %w", path, err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// reachable checks the way from the root, which nothing but the children's
// account has to walk: root itself is never barred.
func reachable(path string, who *account) error {
	for parent := filepath.Dir(path); ; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err != nil {
			return fmt.Errorf("look at directory: %w", err)
		}
		if !who.canEnter(info) {
			return &UnreachableError{Dir: path, Parent: parent, User: who.name}
		}
		if parent == filepath.Dir(parent) {
			return nil
		}
	}
}
