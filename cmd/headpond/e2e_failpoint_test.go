package main_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	fl "github.com/headpond/headpond/flusher"
)

// rounds is how often a process is killed at each failpoint.
func rounds() int {
	if os.Getenv("HEADPOND_LONG") != "" {
		return 20
	}
	return 1
}

// mixedTables: one table without a key, where nothing but Headpond keeps a row
// from arriving twice, and one whose rows are changed in every way.
const mixedTables = `
	create table mixed_loose (n bigint not null);
	create table mixed_keyed (id int primary key, v bigint not null default 0, note text)`

// mixed is a small load: each of its clients has keys of its own, does one thing
// after the other to them, and so knows what they must be in the end.
type mixed struct {
	t       *testing.T
	url     func() string
	prefix  string // of the tables
	again   bool   // a request that was not answered is sent again, under its Idempotency-Key
	clients sync.WaitGroup
	over    chan struct{}
	ending  sync.Once
	mu      sync.Mutex // guards the rest
	loose   int64
	keyed   map[int]keyedRow
	answers int
}

type keyedRow struct {
	there bool
	v     int64
	note  string
}

func startMixed(t *testing.T, seed uint64, m *mixed) *mixed {
	m.t, m.over, m.keyed = t, make(chan struct{}), make(map[int]keyedRow)
	for c := range 4 {
		m.clients.Go(func() { m.client(c, rand.New(rand.NewPCG(seed, uint64(c)))) }) //nolint:gosec // no secret
	}
	t.Cleanup(m.stop)
	return m
}

func (m *mixed) stop() {
	m.ending.Do(func() { close(m.over) })
	m.clients.Wait()
}

// client writes some hundred rows a second: enough for every step of a flush.
func (m *mixed) client(c int, r *rand.Rand) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	rows := make(map[int]keyedRow)
	for n := 0; ; n++ {
		select {
		case <-m.over:
			m.mu.Lock()
			defer m.mu.Unlock()
			for id, row := range rows {
				m.keyed[id] = row
			}
			return
		case <-tick.C:
		}
		idem := fmt.Sprintf("%s%d.%d", m.prefix, c, n)
		if r.IntN(3) == 0 {
			var b strings.Builder
			for i := range 20 {
				fmt.Fprintf(&b, "{\"n\":%d}\n", (c*1_000_000+n)*20+i)
			}
			if m.send(http.MethodPost, m.prefix+"_loose", typeNDJSON, b.String(), idem) {
				m.mu.Lock()
				m.loose += 20
				m.mu.Unlock()
			}
			continue
		}
		id := c*10 + r.IntN(10)
		row := rows[id]
		path := fmt.Sprintf("%s_keyed/%d", m.prefix, id)
		ok := true
		switch what := r.IntN(6); {
		case !row.there || what == 0:
			row = keyedRow{true, int64(n), fmt.Sprint("put ", n)}
			ok = m.send(http.MethodPut, path, typeJSON, fmt.Sprintf(`{"v":%d,"note":%q}`, row.v, row.note), idem)
		case what == 1:
			row = keyedRow{}
			ok = m.send(http.MethodDelete, path, "", "", idem)
		case what < 4:
			row.v++
			ok = m.send(http.MethodPost, path+"/increment", typeJSON, `{"v":1}`, idem)
		default:
			row.note = fmt.Sprint("patch ", n)
			ok = m.send(http.MethodPatch, path, typeJSON, fmt.Sprintf(`{"note":%q}`, row.note), idem)
		}
		if ok {
			rows[id] = row
		}
	}
}

// send reports whether the write was accepted. Where the API may die it is sent
// until it is.
func (m *mixed) send(method, path, kind, body, idem string) bool {
	for {
		req, err := http.NewRequest(method, m.url()+"/v1/"+path, strings.NewReader(body)) //nolint:noctx // the client has a timeout
		if err != nil {
			m.t.Error(err)
			return false
		}
		req.Header.Set("Content-Type", kind)
		req.Header.Set("Idempotency-Key", idem)
		resp, err := client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode/100 == 2 {
				m.mu.Lock()
				m.answers++
				m.mu.Unlock()
				return true
			}
		}
		if !m.again || err == nil && resp.StatusCode < 500 {
			m.t.Errorf("%s %s: %v %v", method, path, resp, err)
			return false
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-m.t.Context().Done():
			return false
		}
	}
}

func (m *mixed) answered() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.answers
}

// arrived compares what the clients know with what Postgres has.
func (m *mixed) arrived(t *testing.T, database string) {
	t.Helper()
	require.EqualValues(t, m.loose, value[int64](t, database, `select count(*) from `+m.prefix+`_loose`))
	require.EqualValues(t, m.loose, value[int64](t, database, `select count(distinct n) from `+m.prefix+`_loose`))
	want := 0
	for id, row := range m.keyed {
		if !row.there {
			continue
		}
		want++
		require.Equal(t, fmt.Sprintf("%d %s", row.v, row.note), value[string](t, database,
			`select coalesce(max(v || ' ' || note), 'is missing') from `+m.prefix+`_keyed where id = $1`, id), "row %d", id)
	}
	require.EqualValues(t, want, value[int64](t, database, `select count(*) from `+m.prefix+`_keyed`))
	require.Zero(t, value[int64](t, database, `select count(*) from headpond.dead_letters where table_name like $1`, m.prefix+"%"))
	require.Zero(t, value[int64](t, database, `select count(*) from headpond.watermarks where seq <> committed + coalesced + dead + lost`))
	require.GreaterOrEqual(t, m.answered(), 200, "too little was written for the test to mean anything")
}

// dies waits for a process to kill itself.
func (p *process) dies() {
	p.t.Helper()
	p.killed = true
	p.wait()
	require.Equal(p.t, "signal: killed", p.err.Error(), p.name())
}

// TestFailpointsOfTheFlush: the flusher is killed at each step of a flush, and a
// moment after it, while the next is on its way (COMMIT after "advanced").
func TestFailpointsOfTheFlush(t *testing.T) {
	program := buildWithFailpoints(t)
	t.Parallel()
	_, seed := seeded(t)
	s := startServers(t, program)
	execute(t, s.postgres.URL(), mixedTables)
	h := s.serve(t, "--role", "api")
	m := startMixed(t, seed, &mixed{url: func() string { return h.api }, prefix: "mixed"})
	for round := range rounds() {
		for i, point := range fl.Failpoints {
			action := "kill"
			if (round+i)%2 == 1 && point != fl.FailSettled || point == fl.FailAdvanced && round%2 == 0 {
				action = "kill-soon"
			}
			env := append(s.env(), fmt.Sprintf("HEADPOND_FAILPOINT=%s=%s:random", point, action))
			start(t, program, env, "serve", "--role", "flusher").dies()
		}
	}
	flusher(t, program, s.postgres.URL(), s.redis.URL())
	await(t, "some more rows", func() bool { return m.answered() >= 200 })
	m.stop()
	h.settled(t)
	m.arrived(t, s.postgres.URL())
}

// TestFailpointsOfDirectWrites: the API is killed before and after the COMMIT of
// a direct write. Who asks again under the same Idempotency-Key gets it done once.
func TestFailpointsOfDirectWrites(t *testing.T) {
	program := buildWithFailpoints(t)
	t.Parallel()
	_, seed := seeded(t)
	s := startServers(t, program)
	execute(t, s.postgres.URL(), strings.ReplaceAll(mixedTables, "mixed", "direct"))
	config := writeConfig(t, "tables_default: { strategy: write-through }")
	var mu sync.Mutex
	var api string
	serve := func(point fl.Failpoint, action string) *headpond {
		env := append(s.env(), "HEADPOND_CONFIG="+config)
		if point != "" {
			env = append(env, fmt.Sprintf("HEADPOND_FAILPOINT=%s=%s:random", point, action))
		}
		h := &headpond{process: start(t, program, env, "serve", "--listen", "127.0.0.1:0"), database: s.postgres.URL(), redis: s.redis.URL()}
		h.api, _ = h.logged("serving")["url"].(string)
		h.logged("catalog read")
		mu.Lock()
		defer mu.Unlock()
		api = h.api
		return h
	}
	first := serve(fl.FailDirectHeld, "kill")
	m := startMixed(t, seed, &mixed{prefix: "direct", again: true, url: func() string { mu.Lock(); defer mu.Unlock(); return api }})
	first.dies()
	for range rounds() {
		serve(fl.FailDirectCommitted, "kill").dies()
		serve(fl.FailDirectHeld, "kill-soon").dies()
		serve(fl.FailWriting, "kill").dies()
	}
	last := serve("", "")
	await(t, "some more rows", func() bool { return m.answered() >= 200 })
	m.stop()
	last.settled(t)
	m.arrived(t, s.postgres.URL())
}
