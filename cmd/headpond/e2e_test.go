package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// The tests here start the program as a user does, and kill parts of it.

var program struct {
	once sync.Once
	path string
	err  error
}

// build builds the program, once. It is not the test binary under another
// name: `up --split` starts itself.
func build(t *testing.T) string {
	t.Helper()
	program.once.Do(func() {
		dir, err := os.MkdirTemp("", "headpond-e2e-")
		if err != nil {
			program.err = err
			return
		}
		program.path = filepath.Join(dir, "headpond")
		out, err := exec.Command("go", "build", "-o", program.path, ".").CombinedOutput() //nolint:noctx // bounded by go test
		if err != nil {
			program.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	require.NoError(t, program.err)
	return program.path
}

// running is one `headpond up` or `serve`.
type running struct {
	t     *testing.T
	cmd   *exec.Cmd
	ended chan error
	log   *bytes.Buffer
	API   string `json:"api"`
	DB    string `json:"database_url"`
	Redis string `json:"redis_url"`
}

// start runs the program until the end of the test, with a clean environment.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{t: t, cmd: exec.Command(build(t), args...), ended: make(chan error, 1), log: new(bytes.Buffer)} //nolint:noctx // stopped by signal
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "HEADPOND_") && name != "DATABASE_URL" && name != "REDIS_URL" {
			r.cmd.Env = append(r.cmd.Env, v)
		}
	}
	r.cmd.Stderr = r.log
	stdout, err := r.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, r.cmd.Start())
	line := make(chan []byte, 1)
	go func() {
		out := bufio.NewReader(stdout)
		text, _ := out.ReadBytes('\n')
		line <- text
		_, _ = io.Copy(io.Discard, out)
		r.ended <- r.cmd.Wait()
	}()
	t.Cleanup(r.stop)
	if args[0] != "up" {
		return r
	}
	select {
	case text := <-line:
		require.NoError(t, json.Unmarshal(text, r), "%s", r.log)
	case <-time.After(60 * time.Second):
		t.Fatalf("headpond up is not ready: %s", r.log)
	}
	return r
}

// stop ends it with SIGTERM and expects exit code 0; again is harmless.
func (r *running) stop() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("%v ended with %v: %s", r.cmd.Args, err, r.log)
		}
	case <-time.After(60 * time.Second):
		_ = r.cmd.Process.Kill()
		r.t.Errorf("%v did not end", r.cmd.Args)
	}
	r.cmd = nil
}

// kill ends it with SIGKILL.
func (r *running) kill() {
	_ = r.cmd.Process.Kill()
	<-r.ended
	r.cmd = nil
}

type statusBody struct {
	Ledger ledgerView     `json:"ledger"`
	Local  map[string]int `json:"local_stack"`
}

func (r *running) status() (s statusBody) {
	r.t.Helper()
	text, err := fetchStatus(context.Background(), r.API)
	require.NoError(r.t, err)
	require.NoError(r.t, json.Unmarshal(text, &s))
	return s
}

// drained waits until nothing is pending.
func (r *running) drained() {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return r.status().Ledger.Pending == 0 }, 90*time.Second, 50*time.Millisecond)
}

// load posts rows until so many are acknowledged, from several clients: single
// rows and batches. It gives how many were acknowledged; every answer that is
// not a 202 fails the test, unless it is one that may happen.
func (r *running) load(rows int64, mayHappen ...int) (acked *atomic.Int64, wait func()) {
	acked = new(atomic.Int64)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for acked.Load() < rows {
				n := []int{1, 20, 400}[rand.IntN(3)] //nolint:gosec // no secret
				got, code, err := r.post("events", strings.Repeat(`{"user_id":1,"kind":"click","payload":{"a":[1,"é"]}}`+"\n", n))
				acked.Add(int64(got))
				if err != nil || code == http.StatusAccepted {
					continue
				}
				ok := false
				for _, m := range mayHappen {
					ok = ok || m == code
				}
				if !ok {
					r.t.Errorf("answer %d", code)
					return
				}
			}
		})
	}
	return acked, wg.Wait
}

func (r *running) post(table, lines string) (accepted, code int, err error) {
	resp, err := http.Post(r.API+"/v1/"+table, "application/x-ndjson", strings.NewReader(lines)) //nolint:noctx // bounded by the server
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct{ Accepted int }
	err = json.NewDecoder(resp.Body).Decode(&body)
	return body.Accepted, resp.StatusCode, err
}

// count checks that a table holds exactly what was acknowledged, once, and
// that the books say the same.
func (r *running) count(acked int64) {
	r.t.Helper()
	conn, err := pgx.Connect(context.Background(), r.DB)
	require.NoError(r.t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	var rows, distinct, seq, done int64
	require.NoError(r.t, conn.QueryRow(context.Background(), `select count(*), count(distinct id) from events`).Scan(&rows, &distinct))
	require.NoError(r.t, conn.QueryRow(context.Background(), `
		select sum(seq), sum(committed + coalesced + dead + lost) from headpond.watermarks where table_name = 'events'`).Scan(&seq, &done))
	require.Equal(r.t, acked, rows, "acknowledged and in Postgres")
	require.Equal(r.t, rows, distinct)
	require.Equal(r.t, acked, seq, "the log has no hole")
	require.Equal(r.t, seq, done, "the ledger closes")
}

func killPID(pid int) bool { return pid > 0 && syscall.Kill(pid, syscall.SIGKILL) == nil }

func TestFlusherKilledUnderLoad(t *testing.T) {
	r := start(t, "up", "--ephemeral", "--split", "--json", "--listen", "127.0.0.1:0")
	// Two more flushers side by side: nothing coordinates them but Postgres.
	for range 2 {
		start(t, "serve", "--role", "flusher", "--database-url", r.DB, "--redis-url", r.Redis)
	}
	acked, wait := r.load(60_000)
	killed := make(map[int]bool)
	for len(killed) < 10 {
		if pid := r.status().Local["flusher_pid"]; !killed[pid] && killPID(pid) {
			killed[pid] = true
		}
	}
	wait()
	r.drained()
	r.count(acked.Load())
}

func TestServersKilledUnderLoad(t *testing.T) {
	r := start(t, "up", "--ephemeral", "--json", "--listen", "127.0.0.1:0")
	acked, wait := r.load(60_000, http.StatusServiceUnavailable)
	for i, name := range []string{"postgres_pid", "redis_pid", "postgres_pid", "redis_pid"} {
		require.Eventually(t, func() bool { return acked.Load() > int64(i+1)*10_000 }, 60*time.Second, time.Millisecond)
		require.True(t, killPID(r.status().Local[name]), name)
	}
	wait()
	r.drained()
	text, err := fetchStatus(context.Background(), r.API)
	require.NoError(t, err)
	var s statusBody
	require.NoError(t, json.Unmarshal(text, &s))
	require.Zero(t, s.Ledger.Lost)
	require.GreaterOrEqual(t, s.Ledger.Committed, acked.Load(), "a call whose answer was lost may have been applied")
	require.Equal(t, s.Ledger.Accepted, s.Ledger.Committed)
}

func TestUpKilledStartsAgainOnItsData(t *testing.T) {
	dir := uptest.Dir(t)
	args := []string{"up", "--data-dir", dir, "--json", "--listen", "127.0.0.1:0"}
	r := start(t, args...)
	acked, wait := r.load(20_000)
	wait()
	pids := r.status().Local
	r.kill()
	for name, pid := range pids {
		require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, 20*time.Second, 20*time.Millisecond, "%s is an orphan", name)
	}
	r = start(t, args...)
	r.drained()
	r.count(acked.Load())
	r.stop()
}
