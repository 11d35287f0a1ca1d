package up

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// lock is the ownership of a directory. flock, and not the mere existence of a
// file, because the kernel gives it back when its holder dies. Children do not
// inherit it: Go opens files close-on-exec.
type lock struct{ file *os.File }

func takeLock(dir string) (*lock, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &InUseError{Dir: dir, PID: readNumber(file.Name())}
		}
		return nil, fmt.Errorf("take lock: %w", err)
	}
	if err := writeFile(file.Name(), strconv.Itoa(os.Getpid())); err != nil {
		file.Close()
		return nil, err
	}
	return &lock{file: file}, nil
}

// release unlocks before it closes: a child that has been forked but has not
// called exec yet holds a copy of the file, and the lock lasts as long as the
// last copy.
func (l *lock) release() error {
	return errors.Join(syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN), l.file.Close())
}

// readNumber reads the number that a small file begins with; 0 if there is none.
func readNumber(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	n, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func writeFile(path, text string) error {
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
