package up

import (
	"errors"
	"fmt"
	"strings"
)

// ErrStopped is what a start returns when Stop was called meanwhile.
var ErrStopped = errors.New("the server was stopped")

// ErrForgotten is what Restart returns for an ephemeral server after Stop.
var ErrForgotten = errors.New("the server was ephemeral: its data was removed when it was stopped")

// NotInstalledError says which program is missing and how to get it.
type NotInstalledError struct {
	Program string   // "PostgreSQL", "Redis"
	Looked  []string // places searched, in order
	Install string   // the line to type
}

func (e *NotInstalledError) Error() string {
	return fmt.Sprintf("%s is not installed; to install it, type: %s (looked in %s)",
		e.Program, e.Install, strings.Join(e.Looked, ", "))
}

// InUseError says that another process owns the data directory.
type InUseError struct {
	Dir string
	PID int // 0 if the owner did not say
}

func (e *InUseError) Error() string {
	owner := "another process"
	if e.PID > 0 {
		owner = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("%s is in use by %s: stop it, or choose another data directory", e.Dir, owner)
}

// UnreachableError says that the account which runs the children cannot get to
// the data directory. It only happens to root, whose children run as another user.
type UnreachableError struct {
	Dir    string
	Parent string // the directory that bars the way
	User   string
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("user %s, which runs the private servers because they refuse to run as root, cannot enter %s on the way to %s: "+
		"choose another data directory (the default, %s, works) or type: chmod o+x %s",
		e.User, e.Parent, e.Dir, DefaultDataDir(), e.Parent)
}

// VersionError says that the data directory was made by another major version.
type VersionError struct {
	Dir  string
	Want string   // the major version that made the data
	Have []string // what is installed
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("the data in %s was made by PostgreSQL %s, and only %s is installed: install PostgreSQL %s, "+
		"set HEADPOND_PG_BIN to its bin directory, or choose another data directory",
		e.Dir, e.Want, strings.Join(e.Have, ", "), e.Want)
}

// DiedError says that a child ended when it should not have, with its last words.
type DiedError struct {
	Server  string
	Reason  string   // "exit status 1", "signal: killed"
	Last    []string // last lines of its log
	LogFile string
}

func (e *DiedError) Error() string {
	if len(e.Last) == 0 {
		return fmt.Sprintf("%s ended with %s and wrote nothing to %s", e.Server, e.Reason, e.LogFile)
	}
	return fmt.Sprintf("%s ended with %s; the end of %s is:\n  %s",
		e.Server, e.Reason, e.LogFile, strings.Join(e.Last, "\n  "))
}

func (e *DiedError) says(words string) bool {
	return strings.Contains(strings.Join(e.Last, "\n"), words)
}
