package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
)

// twin is another API process on the same servers.
func (s *stack) twin() *stack {
	s.t.Helper()
	o := &stack{t: s.t, o: s.o, schema: s.schema, db: s.db, pool: s.pool, targets: make(map[string]*buffer.Target), ledger: s.ledger}
	o.edge = &edge{Edge: s.edge.Edge, pool: s.pool, direct: s.edge.direct, sequences: s.edge.sequences}
	o.openBuffer()
	o.serve()
	o.refresh()
	return o
}

// agree: a row in Redis is that of Postgres.
func (s *stack) agree(tbl, key string) (cached bool) {
	s.t.Helper()
	want := s.text(`select coalesce((select to_jsonb(x)::text from ` + tbl + ` x where id = ` + key + `), '')`)
	a := s.get(s.path(tbl, key), "Cache-Control", "only-if-cached")
	if a.status == http.StatusOK {
		require.JSONEq(s.t, want, string(a.body))
	}
	return a.status == http.StatusOK
}

// TestDirectWritersAgree: of writers in two processes, the one that commits last
// is the one whose row lies in Redis; and no reader puts an older one there.
func TestDirectWritersAgree(t *testing.T) {
	for _, strategy := range directly {
		t.Run(strategy, func(t *testing.T) {
			s := setupWith(t, changeDDL, options{strategy: strategy})
			both := []*stack{s, s.twin()}
			var added [4]atomic.Int64
			var values sync.Map // that increments were answered
			for round := range 15 {
				var g sync.WaitGroup
				for w := range 6 {
					g.Go(func() {
						api, key := both[w%2], rand.IntN(3)+1
						for range 8 {
							path := api.path("c", strconv.Itoa(key))
							switch rand.IntN(3) {
							case 0:
								a := api.do(http.MethodPost, path+"/increment", `{"n":1}`)
								if a.status != 200 && a.status != 201 {
									t.Errorf("increment: %d %s", a.status, a.body)
								}
								added[key].Add(1)
								var got struct{ Row struct{ N int } }
								if err := json.Unmarshal(a.body, &got); err != nil {
									t.Error(err)
								}
								if _, twice := values.LoadOrStore([2]int{key, got.Row.N}, true); twice {
									t.Errorf("key %d was incremented to %d twice", key, got.Row.N)
								}
							case 1:
								api.do(http.MethodPatch, path, fmt.Sprintf(`{"name":"%d-%d"}`, round, w))
							default:
								api.get(path)
							}
						}
					})
				}
				g.Wait()
				for key := 1; key <= 3; key++ {
					cached := s.agree("c", strconv.Itoa(key))
					require.Equal(t, strategy == "write-through" && added[key].Load() > 0, cached && strategy == "write-through")
				}
			}
			for key := 1; key <= 3; key++ {
				require.Equal(t, strconv.FormatInt(added[key].Load(), 10), s.text(`select coalesce(sum(n), 0)::text from c where id = `+strconv.Itoa(key)))
			}
		})
	}
}

// TestDirectReleaseInOrder: a writer that tells Redis late does not undo what a
// later one told.
func TestDirectReleaseInOrder(t *testing.T) {
	s := setupWith(t, changeDDL, options{strategy: "write-through"})
	s.exec(`insert into c (id, n) values (1, 1)`)
	other := s.twin()
	committed, goOn := make(chan struct{}), make(chan struct{})
	s.edge.afterCommit = sync.OnceValue(func() error { close(committed); <-goOn; return nil })
	first := make(chan *answer)
	go func() { first <- s.do(http.MethodPatch, s.path("c", "1"), `{"n":2}`) }()
	<-committed
	other.do(http.MethodPatch, s.path("c", "1"), `{"n":3}`).accept(t, 200)
	require.True(t, s.agree("c", "1"))
	close(goOn)
	(<-first).accept(t, 200)
	require.True(t, s.agree("c", "1"))
}

// TestFillAgainstDirectWrite: a reader that loaded the row before a write does
// not put it into Redis after it; nor does one that loads it between the marker
// and the COMMIT.
func TestFillAgainstDirectWrite(t *testing.T) {
	for _, strategy := range directly {
		t.Run(strategy, func(t *testing.T) {
			s := setupWith(t, changeDDL, options{strategy: strategy})
			s.exec(`insert into c (id, n) values (1, 1), (2, 1)`)
			other := s.twin()

			loaded, goOn := make(chan struct{}), make(chan struct{})
			s.edge.afterLoad = sync.OnceFunc(func() { close(loaded); <-goOn })
			read := make(chan *answer)
			go func() { read <- s.get(s.path("c", "1")) }()
			<-loaded
			other.do(http.MethodPatch, s.path("c", "1"), `{"n":2}`).accept(t, 200)
			close(goOn)
			require.Equal(t, 200, (<-read).status)
			s.agree("c", "1")
			s.row(`{"id":1,"name":"none","n":2,"amount":null,"f":null,"double":4}`, "c", "1")

			marked, commit := make(chan struct{}), make(chan struct{})
			other.edge.beforeCommit = func() error { close(marked); <-commit; return nil }
			wrote := make(chan *answer)
			go func() { wrote <- other.do(http.MethodPatch, s.path("c", "2"), `{"n":2}`) }()
			<-marked
			s.row(`{"id":2,"name":"none","n":1,"amount":null,"f":null,"double":2}`, "c", "2")
			require.False(t, s.cached("c", "2"))
			close(commit)
			(<-wrote).accept(t, 200)
			s.agree("c", "2")
			s.row(`{"id":2,"name":"none","n":2,"amount":null,"f":null,"double":4}`, "c", "2")
		})
	}
}

// TestDirectCommitUnknown: what may yet be committed is not cached as it was,
// and what was not committed leaves nothing behind.
func TestDirectCommitUnknown(t *testing.T) {
	for _, strategy := range directly {
		t.Run(strategy, func(t *testing.T) {
			s := setupWith(t, changeDDL, options{strategy: strategy})
			s.exec(`insert into c (id, n) values (1, 1)`)
			s.get(s.path("c", "1"))
			require.True(t, s.cached("c", "1"))
			s.edge.beforeCommit = func() error { return buffer.ErrCommitUnknown } // it is not: but who knows
			a := s.do(http.MethodPatch, s.path("c", "1"), `{"n":2}`)
			require.Equal(t, 504, a.status)
			require.Contains(t, string(a.body), `"applied":"unknown"`)
			s.get(s.path("c", "1"))
			require.False(t, s.cached("c", "1"), "while the marker stands")

			s.edge.beforeCommit = func() error { return errors.New("Postgres goes away") }
			a = s.do(http.MethodPost, s.path("c"), `{"id":2}`)
			require.Equal(t, 503, a.status)
			require.Contains(t, string(a.body), `"applied":"no"`)
			require.False(t, s.cached("c", "2"))
			require.Equal(t, 404, s.get(s.path("c", "2")).status)
			s.edge.beforeCommit = nil
			s.do(http.MethodPost, s.path("c"), `{"id":2}`).accept(t, 201)
			s.do(http.MethodPatch, s.path("c", "1"), `{"n":3}`).accept(t, 200)
			require.Equal(t, strategy == "write-through", s.agree("c", "1"))
		})
	}
}

// TestDirectIdempotent: a request counts once, in whatever strategy it is sent
// again.
func TestDirectIdempotent(t *testing.T) {
	s := setupWith(t, changeDDL, options{strategy: "write-through"})
	s.startFlusher()
	both := []*stack{s, s.twin()}
	send := func(api *stack, key string) string {
		a := api.do(http.MethodPost, api.path("c", "1", "increment"), `{"n":1}`, "Idempotency-Key", key)
		require.Contains(t, []int{200, 201, 202}, a.status, string(a.body))
		return string(a.accept(t, a.status).Row)
	}
	var g sync.WaitGroup
	var mu sync.Mutex
	first := make(map[string]string)
	for i := range 40 { // each twice, at the same time
		g.Go(func() {
			key := "k" + strconv.Itoa(i/2)
			row := send(both[rand.IntN(2)], key)
			mu.Lock()
			defer mu.Unlock()
			if before, ok := first[key]; ok && before != row {
				t.Errorf("%s: %s, then %s", key, before, row)
			}
			first[key] = row
		})
	}
	g.Wait()
	require.Equal(t, "20", s.text(`select n::text from c where id = 1`))
	posted := s.do(http.MethodPost, s.path("must"), `{"id":7,"must":"x","n":1}`, "Idempotency-Key", "p").accept(t, 201)

	name := s.schema + ".c"
	for _, strategy := range []string{"write-behind", "cache-aside"} {
		for _, tbl := range []string{name, s.schema + ".must"} {
			require.NoError(t, s.buf.SetStrategy(t.Context(), both[1].targets[tbl], strategy))
		}
		for key, row := range first {
			require.JSONEq(t, row, send(both[len(key)%2], key), "%s after the switch to %s", key, strategy)
		}
		a := s.do(http.MethodPost, s.path("must"), `{"id":7,"must":"x","n":1}`, "Idempotency-Key", "p")
		require.Contains(t, []int{200, 201, 202}, a.status, string(a.body))
		require.Equal(t, posted.Key, a.accept(t, a.status).Key)
		require.Equal(t, "true", a.header.Get("Idempotency-Replayed"))
		first["b"+strategy] = send(s, "b"+strategy)
		s.flushed()
	}
	require.Equal(t, "22", s.text(`select n::text from c where id = 1`))
	require.Equal(t, 1, s.count("must"))
	require.Zero(t, s.count("headpond.dead_letters"))
}

// TestSwitchWithRowsThatWait: what a write is told of its row after a switch, without
// writing anything, is true of the rows that wait in the log then.
func TestSwitchWithRowsThatWait(t *testing.T) {
	t.Parallel()
	for _, strategy := range []string{"write-through", "cache-aside"} {
		t.Run(strategy, func(t *testing.T) {
			t.Parallel()
			s := setupWith(t, changeDDL, options{})
			s.exec(`insert into c (id, n) values (2, 1), (3, 1), (4, 4)`)
			for path, body := range map[string]string{"1": `{"n":7}`, "4": `{"n":5}`} {
				s.do(http.MethodPut, s.path("c", path), body).accept(t, 202)
			}
			was := s.get(s.path("c", "4")).header.Get("ETag")
			for _, key := range []string{"2", "3"} {
				s.do(http.MethodDelete, s.path("c", key), "").accept(t, 202)
			}
			require.NoError(t, s.buf.SetStrategy(t.Context(), s.targets[s.schema+".c"], strategy))
			var all sync.WaitGroup
			answers := make([]*answer, 5)
			for i, ask := range []func() *answer{
				func() *answer { return s.do(http.MethodPatch, s.path("c", "1"), `{"n":8}`) },                      // there
				func() *answer { return s.do(http.MethodPost, s.path("c"), `{"id":2,"n":9}`) },                     // gone
				func() *answer { return s.do(http.MethodPatch, s.path("c", "3"), `{"n":9}`) },                      // gone
				func() *answer { return s.do(http.MethodPatch, s.path("c", "4"), `{"n":6}`, "If-Match", was) },     // current
				func() *answer { return s.do(http.MethodPut, s.path("c", "4"), `{"n":6}`, "If-Match", `"other"`) }, // not current
			} {
				all.Go(func() { answers[i] = ask() })
			}
			time.Sleep(100 * time.Millisecond) // they wait, and must not have been told anything yet
			s.startFlusher()
			all.Wait()
			for i, want := range []int{200, 201, 404, 200, 412} {
				require.Equal(t, want, answers[i].status, "%d: %s", i, answers[i].body)
			}
			require.Equal(t, "1:8 2:9 4:6", s.text(`select string_agg(id || ':' || n, ' ' order by id) from c`))
		})
	}
}

// switchAll sets the strategy of tables through this process; others follow when
// they are refused.
func (s *stack) switchAll(strategy string, tables ...string) {
	s.t.Helper()
	for _, name := range tables {
		require.NoError(s.t, s.buf.SetStrategy(s.t.Context(), s.targets[s.schema+"."+name], strategy))
	}
}

// TestPostAfterSwitch: requests of every form, to a process that has not noticed
// that the table is written directly now.
func TestPostAfterSwitch(t *testing.T) {
	t.Parallel()
	for _, strategy := range directly {
		for name, c := range map[string]struct {
			body    string
			headers []string
			status  int
		}{
			"one":    {`{"id":1,"n":1}`, nil, 201},
			"array":  {`[{"id":1,"n":1},{"id":2,"n":1},{"id":3,"n":1},{"id":4,"n":1}]`, nil, 200},
			"ndjson": {"{\"id\":1,\"n\":1}\n{\"id\":2,\"n\":1}\n{\"id\":\"x\"}\n{\"id\":3,\"n\":1}\n", ndjson, 207},
			"keyed":  {`{"id":1,"n":1}`, []string{"Idempotency-Key", "k"}, 201},
		} {
			t.Run(strategy+" "+name, func(t *testing.T) {
				t.Parallel()
				s := setupWith(t, changeDDL, options{})
				s.startFlusher()
				other := s.twin()
				other.switchAll(strategy, "c")
				for range 2 { // the second is refused or repeated: it is written by then
					a := s.do(http.MethodPost, s.path("c"), c.body, c.headers...)
					require.Less(t, a.status, 500, "%s", a.body)
					if c.status > 0 {
						require.Equal(t, c.status, a.status, "%s", a.body)
						c.status = 0
					}
				}
				require.Equal(t, strategy, s.targets[s.schema+".c"].Strategy())
				require.Equal(t, s.count("c"), s.count("c where n = 1"))
				require.Contains(t, []int{1, 3, 4}, s.count("c"))
				require.Zero(t, s.accepted("c"), "nothing is in the log")
			})
		}
	}
}

// TestBulkAfterSwitch: a request over more tables than one process may find out
// about at a time.
func TestBulkAfterSwitch(t *testing.T) {
	t.Parallel()
	tables := []string{"a", "b", "c", "d", "e", "f"}
	ddl, body := "", ""
	for _, name := range tables {
		ddl += "create table " + name + " (id int primary key);"
		body += `{"op":"insert","table":"{s}.` + name + `","row":{"id":1}}` + "\n"
	}
	for _, handling := range []string{"strict", "lenient"} {
		for from, to := range map[string]string{"write-through": "write-behind", "write-behind": "write-through"} {
			t.Run(handling+" "+to, func(t *testing.T) {
				t.Parallel()
				s := setupWith(t, ddl, options{strategy: from})
				s.startFlusher()
				s.twin().switchAll(to, tables...)
				a := s.do(http.MethodPost, "/v1/_bulk", strings.ReplaceAll(body, "{s}", s.schema), append(ndjson, "Prefer", "handling="+handling)...)
				require.Contains(t, string(a.body), `"accepted":6,"rejected":0`)
				s.flushed()
				for _, name := range tables {
					require.Equal(t, 1, s.count(name), name)
				}
			})
		}
	}
}

// TestStrictOverStrategies: a strict request never says that nothing was applied
// when something was.
func TestStrictOverStrategies(t *testing.T) {
	t.Parallel()
	strict := append(ndjson, "Prefer", "handling=strict")
	t.Run("the log is full after the commit", func(t *testing.T) {
		t.Parallel()
		s := setupWith(t, changeDDL, options{partitions: 1, maxRows: 2})
		s.post("must", `[{"id":1,"must":"x","n":1},{"id":2,"must":"x","n":1}]`)
		s.switchAll("write-through", "c")
		body := strings.ReplaceAll(`{"op":"increment","table":"{s}.c","key":"1","row":{"n":1}}`+"\n"+
			`{"op":"insert","table":"{s}.must","row":{"id":3,"must":"x","n":1}}`, "{s}", s.schema)
		a := s.do(http.MethodPost, "/v1/_bulk", body, strict...)
		require.Equal(t, 207, a.status, "%s", a.body)
		require.Contains(t, string(a.body), `"accepted":1,"rejected":1`)
		require.Contains(t, string(a.body), `"backlog_full"`)
		require.Equal(t, 1, s.count("c where n = 1"))
	})
	t.Run("switched to the log, which has one of the keys", func(t *testing.T) {
		t.Parallel()
		s := setupWith(t, changeDDL, options{strategy: "write-through"})
		other := s.twin()
		other.switchAll("write-behind", "c")
		other.do(http.MethodPost, other.path("c"), `{"id":2}`).accept(t, 202)
		body := lines(3, func(i int) string {
			return fmt.Sprintf(`{"op":"insert","table":"%s.c","row":{"id":%d}}`, s.schema, i+1)
		})
		a := s.do(http.MethodPost, "/v1/_bulk", body, strict...)
		require.Equal(t, "no", a.problem(t, 422, "invalid_rows").Applied)
		require.EqualValues(t, 1, s.accepted("c"))
	})
	t.Run("switched to Postgres, which has one of the keys", func(t *testing.T) {
		t.Parallel()
		s := setupWith(t, changeDDL+`insert into c (id) values (2)`, options{})
		s.twin().switchAll("write-through", "c")
		body := lines(3, func(i int) string {
			return fmt.Sprintf(`{"op":"put","table":"%s.c","key":%d,"row":{}}`, s.schema, i+10)
		}) +
			fmt.Sprintf(`{"op":"insert","table":"%s.c","row":{"id":2}}`, s.schema)
		a := s.do(http.MethodPost, "/v1/_bulk", body, strict...)
		require.Equal(t, "no", a.problem(t, 422, "invalid_rows").Applied, "%s", a.body)
		require.Equal(t, 1, s.count("c"))
		require.Zero(t, s.accepted("c"))
	})
}

// TestStrategySwitchUnderLoad: while the strategy changes under two processes,
// every answer counts once, the last write of each key is what is left, and no
// reader sees a key go back.
func TestStrategySwitchUnderLoad(t *testing.T) {
	s := setupWith(t, changeDDL, options{})
	s.startFlusher()
	both := []*stack{s, s.twin()}
	const keys = 6
	stop := make(chan struct{})
	var g sync.WaitGroup
	var added, refused atomic.Int64
	last := make([]int64, keys+1)
	for key := 1; key <= keys; key++ {
		path := s.path("c", strconv.Itoa(key))
		both[0].do(http.MethodPut, path, `{"n":0}`)
		g.Go(func() { // the one who sets: through both processes in turn
			for i := int64(1); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				a := both[i%2].do(http.MethodPatch, path, fmt.Sprintf(`{"n":%d}`, i))
				switch a.status {
				case 200, 202:
					last[key] = i
				case 503:
					refused.Add(1)
				default:
					t.Errorf("patch: %d %s", a.status, a.body)
				}
				a = both[(i/2)%2].do(http.MethodPost, s.path("c", "100", "increment"), `{"n":1}`)
				switch a.status {
				case 200, 201, 202:
					added.Add(1)
				case 503:
					refused.Add(1)
				default:
					t.Errorf("increment: %d %s", a.status, a.body)
				}
			}
		})
		g.Go(func() {
			seen := int64(0)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				var row struct{ N int64 }
				a := both[i%2].get(path)
				if a.status == 503 {
					continue
				}
				if err := json.Unmarshal(a.body, &row); err != nil || row.N < seen {
					t.Errorf("key %d went from %d back to %d (%s, %s)", key, seen, row.N, a.header.Get("Cache-Status"), a.body)
					return
				}
				seen = row.N
				time.Sleep(time.Millisecond)
			}
		})
	}
	name := s.schema + ".c"
	for i, strategy := range []string{"write-through", "write-behind", "cache-aside", "write-behind", "write-through", "cache-aside", "write-behind", "write-through"} {
		before := added.Load()
		require.Eventually(t, func() bool { return added.Load() > before+60 }, 30*time.Second, time.Millisecond)
		require.NoError(t, s.buf.SetStrategy(t.Context(), both[i%2].targets[name], strategy))
		require.Eventually(t, func() bool { return both[(i+1)%2].targets[name].Strategy() == strategy }, 30*time.Second, time.Millisecond, "the other process follows")
	}
	before := added.Load()
	require.Eventually(t, func() bool { return added.Load() > before+60 }, 30*time.Second, time.Millisecond)
	close(stop)
	g.Wait()
	s.flushed()
	require.Equal(t, strconv.FormatInt(added.Load(), 10), s.text(`select n::text from c where id = 100`))
	for key := 1; key <= keys; key++ {
		require.Equal(t, strconv.FormatInt(last[key], 10), s.text(`select n::text from c where id = `+strconv.Itoa(key)), "key %d", key)
		s.agree("c", strconv.Itoa(key))
	}
	require.Zero(t, s.count("headpond.dead_letters"))
	t.Logf("%d increments, %d refused with 503", added.Load(), refused.Load())
}
