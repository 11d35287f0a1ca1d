package up

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// child is one run of one program. Safe for concurrent use.
type child struct {
	cmd      *exec.Cmd
	log      string
	logFrom  int64
	expected atomic.Bool   // somebody asked it to end
	done     chan struct{} // closed when it was reaped; err is set before
	err      error
}

// command builds a command for a child: in its directory, as its user, with an
// environment in which nobody's PGPORT or LC_MESSAGES lingers, and in a process
// group of its own, so that Ctrl-C in a terminal reaches headpond alone, which
// then stops its children in the right order.
func command(dir string, who *account, deathSignal syscall.Signal, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	for _, name := range []string{"TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: who.credential()}
	dieWithUs(cmd.SysProcAttr, deathSignal)
	return cmd
}

// spawn starts the command with its output in the log file.
func spawn(cmd *exec.Cmd, log string, who *account) (*child, error) {
	file, from, err := openLog(log, who)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	return launch(cmd, log, from)
}

// launch starts the command as a child that does not outlive us.
//
// The kernel sends the parent-death signal when the *thread* that forked ends,
// not the process (prctl(2), PR_SET_PDEATHSIG). Go ends threads when it likes,
// for one when a goroutine returns that is locked to its own. So each child has
// a goroutine that keeps its thread from before the fork until the child was
// reaped: the thread then cannot end first, unless the whole process does.
// Rejected: one thread for all children that lives as long as the process; it
// is a global, and a leak to every test that looks for leaks.
func launch(cmd *exec.Cmd, log string, from int64) (*child, error) {
	c := &child{cmd: cmd, log: log, logFrom: from, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) alive() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// signal does nothing to a child that has ended: os.Process never signals a
// process id that was given to somebody else since.
func (c *child) signal(s syscall.Signal) error {
	if err := c.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", c.pid(), err)
	}
	return nil
}

// within waits for the end of the child, and tells whether it came in time.
func (c *child) within(patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.done:
		return true
	case <-timer.C:
		return false
	}
}

// died tells why a child that has ended did so.
func (c *child) died(server string) *DiedError {
	reason := "exit status 0"
	if c.err != nil {
		reason = c.err.Error()
	}
	return &DiedError{Server: server, Reason: reason, Last: tail(c.log, c.logFrom), LogFile: c.log}
}
