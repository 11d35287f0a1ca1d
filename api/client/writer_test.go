package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api/client"
)

// rejected collects what a Writer reports.
type rejected struct {
	mu   sync.Mutex
	rows []any
	errs []*client.Error
}

func (r *rejected) add(row any, err *client.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows, r.errs = append(r.rows, row), append(r.errs, err)
}

// gate answers batches when it is told to, with how many rows they have.
type gate struct {
	came chan []string // the rows of a batch that came
	open chan answer   // its answer
}

func newGate() *gate { return &gate{make(chan []string), make(chan answer)} }

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(r.Body)
	rows := strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")
	select {
	case g.came <- rows:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	select {
	case a := <-g.open:
		if a.status == 0 {
			a = answer{202, "Headpond-Durability: fsync", fmt.Sprintf(`{"accepted":%d,"rejected":0,"errors":[]}`, len(rows)), nil}
		}
		return (&canned{answers: []answer{a}}).RoundTrip(r)
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func (g *gate) writer(t testing.TB, cfg client.WriterConfig) *client.Writer {
	w, err := dial(t, "http://headpond.test", client.WithHTTPClient(&http.Client{Transport: g}), client.WithRetryBudget(0)).NewWriter("t", cfg)
	require.NoError(t, err)
	return w
}

// TestWriterConfig: what is refused, all at once.
func TestWriterConfig(t *testing.T) {
	t.Parallel()
	c := dial(t, address)
	_, err := c.NewWriter("t", client.WriterConfig{Rows: 1001, Bytes: -1, Linger: -1})
	for _, name := range []string{"Rows", "Bytes", "Linger", "Rejected"} {
		require.ErrorContains(t, err, name)
	}
	_, err = c.NewWriter("t", client.WriterConfig{Rows: -1, Rejected: new(rejected).add})
	require.ErrorContains(t, err, "Rows")
}

// TestWriterBatches: a batch is sent when it has its rows or bytes, or is old
// enough, and not before; and rows keep their order.
func TestWriterBatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		w := g.writer(t, client.WriterConfig{Rows: 3, Bytes: 20, Linger: time.Second, Rejected: new(rejected).add})
		began := time.Now()
		write := func(rows ...string) {
			for _, r := range rows {
				assert.NoError(t, w.Write(t.Context(), r))
			}
		}
		batch := func(after time.Duration, rows ...string) {
			t.Helper()
			require.Equal(t, rows, <-g.came)
			require.Equal(t, after, time.Since(began))
			g.open <- answer{}
			began = time.Now()
		}
		write("a", "b")
		batch(time.Second, `"a"`, `"b"`) // its age
		write("a", "b", "c")
		batch(0, `"a"`, `"b"`, `"c"`) // its rows
		write("12345678", "b")
		go write("12345678")
		batch(0, `"12345678"`, `"b"`) // its bytes: 11 and 4, and 11 more
		batch(time.Second, `"12345678"`)
		write(strings.Repeat("x", 100)) // larger than any batch
		batch(0, `"`+strings.Repeat("x", 100)+`"`)
		write("b")
		go func() { _ = w.Flush(t.Context()) }()
		batch(0, `"b"`) // a flush
		require.NoError(t, w.Flush(t.Context()), "there is nothing")
		write("a")
		go func() { _ = w.Close(t.Context()) }()
		batch(0, `"a"`) // the end
		require.NoError(t, w.Close(t.Context()))
		require.ErrorIs(t, w.Write(t.Context(), "b"), client.ErrWriterClosed)
		require.NoError(t, w.Flush(t.Context()))
	})
}

// TestWriterBlocks: one batch on its way, one that is full, and no more; a Write
// that cannot be taken ends with its context.
func TestWriterBlocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		var out rejected
		w := g.writer(t, client.WriterConfig{Rows: 2, Rejected: out.add})
		for i := range 2 {
			require.NoError(t, w.Write(t.Context(), i))
		}
		require.Len(t, <-g.came, 2)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, w.Flush(short), context.DeadlineExceeded, "a batch is on its way")
		for i := range 2 {
			require.NoError(t, w.Write(t.Context(), i))
		}
		var taken, late sync.WaitGroup
		blocked := make(chan struct{})
		taken.Go(func() {
			assert.NoError(t, w.Write(t.Context(), 4))
			close(blocked)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // an attempt lasts longer
		defer cancel()
		late.Go(func() { assert.ErrorIs(t, w.Write(ctx, 5), context.DeadlineExceeded) })
		require.ErrorIs(t, w.Flush(ctx), context.DeadlineExceeded)
		late.Wait()
		synctest.Wait()
		select {
		case <-blocked:
			t.Fatal("it took more than two batches")
		default:
		}
		g.open <- answer{}
		require.Len(t, <-g.came, 2)
		taken.Wait()
		g.open <- answer{}
		require.Equal(t, []string{"4"}, <-g.came)
		g.open <- answer{}
		require.NoError(t, w.Close(t.Context()))
		require.Empty(t, out.rows)
	})
}

// TestWriterGivesUp: when the context of Close ends, every row is reported, and
// the goroutine is gone; a Write that waited was not taken.
func TestWriterGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		var out rejected
		w := g.writer(t, client.WriterConfig{Rows: 1, Rejected: func(row any, err *client.Error) {
			<-time.After(time.Second) // Close waits for this too
			out.add(row, err)
		}})
		require.NoError(t, w.Write(t.Context(), "sent"))
		<-g.came
		require.NoError(t, w.Write(t.Context(), "waits"))
		var wg sync.WaitGroup
		wg.Go(func() { assert.ErrorIs(t, w.Write(t.Context(), "late"), client.ErrWriterClosed) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, w.Close(ctx), context.DeadlineExceeded)
		wg.Wait()
		require.Equal(t, []any{"sent", "waits"}, out.rows)
		require.Equal(t, client.AppliedUnknown, out.errs[0].Applied)
		require.Equal(t, client.AppliedNo, out.errs[1].Applied, "it was never sent")
		require.NoError(t, w.Close(t.Context()), "again")
	})
}

// TestWriterReports: what each row of a batch is told, for every kind of answer.
func TestWriterReports(t *testing.T) {
	t.Parallel()
	items := func(status, accepted, rejected int, list ...string) answer {
		return answer{status, "Headpond-Durability: fsync",
			fmt.Sprintf(`{"accepted":%d,"rejected":%d,"errors":[%s]}`, accepted, rejected, strings.Join(list, ",")), nil}
	}
	item := func(i int, column string, code client.Code) string {
		return fmt.Sprintf(`{"index":%d,"pointer":"/%d%s","code":%q,"detail":"D."}`, i, i, column, code)
	}
	for name, c := range map[string]struct {
		answer answer
		want   []string // row, code, applied, pointers
	}{
		"all accepted": {items(202, 4, 0), nil},
		"some": {
			items(207, 2, 2, item(1, "/a", "x"), item(1, "/b", "y"), item(3, "", client.ErrOutcomeUnknown), item(9, "", "z"), item(-1, "", "z")),
			[]string{"1 x no /a /b", "3 outcome_unknown unknown "},
		},
		"some, and more than are listed": {items(207, 1, 3, item(1, "/a", "x")), []string{"1 x no /a", "2 some_rejected unknown", "3 some_rejected unknown"}},
		"none": {
			answer{422, "", `{"code":"invalid_rows","applied":"no","errors":[` + item(0, "/a", "x") + `,` + item(2, "/a", "x") + `]}`, nil},
			[]string{"0 x no /a", "1 invalid_rows no", "2 x no /a", "3 invalid_rows no"},
		},
		"refused":   {problem(503, client.ErrBacklogFull, "no", ""), []string{"0 backlog_full no", "1 backlog_full no", "2 backlog_full no", "3 backlog_full no"}},
		"not known": {answer{500, "", "", nil}, []string{"0 bad_answer unknown", "1 bad_answer unknown", "2 bad_answer unknown", "3 bad_answer unknown"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			wire := &canned{answers: []answer{c.answer}}
			w, err := wire.client(t, client.WithRetryBudget(0)).NewWriter("t", client.WriterConfig{Rejected: func(row any, err *client.Error) {
				line := fmt.Sprint(row, " ", err.Code, " ", err.Applied)
				for _, e := range err.Errors {
					require.Zero(t, e.Index)
					line += " " + e.Pointer
				}
				got = append(got, line)
			}})
			require.NoError(t, err)
			for i := range 4 {
				require.NoError(t, w.Write(t.Context(), i))
			}
			require.NoError(t, w.Close(t.Context()))
			require.Equal(t, c.want, got)
			require.Equal(t, []string{"handling=lenient"}, wire.sent[0].Header.Values("Prefer"))
			require.Equal(t, "0\n1\n2\n3\n", wire.bodies[0])
		})
	}
}

// TestWriter: against the server, with rows that are bad in every way, more of
// them than an answer lists.
func TestWriter(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), dial(t, address)
	tbl := pond.table(t, "id int primary key check (id <> 13), n int not null")
	var out rejected
	w, err := c.NewWriter(tbl, client.WriterConfig{Rejected: out.add}, client.Wait(30*time.Second))
	require.NoError(t, err)
	require.ErrorContains(t, w.Write(ctx, func() {}), "encode row")
	require.NoError(t, w.Flush(ctx), "nothing was written yet")
	bad := map[int]m{7: {"id": 7}, 8: {"id": 8, "n": "x"}, 9: {"id": 9, "n": 1, "o": 1}, 13: {"id": 13, "n": 1}}
	for i := range 2500 {
		row, is := bad[i]
		if !is {
			row = m{"id": i, "n": i}
		}
		require.NoError(t, w.Write(ctx, row))
	}
	require.NoError(t, w.Flush(ctx))
	require.Equal(t, []any{bad[7], bad[8], bad[9], bad[13]}, out.rows)
	for i, code := range []client.Code{"required", "type_mismatch", "unknown_column", client.ErrDeadLettered} {
		require.Equal(t, code, out.errs[i].Code)
	}
	require.Equal(t, "/o", out.errs[2].Errors[0].Pointer)
	require.Equal(t, "2496", pond.text(t, "select count(*) from "+tbl), "Wait: flushed is committed")

	// 1,000 rows with two errors each, but for the last: the list is cut.
	for i := range 1000 {
		row := m{"id": "x", "n": "x"}
		if i == 999 {
			row = m{"id": 5000, "n": 1}
		}
		require.NoError(t, w.Write(ctx, row))
	}
	require.NoError(t, w.Close(ctx))
	require.GreaterOrEqual(t, len(out.rows), 4+999, "none of them in silence")
	seen := make(map[client.Code]int)
	for i, e := range out.errs[4:] {
		seen[e.Code]++
		if e.Applied == client.AppliedNo {
			require.Equal(t, m{"id": "x", "n": "x"}, out.rows[4+i])
		}
	}
	require.GreaterOrEqual(t, seen["type_mismatch"], 500)
}
