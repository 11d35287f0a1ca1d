package up

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// ProcessOptions say what a companion process runs.
type ProcessOptions struct {
	Name    string
	Program string
	Args    []string
	Env     []string
	// Log takes what happens to the child; nil is slog.Default().
	Log *slog.Logger
	// Output takes what the child writes; nil is our own standard error. It
	// must stay open until Stop has returned.
	Output *os.File
}

// Process is a companion of this process: a program of ours, as our user, that
// is started again when it dies and never outlives us. It needs no clean end.
// Safe for concurrent use.
type Process struct {
	o    ProcessOptions
	log  *slog.Logger
	stop chan struct{}
	once sync.Once

	mu   sync.Mutex // guards kid and down
	kid  *child
	down time.Time // it is not started again before
}

// StartProcess starts it.
func StartProcess(_ context.Context, o ProcessOptions) (*Process, error) {
	p := &Process{o: o, log: orDefault(o.Log).With("process", o.Name), stop: make(chan struct{})}
	return p, p.start()
}

func (p *Process) start() error {
	cmd := exec.Command(p.o.Program, p.o.Args...) //nolint:gosec,noctx // our own program; it outlives any context of a caller
	cmd.Env = p.o.Env
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if p.o.Output != nil {
		cmd.Stdout, cmd.Stderr = p.o.Output, p.o.Output
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithUs(cmd.SysProcAttr, syscall.SIGKILL)
	kid, err := launch(cmd, "", 0)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.o.Name, err)
	}
	p.mu.Lock()
	p.kid = kid
	p.mu.Unlock()
	return nil
}

// PID is the process id of the running child; 0 while there is none.
func (p *Process) PID() int {
	if kid := p.current(); kid.alive() {
		return kid.pid()
	}
	return 0
}

// Kill sends SIGKILL and waits for the end. Under Supervise the child comes back.
func (p *Process) Kill() error {
	kid := p.current()
	if err := kid.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-kid.done
	return nil
}

// KillFor is Kill, and the child stays away for that long.
func (p *Process) KillFor(down time.Duration) error {
	p.mu.Lock()
	p.down = time.Now().Add(down)
	p.mu.Unlock()
	return p.Kill()
}

// away is how long the child is to stay away.
func (p *Process) away() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.down)
}

func (p *Process) current() *child {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kid
}

// Supervise starts the child again whenever it dies, until ctx ends or Stop is
// called; then it stops it.
func (p *Process) Supervise(ctx context.Context) error {
	var delay time.Duration
	for {
		began := time.Now()
		kid := p.current()
		select {
		case <-ctx.Done():
			return p.Stop()
		case <-p.stop:
			return nil
		case <-kid.done:
		}
		if time.Since(began) > settled {
			delay = 0
		}
		reason := "it ended"
		if kid.err != nil {
			reason = kid.err.Error()
		}
		in := max(delay, p.away())
		p.log.Warn("died, starting it again", "pid", kid.pid(), "reason", reason, "in", in)
		if !pause(ctx, p.stop, in) {
			continue
		}
		if err := p.start(); err != nil {
			p.log.Error("could not be started again", "error", err)
		}
		delay = min(max(2*delay, firstDelay), companionDelay)
	}
}

// companionDelay bounds the pause before a companion is started again: it has
// nothing to recover, and everybody waits for it.
const companionDelay = time.Second

// companionPatience is more than the flusher's own drain deadline.
const companionPatience = 40 * time.Second

// Stop ends the child: SIGTERM, and SIGKILL when that does not help. A second
// call does nothing.
func (p *Process) Stop() (err error) {
	p.once.Do(func() {
		close(p.stop)
		kid := p.current()
		if !kid.alive() {
			return
		}
		err = kid.signal(syscall.SIGTERM)
		if !kid.within(companionPatience) {
			err = errors.Join(err, kid.signal(syscall.SIGKILL))
			<-kid.done
		}
	})
	return err
}
