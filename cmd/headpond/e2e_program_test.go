package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The e2e tests start the real program, as its users do, and then do to it
// what the world does: kill it, stop its servers, send it bad rows.

const (
	patience = 90 * time.Second // a condition that has not come true by then never will
	lookEach = 5 * time.Millisecond
)

// await waits until cond holds.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	look := time.NewTicker(lookEach)
	defer look.Stop()
	for !cond() {
		select {
		case <-look.C:
		case <-deadline.C:
			require.FailNow(t, "waited in vain for: "+what)
		}
	}
}

// build is the program, built when the first test asks for it and removed when
// the last one has ended.
type build struct {
	tags  string
	mu    sync.Mutex // guards the rest; held while building
	users int
	dir   string
}

var built, builtWithFailpoints = build{}, build{tags: "failpoints"}

// buildProgram gives the path of the program, with the race detector if the
// tests have it. Call it before t.Parallel: all tests that run are counted
// before the first of them ends.
func buildProgram(t *testing.T) string { return built.program(t) }

// buildWithFailpoints is buildProgram of one that heeds HEADPOND_FAILPOINT.
func buildWithFailpoints(t *testing.T) string { return builtWithFailpoints.program(t) }

func (b *build) program(t *testing.T) string {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dir == "" {
		dir, err := os.MkdirTemp("", "headpond-program-")
		require.NoError(t, err)
		args := []string{"build", "-tags", b.tags, "-o", filepath.Join(dir, "headpond")}
		if raceDetector() {
			args = append(args, "-race")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, "go", append(args, ".")...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		b.dir = dir
	}
	b.users++
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.users--; b.users == 0 {
			if err := os.RemoveAll(b.dir); err != nil {
				t.Errorf("remove the program: %v", err)
			}
			b.dir = ""
		}
	})
	return filepath.Join(b.dir, "headpond")
}

func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// cleanEnvironment is ours without what would configure Headpond, but with
// where the servers are.
func cleanEnvironment(extra ...string) []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case name == "HEADPOND_PG_BIN", name == "HEADPOND_REDIS_SERVER":
		case strings.HasPrefix(name, "HEADPOND_"), strings.HasPrefix(name, "PG"), strings.HasPrefix(name, "OTEL_"), name == "DATABASE_URL", name == "REDIS_URL":
			continue
		}
		env = append(env, v)
	}
	return append(env, extra...)
}

// journal keeps what a process writes. Safe for concurrent use.
type journal struct {
	mu   sync.Mutex
	text []byte
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text = append(j.text, p...)
	return len(p), nil
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(j.text)
}

// line gives the first whole line that holds words.
func (j *journal) line(words string) (string, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	at := bytes.Index(j.text, []byte(words))
	if at < 0 {
		return "", false
	}
	from := bytes.LastIndexByte(j.text[:at], '\n') + 1
	end := bytes.IndexByte(j.text[at:], '\n')
	return string(j.text[from : at+max(end, 0)]), end >= 0
}

// process is the program at work.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, log journal
	done     chan struct{} // closed when it was reaped; err is set before
	err      error
	killed   bool // by us
}

// start runs the program until the end of the test; it must then end cleanly.
func start(t *testing.T, program string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(program, args...), done: make(chan struct{})} //nolint:noctx // ended by signals
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, &p.out, &p.log
	p.cmd.WaitDelay = 5 * time.Second
	p.cmd.SysProcAttr = &syscall.SysProcAttr{}
	dieWithUs(p.cmd.SysProcAttr)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the death signal is sent when the thread ends
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	require.NoError(t, <-started)
	t.Cleanup(p.end)
	return p
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) name() string { return strings.Join(p.cmd.Args[1:], " ") }

// terminate asks it to end.
func (p *process) terminate() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
}

// wait for its end, and give the exit code.
func (p *process) wait() int {
	p.t.Helper()
	await(p.t, p.name()+" to end", p.ended)
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill sends SIGKILL and waits for the end.
func (p *process) kill() {
	p.t.Helper()
	p.killed = true
	if err := p.cmd.Process.Kill(); err != nil {
		require.ErrorIs(p.t, err, os.ErrProcessDone)
	}
	p.wait()
}

// end is the cleanup: SIGTERM, exit code 0, no race and no panic.
func (p *process) end() {
	if !p.ended() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(patience):
			_ = p.cmd.Process.Kill()
			<-p.done
			p.t.Errorf("%s did not end on SIGTERM", p.name())
		}
	}
	if exit := new(exec.ExitError); !p.killed && p.err != nil && (!errors.As(p.err, &exit) || exit.ExitCode() != 0) {
		p.t.Errorf("%s ended with: %v", p.name(), p.err)
	}
	log := p.log.String()
	for _, bad := range []string{"WARNING: DATA RACE", "panic:", "handler panicked", `"msg":"request failed"`} {
		if strings.Contains(log, bad) {
			p.t.Errorf("%s wrote: %s", p.name(), bad)
		}
	}
	if p.t.Failed() {
		p.t.Logf("%s wrote at last:\n%s", p.name(), log[max(0, len(log)-6000):])
	}
}

// logged waits for a message in the log and gives its fields.
func (p *process) logged(message string) (fields map[string]any) {
	p.t.Helper()
	quoted, err := json.Marshal(message)
	require.NoError(p.t, err)
	await(p.t, p.name()+" to log "+message, func() bool {
		line, ok := p.log.line(`"msg":` + string(quoted))
		if ok {
			err = json.Unmarshal([]byte(line), &fields)
		}
		return ok || p.ended()
	})
	require.NoError(p.t, err)
	require.NotNil(p.t, fields, "%s ended before it logged %q:\n%s", p.name(), message, p.log.String())
	return fields
}

// result of a command that ends by itself.
type result struct {
	code     int
	out, err string
}

// command runs the program to its end.
func command(t *testing.T, program string, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil {
		require.ErrorAs(t, err, &exit)
	}
	return result{code: cmd.ProcessState.ExitCode(), out: stdout.String(), err: stderr.String()}
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "headpond.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text+"\n"), 0o600))
	return file
}
