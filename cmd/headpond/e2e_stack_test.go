package main_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// headpond is an API, and what stands behind it.
type headpond struct {
	*process

	api, database, redis string
	ready                map[string]any // the line of --json; nil for serve
}

// startUp runs `headpond up` until it is ready.
func startUp(t *testing.T, program string, args ...string) *headpond {
	t.Helper()
	args = append([]string{"up", "--json", "--listen", "127.0.0.1:0"}, args...)
	h := &headpond{process: start(t, program, cleanEnvironment(), args...)}
	await(t, "headpond up", func() bool { return strings.Contains(h.out.String(), "\n") || h.ended() })
	require.NoError(t, json.Unmarshal([]byte(h.out.String()), &h.ready), "it wrote %q, and: %s", h.out.String(), h.log.String())
	text := func(name string) string { s, _ := h.ready[name].(string); return s }
	h.api, h.database, h.redis = text("api"), text("database_url"), text("redis_url")
	return h
}

// servers are a Redis and a Postgres that a test may stop.
type servers struct {
	program  string
	redis    *up.Redis
	postgres *up.Postgres
	state    string   // of the processes: a test of before may have had a database at the same address
	extra    []string // environment of the processes
}

func startServers(t *testing.T, program string) *servers {
	t.Helper()
	s := &servers{program: program, redis: uptest.Redis(t), postgres: uptest.Postgres(t), state: t.TempDir()}
	migrated := command(t, program, s.env(), "migrate", "up")
	require.Zero(t, migrated.code, migrated.err)
	return s
}

func (s *servers) env() []string {
	return cleanEnvironment(append(slices.Clone(s.extra), "HEADPOND_STATE_DIR="+s.state, "DATABASE_URL="+s.postgres.URL(), "REDIS_URL="+s.redis.URL())...)
}

// serve runs `headpond serve` with the API, until it has read the catalog.
func (s *servers) serve(t *testing.T, args ...string) *headpond {
	t.Helper()
	args = append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)
	h := &headpond{process: start(t, s.program, s.env(), args...), database: s.postgres.URL(), redis: s.redis.URL()}
	h.api, _ = h.logged("serving")["url"].(string)
	h.logged("catalog read")
	return h
}

// flusher runs one more `headpond serve --role flusher`, and does not wait.
func flusher(t *testing.T, program, database, redis string) *process {
	t.Helper()
	return start(t, program, cleanEnvironment("DATABASE_URL="+database, "REDIS_URL="+redis), "serve", "--role", "flusher")
}

// client has connections enough for every test. It does not give up before the
// server does.
var client = &http.Client{
	Timeout:   60 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 64},
}

// answer to a request.
type answer struct {
	code   int
	body   []byte
	header http.Header
}

func (a answer) field(name string) string {
	var fields map[string]any
	if json.Unmarshal(a.body, &fields) != nil {
		return ""
	}
	s, _ := fields[name].(string)
	return s
}

func request(method, url, kind, body string) (answer, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body)) //nolint:noctx // the client has a timeout
	if err != nil {
		return answer{}, err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return answer{code: resp.StatusCode, body: text, header: resp.Header}, err
}

const (
	typeJSON   = "application/json"
	typeNDJSON = "application/x-ndjson"
)

func (h *headpond) post(table, kind, body string) (answer, error) {
	return request(http.MethodPost, h.api+"/v1/"+table, kind, body)
}

func (h *headpond) get(t *testing.T, path string) answer {
	t.Helper()
	a, err := request(http.MethodGet, h.api+path, "", "")
	require.NoError(t, err)
	return a
}

// books is one line of the ledger.
type books struct {
	Accepted, Committed, Pending, Coalesced, Lost int64
	Dead                                          int64 `json:"dead_lettered"`
}

// state is what the tests read of the status.
type state struct {
	Ledger  books                             `json:"ledger"`
	Letters int64                             `json:"dead_letters"`
	Tables  map[string]struct{ Ledger books } `json:"tables"`
	Stack   pids                              `json:"local_stack"`
}

// pids are the numbers of what the status says of the local stack.
type pids map[string]int

func (p *pids) UnmarshalJSON(text []byte) error {
	var all map[string]any
	*p = make(pids)
	err := json.Unmarshal(text, &all)
	for name, v := range all {
		if pid, is := v.(float64); is {
			(*p)[name] = int(pid)
		}
	}
	return err
}

func (h *headpond) status(t *testing.T) (s state) {
	t.Helper()
	a := h.get(t, "/admin/v1/status")
	require.Equal(t, http.StatusOK, a.code)
	require.NoError(t, json.Unmarshal(a.body, &s), "%s", a.body)
	return s
}

// settled waits until nothing is pending, and then the ledger must close.
func (h *headpond) settled(t *testing.T) {
	t.Helper()
	await(t, "all rows to be committed", func() bool { return h.status(t).Ledger.Pending == 0 })
	l := h.status(t).Ledger
	require.Equal(t, l.Accepted, l.Committed+l.Coalesced+l.Dead+l.Lost, "the ledger does not close: %+v", l)
	require.Zero(t, l.Lost)
}

// create makes tables and waits until the API serves them.
func (h *headpond) create(t *testing.T, ddl string, tables ...string) {
	t.Helper()
	execute(t, h.database, ddl)
	h.serves(t, tables...)
}

func (h *headpond) serves(t *testing.T, tables ...string) {
	t.Helper()
	for _, name := range tables {
		await(t, "table "+name, func() bool { return h.get(t, "/v1/"+name+"/_schema").code == http.StatusOK })
	}
}

func connect(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func execute(t *testing.T, database, sql string) {
	t.Helper()
	conn := connect(t, database)
	_, err := conn.Exec(t.Context(), sql)
	require.NoError(t, err, sql)
	require.NoError(t, conn.Close(t.Context()))
}

// column gives the values of a query's only column.
func column[T any](t *testing.T, database, sql string, args ...any) []T {
	t.Helper()
	conn := connect(t, database)
	rows, err := conn.Query(t.Context(), sql, args...)
	require.NoError(t, err)
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	require.NoError(t, err, sql)
	require.NoError(t, conn.Close(t.Context()))
	return values
}

func value[T any](t *testing.T, database, sql string, args ...any) T {
	t.Helper()
	values := column[T](t, database, sql, args...)
	require.Len(t, values, 1, sql)
	return values[0]
}
