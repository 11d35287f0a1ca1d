package up

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// traits are what the two servers differ in and what never changes.
type traits struct {
	programs    []string       // the process names that it runs under
	farewells   []farewell     // the polite ways to end it, in order
	deathSignal syscall.Signal // sent by the kernel when we die
}

// engine is what the two servers differ in and what has to be done.
type engine interface {
	// prepare makes the directory fit for a start. Nothing of ours runs in it.
	prepare(ctx context.Context) error
	// command runs the server in the foreground.
	command(port int) (program string, args []string)
	// ready looks once whether process pid takes connections.
	ready(ctx context.Context, pid, port int) bool
	// greet is called once the server is ready.
	greet(ctx context.Context, port int) error
}

// server keeps one child of an engine. Safe for concurrent use.
type server struct {
	name      string
	dir       string
	ephemeral bool
	who       *account
	log       *slog.Logger
	traits    traits
	engine    engine
	scratch   string // a directory outside dir that Stop removes if it is empty

	// change is held over a whole start or stop, so that there is never a
	// second child on the directory. It guards lock and forgotten.
	change    sync.Mutex
	lock      *lock
	forgotten bool

	// mu is held for a moment only, never while waiting: PID must answer while
	// a start is going on.
	mu   sync.Mutex
	kid  *child        // the newest child, dead or alive
	port int           // 0 until the first start: fixed from then on
	quit chan struct{} // closed by Stop
}

func newServer(name, dir string, ephemeral bool, log *slog.Logger) (*server, error) {
	if err := validDir(dir, ephemeral); err != nil {
		return nil, err
	}
	dir, who, err := prepareDir(dir, name)
	if err != nil {
		return nil, err
	}
	return &server{name: name, dir: dir, ephemeral: ephemeral, who: who, log: orDefault(log).With("server", name)}, nil
}

// PID is the process id of the running child; 0 while there is none.
func (s *server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kid == nil || !s.kid.alive() {
		return 0
	}
	return s.kid.pid()
}

// Dir is the server's directory, absolute, without symbolic links.
func (s *server) Dir() string { return s.dir }

// Addr is host:port, the same for as long as this process lives.
func (s *server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return address(s.port)
}

// LogFile is where the child writes its log.
func (s *server) LogFile() string { return filepath.Join(s.dir, "log") }

// Restart stops the child cleanly if it runs and starts it on the same data
// and address. It also starts again after Kill or Stop, unless the directory
// was ephemeral.
func (s *server) Restart(ctx context.Context) error {
	s.change.Lock()
	defer s.change.Unlock()
	if err := s.halt(); err != nil {
		s.log.Warn("stopped by force before a restart", "error", err)
	}
	return s.start(ctx, s.arm())
}

// Kill sends SIGKILL and waits for the end. Under Supervise the child comes back.
func (s *server) Kill() error {
	s.mu.Lock()
	kid := s.kid
	s.mu.Unlock()
	if kid == nil {
		return nil
	}
	if err := kid.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-kid.done
	return nil
}

// Stop ends the child cleanly, by force after a while, ends Supervise, gives
// the directory back, and removes it if it was ephemeral. A second call does
// nothing.
func (s *server) Stop() error {
	s.mu.Lock()
	if s.quit != nil && !isClosed(s.quit) {
		close(s.quit) // before the lock below: it ends a start that holds it
	}
	s.mu.Unlock()
	s.change.Lock()
	defer s.change.Unlock()
	err := s.halt()
	if s.lock != nil {
		err = errors.Join(err, s.lock.release())
		s.lock = nil
	}
	return errors.Join(err, s.forget())
}

// forget removes what must not outlive the server. The caller holds change.
func (s *server) forget() error {
	if s.scratch != "" {
		_ = os.Remove(s.scratch) // a socket left in it by a killed child stays where it is
	}
	if !s.ephemeral || s.forgotten {
		return nil
	}
	s.forgotten = true
	return os.RemoveAll(s.dir)
}

// halt ends the child, politely first. The caller holds change.
func (s *server) halt() error {
	s.mu.Lock()
	kid := s.kid
	s.mu.Unlock()
	if kid == nil || !kid.alive() {
		return nil
	}
	kid.expected.Store(true)
	began := time.Now()
	for _, way := range s.traits.farewells {
		if err := kid.signal(way.signal); err != nil {
			return err
		}
		if kid.within(way.patience) {
			return removeIfThere(filepath.Join(s.dir, "pid"))
		}
	}
	if err := kid.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-kid.done
	return fmt.Errorf("%s did not stop within %s and was killed; its data is safe and will be recovered at the next start",
		s.name, time.Since(began).Round(time.Second))
}

// arm makes the server stoppable again after a Stop. Only those who are asked
// from outside to start it may do so: were Supervise to do it, a Stop that came
// between its look and its start would be lost.
func (s *server) arm() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quit == nil || isClosed(s.quit) {
		s.quit = make(chan struct{})
	}
	return s.quit
}

func (s *server) current() (*child, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kid, s.quit
}

func (s *server) keepPort(port int) error {
	s.mu.Lock()
	s.port = port
	s.mu.Unlock()
	return writeFile(filepath.Join(s.dir, "port"), strconv.Itoa(port))
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
