package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asHeadpond makes this test binary behave as the program: see
// TestAsHeadpond.
const asHeadpond = "HEADPOND_TEST_AS_PROGRAM"

// TestAsHeadpond is no test: it is the program itself, without building it
// once more, for tests that need it as a process of its own.
func TestAsHeadpond(t *testing.T) {
	if os.Getenv(asHeadpond) == "" {
		t.Skip("this is a process for other tests")
	}
	os.Args = append([]string{"headpond"}, flag.Args()...)
	main()
}

// TestReadmeCommands does what a reader of README does: it starts `headpond
// up` on a machine of its own (an ephemeral directory, a free port) and runs
// every block marked ```sh in order. The ```json or ```text block that follows
// it, if there is one, is the answer; what differs from run to run (ids,
// times, receipts, traces) is made equal first. Blocks with other marks
// (```console, ```sql) are for people.
func TestReadmeCommands(t *testing.T) {
	for _, program := range []string{"sh", "curl", "psql"} {
		_, err := exec.LookPath(program)
		require.NoError(t, err, "README's commands need %s on this machine", program)
	}
	r := startReadme(t)
	examples := readExamples(readDocument(t, "README.md"))
	require.Greater(t, len(examples), 5, "the test does not see the examples any more")
	for _, x := range examples {
		if strings.Contains(x.commands, "status") || strings.Contains(x.commands, "psql") {
			r.waitForCommits(t) // a reader is slower than a test
		}
		r.run(t, x)
	}
	var scrape string
	require.Eventually(t, func() bool { // the ledger's metrics are those of the last sample
		scrape = r.get("/metrics")
		return strings.Contains(scrape, "\nheadpond_ledger_committed_rows_total{")
	}, 30*time.Second, 100*time.Millisecond, "the books are not sampled")
	metricsAgree(t, scrape)
	toolsAgree(t, scrape)
}

// example is one block of README.
type example struct {
	commands string
	kind     string // of the answer: json, text or none
	answer   string
}

var block = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")

func readExamples(text string) (out []example) {
	for _, m := range block.FindAllStringSubmatch(text, -1) {
		kind, body := m[1], m[2]
		switch {
		case kind == "sh":
			out = append(out, example{commands: body})
		case (kind == "json" || kind == "text") && len(out) > 0 && out[len(out)-1].kind == "":
			out[len(out)-1].kind, out[len(out)-1].answer = kind, body
		}
	}
	return out
}

// reader is somebody with a terminal in the repository.
type reader struct {
	dir string // holds bin/headpond
	api string
	env []string
}

func startReadme(t *testing.T) *reader {
	t.Helper()
	r := &reader{dir: t.TempDir()}
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(r.dir, "bin"), 0o755))
	script := "#!/bin/sh\n" + asHeadpond + "=1 exec '" + self + "' -test.run='^TestAsHeadpond$' -- \"$@\"\n"
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "bin/headpond"), []byte(script), 0o755)) //nolint:gosec // it must be run
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "HEADPOND_") && name != "DATABASE_URL" && name != "REDIS_URL" {
			r.env = append(r.env, v)
		}
	}
	for _, name := range []string{"HEADPOND_REDIS_SERVER", "HEADPOND_PG_BIN"} { // where the programs are
		if v := os.Getenv(name); v != "" {
			r.env = append(r.env, name+"="+v)
		}
	}
	r.up(t)
	return r
}

// up starts the stack, and stops it at the end of the test.
func (r *reader) up(t *testing.T) {
	t.Helper()
	cmd := exec.Command(filepath.Join(r.dir, "bin/headpond"), "up", "--json", "--ephemeral", "--listen", "127.0.0.1:0")
	var log bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stderr = r.dir, r.env, &log
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := make(chan string, 1)
	ended := make(chan error, 1)
	go func() {
		line, _ := bufio.NewReader(stdout).ReadString('\n')
		lines <- line
		_, _ = io.Copy(io.Discard, stdout)
		ended <- cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("headpond up ended with: %v", err)
			}
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			t.Errorf("headpond up did not end on SIGTERM: %v", <-ended)
		}
		if t.Failed() {
			t.Logf("headpond up wrote:\n%s", log.String())
		}
	})
	var ready struct {
		API      string `json:"api"`
		Database string `json:"database_url"`
	}
	select {
	case line := <-lines:
		require.NoError(t, json.Unmarshal([]byte(line), &ready), "the line of --json: %q", line)
	case <-time.After(2 * time.Minute):
		require.Fail(t, "headpond up was not ready in two minutes")
	}
	r.api = ready.API
	r.env = append(r.env, "PG="+ready.Database, "HEADPOND_API="+ready.API)
}

func (r *reader) run(t *testing.T, x example) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-eu", "-c", strings.ReplaceAll(x.commands, "http://127.0.0.1:8080", r.api))
	cmd.Dir, cmd.Env = r.dir, r.env
	got, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		err = errors.Join(err, errors.New(string(exit.Stderr)))
	}
	require.NoError(t, err, "%s\nwrote: %s", x.commands, got)
	if x.kind == "json" {
		require.Equal(t, documentsOf(t, x.answer), documentsOf(t, string(got)), x.commands)
	} else if x.kind == "text" {
		require.Equal(t, sameEachTime(strings.TrimSpace(x.answer)), sameEachTime(strings.TrimSpace(string(got))), x.commands)
	}
}

// documentsOf a text that holds one JSON value after the other: compact, so
// that README may break long lines, and with their names in order.
func documentsOf(t *testing.T, text string) (out []string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	for {
		var raw json.RawMessage
		err := d.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err, "this is not JSON: %s", text)
		var compact bytes.Buffer
		require.NoError(t, json.Compact(&compact, raw))
		out = append(out, sameEachTime(compact.String()))
	}
}

// changing is what differs from run to run.
var changing = []struct {
	what *regexp.Regexp
	same string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`), "<uuidv7>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)`), "<time>"},
	{regexp.MustCompile(`\b(events|orders|page_views)\.\d+\.\d+\.\d+\b`), "$1.<partition>.<epoch>.<seq>"},
	{regexp.MustCompile(`"trace_id":"[0-9a-f]{32}"`), `"trace_id":"<trace>"`},
	{regexp.MustCompile(`"fingerprint":"[0-9a-f]{16}"`), `"fingerprint":"<fingerprint>"`},
	{regexp.MustCompile(`"lag_ms":\d+`), `"lag_ms":<number>`},
	{regexp.MustCompile(`"scanned":\d+`), `"scanned":<number>`},
	{regexp.MustCompile(`"hit_rate":[0-9.]+`), `"hit_rate":<number>`},
	{regexp.MustCompile(`committed \d+ (.*) coalesced \d+`), "committed <some> $1 coalesced <the others>"},
}

func sameEachTime(text string) string {
	for _, c := range changing {
		text = c.what.ReplaceAllString(text, c.same)
	}
	return text
}

// get gives an answer's body, or what went wrong.
func (r *reader) get(path string) string {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(r.api + path) //nolint:noctx // it has a timeout
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (r *reader) waitForCommits(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		var s struct{ Backlog struct{ Rows *int } }
		err := json.Unmarshal([]byte(r.get("/admin/v1/status")), &s)
		return err == nil && s.Backlog.Rows != nil && *s.Backlog.Rows == 0
	}, 30*time.Second, 50*time.Millisecond, "rows stay pending")
}
