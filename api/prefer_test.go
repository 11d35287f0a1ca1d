package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/buffer/table"
)

// TestPreferReturn: how much comes back.
func TestPreferReturn(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v text, w int default 5, twice int generated always as (id * 2) stored); create table log (v text)`)
	a := s.post("t", `{"id":1,"v":"x"}`)
	out := a.accept(t, 202)
	require.Equal(t, "1", out.Key)
	require.Equal(t, "fsync", out.Durability)
	require.Equal(t, a.header.Get("Headpond-Receipt"), out.Receipt)
	require.Equal(t, "fsync", a.header.Get("Headpond-Durability"))
	require.Empty(t, out.Row)
	require.Empty(t, a.header.Get("Preference-Applied"))
	require.Regexp(t, `^"[0-9a-f]+"$`, a.header.Get("ETag"))

	a = s.post("t", `{"id":2}`, "Prefer", "return=minimal")
	require.Empty(t, a.body)
	require.Equal(t, "return=minimal", a.header.Get("Preference-Applied"))
	for _, name := range []string{"Location", "ETag", "Headpond-Receipt", "Headpond-Durability"} {
		require.NotEmpty(t, a.header.Get(name), name)
	}
	a = s.post("t", `{"id":3}`, "Prefer", `Return="representation"; foo=bar`)
	require.JSONEq(t, `{"id":3,"v":null,"w":5,"twice":6}`, string(a.accept(t, 202).Row))
	require.Equal(t, "return=representation", a.header.Get("Preference-Applied"))
	a = s.post("t", `[{"id":4},{"id":5,"w":null}]`, "Prefer", "return=representation")
	require.Len(t, a.accept(t, 202).Rows, 2)
	require.JSONEq(t, `{"id":5,"v":null,"w":null,"twice":10}`, string(a.accept(t, 202).Rows[1]))
	a = s.post("t", `[{"id":6},{"id":7}]`, "Prefer", "return=minimal")
	require.Empty(t, a.body)
	require.NotEmpty(t, a.header.Values("Headpond-Receipt"))
	a = s.post("t", `{"id":8}`, "Prefer", "return=minimal, return=representation, wait=0, wait=9", "Prefer", "respond-async")
	require.Equal(t, "return=minimal, wait=0", a.header.Get("Preference-Applied"), "the first of each, and nothing unknown")

	a = s.post("log", `{"v":"x"}`)
	require.Empty(t, a.header.Get("Location"))
	require.Empty(t, a.accept(t, 202).Key)
	require.NotEmpty(t, a.accept(t, 202).Receipt)
}

// TestPreferenceApplied names what the answer follows, and nothing else: of
// what has a meaning for the request, what was done.
func TestPreferenceApplied(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key, v int, twice int generated always as (id * 2) stored)`,
		options{limits: api.Limits{Wait: 20 * time.Millisecond}, cuttable: true})
	const all = "return=representation, handling=lenient, resolution=merge-duplicates, wait=0.01, respond-async"
	bulk := `{"op":"put","table":"` + s.schema + `.t","key":1,"row":{}}`
	for _, c := range []struct{ method, path, body, kind, prefer, want string }{
		{"POST", s.path("t"), `{"id":1}`, "", all, "return=representation, resolution=merge-duplicates, wait=0.01"},
		{"POST", s.path("t"), `{"id":2}`, "", "handling=lenient, return=representation", "return=representation"},
		{"POST", s.path("t"), `[{"id":1},{"id":3}]`, "", all, "return=representation, handling=lenient, resolution=merge-duplicates, wait=0.01"},
		{"POST", s.path("t"), `[{"id":4}]`, "", "handling=strict, wait=0, return=minimal", "handling=strict, wait=0, return=minimal"},
		{"POST", s.path("t"), "{\"id\":5}\n{}", "application/x-ndjson", "handling=lenient, return=minimal", "handling=lenient"},
		{"POST", s.path("t"), "{\"id\":6}\n{}", "application/x-ndjson", "resolution=ignore-duplicates, return=minimal", "resolution=ignore-duplicates"},
		{"POST", s.path("t"), "{\"id\":7}\n{}", "application/x-ndjson", "handling=strict, return=minimal", "handling=strict"},
		{"PUT", s.path("t", "1"), `{"v":1}`, "", all, "return=representation, wait=0.01"},
		{"PUT", s.path("t", "1"), `{"v":1}`, "", "return=minimal, handling=strict", "return=minimal"},
		{"PATCH", s.path("t", "1"), `{"v":1}`, "", all, "return=representation, wait=0.01"},
		{"POST", s.path("t", "1", "increment"), `{"v":1}`, "", all, "return=representation, wait=0.01"},
		{"DELETE", s.path("t", "2"), "", "", all, "wait=0.01"},
		{"DELETE", s.path("t", "3"), "", "", "return=minimal", "return=minimal"},
		{"POST", "/v1/_bulk", bulk, "application/x-ndjson", all, "return=representation, handling=lenient, wait=0.01"},
		{"POST", "/v1/_bulk", bulk, "application/x-ndjson", "return=minimal, handling=strict", "return=minimal, handling=strict"},
		{"PUT", s.path("t", "1"), `{"v":1}`, "", "wait=3600", "wait=0.02"}, // what it was cut to
		{"PUT", s.path("t", "1"), `{"v":1}`, "", "respond-async", ""},
	} {
		kind := c.kind
		if kind == "" {
			kind = "application/json"
		}
		a := s.do(c.method, c.path, c.body, "Content-Type", kind, "Prefer", c.prefer)
		require.Contains(t, []int{202, 207, 422}, a.status, string(a.body))
		require.Equal(t, c.want, a.header.Get("Preference-Applied"), "%s %s %s", c.method, c.path, c.prefer)
	}
	s.wire.cut() // the generated column cannot be computed: the row is not shown, the rest is done
	for method, path := range map[string]string{"PUT": s.path("t", "1"), "PATCH": s.path("t", "1"), "POST": s.path("t", "1", "increment")} {
		a := s.do(method, path, `{"v":1}`, "Prefer", "return=representation, wait=0.01")
		require.Empty(t, a.accept(t, 202).Row)
		require.Equal(t, "wait=0.01", a.header.Get("Preference-Applied"))
	}
}

// TestNoneOfManyIsAProblem: a request of which nothing is left, some rows
// because they cannot be taken now and the rest because Postgres refused them.
func TestNoneOfManyIsAProblem(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"insert", "bulk"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s := setupWith(t, `create table t (id int primary key, v int check (v <> 13))`, options{partitions: 2, maxRows: 3})
			ids := [2][]int{} // by partition
			for id := 1; len(ids[0]) < 4 || len(ids[1]) < 4; id++ {
				p := table.Partition([]byte(fmt.Sprint(id)), 2)
				ids[p] = append(ids[p], id)
			}
			for _, id := range ids[0][:3] {
				s.post("t", row(`{"id":%d}`, id))
			}
			rows := []string{row(`{"id":%d,"v":13}`, ids[1][0]), row(`{"id":%d}`, ids[0][3]), row(`{"id":%d,"v":13}`, ids[1][1])}
			path, body := s.path("t"), strings.Join(rows, "\n")
			if way == "bulk" {
				op := `{"op":"insert","table":"` + s.schema + `.t","row":`
				path, body = "/v1/_bulk", op+strings.Join(rows, "}\n"+op)+"}"
			}
			answered := make(chan *answer, 1)
			go func() {
				a, _ := s.try("POST", path, strings.NewReader(body), "Content-Type", "application/x-ndjson", "Prefer", "wait=30")
				answered <- a
			}()
			require.Eventually(t, func() bool { return s.accepted("t") == 5 }, 10*time.Second, time.Millisecond)
			s.startFlusher()
			a := <-answered
			p := a.problem(t, 503, "backlog_full")
			require.Equal(t, "no", p.Applied)
			require.NotEmpty(t, a.header.Get("Retry-After"))
			var codes []string
			for _, e := range p.Errors {
				codes = append(codes, fmt.Sprint(*e.Index, " ", e.Code))
			}
			require.Equal(t, []string{"0 dead_lettered", "1 backlog_full", "2 dead_lettered"}, codes)
			require.Equal(t, 3, s.count("t"))
		})
	}
}

// TestPreferWait: 201 or 200 when it is committed, 202 when the time is over.
func TestPreferWait(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v int check (v <> 13)); insert into t values (100, 1)`)
	began := time.Now()
	a := s.post("t", `{"id":1}`, "Prefer", "wait=0.3")
	require.Equal(t, 202, a.status)
	require.GreaterOrEqual(t, time.Since(began), 300*time.Millisecond)
	require.Equal(t, "fsync", a.header.Get("Headpond-Durability"))
	require.Equal(t, "wait=0.3", a.header.Get("Preference-Applied"))
	s.startFlusher()
	a = s.post("t", `{"id":2}`, "Prefer", "wait=30")
	require.Equal(t, 201, a.status)
	require.Equal(t, "committed", a.header.Get("Headpond-Durability"))
	require.Equal(t, "committed", a.accept(t, 201).Durability)
	require.Equal(t, 1, s.count("t where id = 2"), "committed is committed")
	out := s.post("t", array(40, func(i int) string { return row(`{"id":%d}`, i+10) }), "Prefer", "wait=30").accept(t, 200)
	require.Equal(t, 40, out.Accepted)
	require.Equal(t, 40, s.count("t where id between 10 and 49"))

	a = s.do("POST", s.path("t"), `{"id":100}`, "Prefer", "wait=30")
	p := a.problem(t, 409, "row_exists")
	require.Equal(t, "no", p.Applied)
	require.NotEmpty(t, a.header.Get("Headpond-Receipt"))
	s.do("POST", s.path("t"), `{"id":101,"v":13}`, "Prefer", "wait=30").problem(t, 422, "dead_lettered")
	require.Equal(t, 2, s.count("headpond.dead_letters"))

	// A strict array in which some die: what was committed is told apart.
	out = s.do("POST", s.path("t"), `[{"id":200},{"id":201,"v":13},{"id":202},{"id":100}]`, "Prefer", "wait=30").accept(t, 207)
	require.Equal(t, 2, out.Accepted)
	require.Equal(t, 2, out.Rejected)
	require.Equal(t, []int{1, 3}, []int{*out.Errors[0].Index, *out.Errors[1].Index})
	require.Equal(t, "dead_lettered", out.Errors[0].Code)
	// And the same where rows were refused at once as well: the numbers still fit.
	s.post("t", `{"id":300}`)
	out = s.do("POST", s.path("t"), "{\"id\":\"x\"}\n{\"id\":301,\"v\":13}\n{\"id\":302}\n", "Content-Type", "application/x-ndjson", "Prefer", "wait=30").accept(t, 207)
	require.Equal(t, 1, out.Accepted)
	require.Equal(t, []string{"type_mismatch", "dead_lettered"}, []string{out.Errors[0].Code, out.Errors[1].Code})
	require.Equal(t, []int{0, 1}, []int{*out.Errors[0].Index, *out.Errors[1].Index})
	s.do("POST", s.path("t"), `[{"id":401,"v":13},{"id":402,"v":13}]`, "Prefer", "wait=30").problem(t, 422, "invalid_rows")
}

// TestDeadAmongRefused: rows that Redis refused are not in the log, and the
// dead letters are still told under the numbers of the request.
func TestDeadAmongRefused(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key, v int check (v <> 13))`, options{partitions: 1})
	s.post("t", `{"id":1}`)
	answered := make(chan *answer, 1)
	go func() {
		body := "{\"id\":2}\n{\"id\":1}\n{\"id\":3}\n{\"id\":1}\n{\"id\":4,\"v\":13}\n{\"id\":5}\n"
		answered <- s.do("POST", s.path("t"), body, "Content-Type", "application/x-ndjson", "Prefer", "wait=30")
	}()
	require.Eventually(t, func() bool { return s.accepted("t") == 5 }, 10*time.Second, time.Millisecond)
	s.startFlusher()
	out := (<-answered).accept(t, 207)
	require.Equal(t, 3, out.Accepted)
	require.Equal(t, []int{1, 3, 4}, []int{*out.Errors[0].Index, *out.Errors[1].Index, *out.Errors[2].Index})
	require.Equal(t, []string{"row_exists", "row_exists", "dead_lettered"}, []string{out.Errors[0].Code, out.Errors[1].Code, out.Errors[2].Code})
}

// TestManyRows: 202, 207 and 422, for arrays and NDJSON.
func TestManyRows(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v int)`)
	nd := []string{"Content-Type", "application/x-ndjson"}
	a := s.do("POST", s.path("t"), "\r\n{\"id\":1}\r\n\n {\"id\":2} \n{\"id\":3}", nd...)
	out := a.accept(t, 202)
	require.Equal(t, 3, out.Accepted)
	require.Zero(t, out.Rejected)
	require.NotNil(t, out.Errors)
	require.Contains(t, string(a.body), `"errors":[]`)
	require.Equal(t, a.header.Values("Headpond-Receipt"), out.Receipts)

	body := "{\"id\":4}\nnot json\n{\"id\":\"x\",\"v\":\"y\"}\n{\"id\":1}\n{\"id\":5}\n{\"id\":5}\n{\"id\":6,\"id\":7}\n"
	out = s.do("POST", s.path("t"), body, nd...).accept(t, 207)
	require.Equal(t, 2, out.Accepted)
	require.Equal(t, 5, out.Rejected)
	var got []string
	for _, e := range out.Errors {
		got = append(got, fmt.Sprintf("%d %s %s", *e.Index, e.Pointer, e.Code))
	}
	require.Equal(t, []string{"1 /1 invalid_json", "2 /2/id type_mismatch", "2 /2/v type_mismatch", "3 /3/id row_exists", "5 /5/id row_exists", "6 /6 duplicate_field"}, got)
	require.EqualValues(t, 5, s.accepted("t"))
	a = s.do("POST", s.path("t"), "{\"id\":8}\n{}\n", append([]string{"Prefer", "return=minimal"}, nd...)...)
	require.Equal(t, 1, a.accept(t, 207).Rejected, "what was refused is told, minimal or not")

	a = s.post("t", `[{"id":10}]`)
	require.Equal(t, 202, a.status)
	require.Equal(t, 1, a.accept(t, 202).Accepted)
	require.Empty(t, a.header.Get("Location"))
	receipts := s.post("t", array(100, func(i int) string { return row(`{"id":%d}`, i+1000) })).accept(t, 202).Receipts
	require.Len(t, receipts, 4, "the last one of each partition")
	s.startFlusher()
	for _, r := range receipts {
		require.Equal(t, "committed", s.receipt(r, "?wait=30s").State)
	}
	require.Equal(t, 100, s.count("t where id >= 1000"))
}

type receiptJSON struct {
	Receipt, State, Reason, SQLState string
	AcceptedAt                       time.Time `json:"accepted_at"`
	CommittedAt                      time.Time `json:"committed_at"`
	ReplayedAs                       string    `json:"replayed_as"`
	Lag                              *int64    `json:"lag_ms"`
}

func (s *stack) receipt(r, query string) (out receiptJSON) {
	s.t.Helper()
	a := s.get("/v1/receipts/" + r + query)
	require.Equal(s.t, 200, a.status, string(a.body))
	a.into(s.t, &out)
	require.Equal(s.t, r, out.Receipt)
	return out
}

// TestReceipts: pending, committed, dead-lettered, and none.
func TestReceipts(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key); insert into t values (2)`)
	began := time.Now()
	good := s.post("t", `{"id":1}`).header.Get("Headpond-Receipt")
	dead := s.post("t", `{"id":2}`).header.Get("Headpond-Receipt")
	for _, r := range []string{good, dead} {
		got := s.receipt(r, "")
		require.Equal(t, "pending", got.State)
		require.WithinRange(t, got.AcceptedAt, began.Add(-time.Millisecond), time.Now())
		require.NotNil(t, got.Lag)
	}
	require.Equal(t, "pending", s.receipt(good, "?wait=100ms").State)
	require.Equal(t, "pending", s.receipt(good, "?wait=0").State)
	require.Equal(t, "pending", s.receipt(good, "?wait=0.05").State, "plain seconds")

	waited := make(chan receiptJSON, 1)
	go func() {
		var out receiptJSON
		if a, err := s.try(http.MethodGet, "/v1/receipts/"+good+"?wait=30s", nil); err == nil {
			a.into(t, &out)
		}
		waited <- out
	}()
	s.startFlusher()
	require.Equal(t, "committed", (<-waited).State)
	require.Less(t, time.Since(began), 25*time.Second, "it did not wait for the end of its time")
	got := s.receipt(dead, "?wait=30s")
	require.Equal(t, "dead-lettered", got.State)
	require.Equal(t, "23505", got.SQLState)
	require.NotEmpty(t, got.Reason)
	require.GreaterOrEqual(t, *s.receipt(good, "").Lag, int64(0))
	for _, r := range []string{good + "9", good + ".1", "x." + good, s.schema + ".t.0.2.1", s.schema + ".t.3.1.77"} {
		s.get("/v1/receipts/"+r).problem(t, 404, "receipt_not_found")
	}
}
