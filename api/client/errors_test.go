package client_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/api/client"
)

type m = map[string]any

// TestErrors: every code that a program acts upon, from the server itself.
func TestErrors(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := dial(t, address, client.WithRetryBudget(0))
	tbl := pond.table(t, "id int primary key, n int check (n <> 13)")
	_, err := c.Insert(ctx, tbl, m{"id": 1})
	require.NoError(t, err)

	_, err = c.Insert(ctx, "no_such_table", m{})
	e := refused(t, err, client.ErrTableNotFound)
	require.Equal(t, 404, e.Status)
	require.Len(t, e.TraceID, 32)
	require.Contains(t, err.Error(), e.TraceID)
	require.Equal(t, client.AppliedNo, e.Applied)
	require.Equal(t, 1, e.Attempts)

	_, err = c.Get(ctx, tbl, client.KeyOf(404), nil)
	refused(t, err, client.ErrRowNotFound)
	_, err = c.Patch(ctx, tbl, client.KeyOf(404), m{"n": 1})
	refused(t, err, client.ErrRowNotFound)
	_, err = c.Delete(ctx, tbl, client.KeyOf(404))
	refused(t, err, client.ErrRowNotFound)
	_, err = c.Put(ctx, tbl, client.KeyOf(1), m{}, client.IfMatch(`"other"`))
	refused(t, err, client.ErrVersionMismatch)
	_, err = c.Receipt(ctx, tbl+".0.1.999", 0)
	refused(t, err, client.ErrReceiptNotFound)
	_, err = c.WaitFor(ctx, "no receipt")
	refused(t, err, client.ErrReceiptNotFound)

	_, err = c.Insert(ctx, tbl, m{"id": "x", "m": 1})
	e = refused(t, err, "type_mismatch")
	require.Equal(t, 422, e.Status)
	require.Equal(t, "/id", e.Errors[0].Pointer)
	require.EqualValues(t, "unknown_column", e.Errors[1].Code)
	_, err = c.InsertMany(ctx, tbl, []m{{"id": 2}, {"id": 1}, {"id": 3, "n": "x"}})
	e = refused(t, err, client.ErrInvalidRows)
	require.Len(t, e.Errors, 1)
	require.Equal(t, client.ItemError{Index: 2, Pointer: "/2/n", Code: "type_mismatch", Detail: e.Errors[0].Detail}, e.Errors[0])
	require.NotEmpty(t, e.Errors[0].Detail)

	_, err = c.Insert(ctx, tbl, m{"id": 13, "n": 13}, client.Wait(30*time.Second))
	refused(t, err, client.ErrDeadLettered)
	_, err = c.Insert(ctx, tbl, m{"id": 20}, client.IdempotencyKey("one"))
	require.NoError(t, err)
	_, err = c.Insert(ctx, tbl, m{"id": 21}, client.IdempotencyKey("one"))
	refused(t, err, client.ErrIdempotencyKeyReused)

	held := pond.tableWith(t, "id int primary key", true, 2)
	_, err = c.InsertMany(ctx, held, []m{{"id": 1}, {"id": 2}})
	require.NoError(t, err)
	_, err = c.Insert(ctx, held, m{"id": 1})
	refused(t, err, client.ErrRowExists)
	require.ErrorIs(t, c.Flush(ctx, held, 0), client.ErrFlushTimeout)
	e = refused(t, c.Flush(ctx, held, 10*time.Millisecond), client.ErrFlushTimeout)
	require.Equal(t, "/"+held, e.Errors[0].Pointer)
	err = nil
	for i := 3; err == nil; i++ {
		_, err = c.Insert(ctx, held, m{"id": i})
	}
	e = refused(t, err, client.ErrBacklogFull)
	require.Positive(t, e.RetryAfter)
	require.Equal(t, client.AppliedNo, e.Applied)
	pond.release(held)
	require.NoError(t, c.Flush(ctx, held, 30*time.Second))

	other, web, err := pond.serve(api.Limits{Body: 1000, Rows: 3})
	require.NoError(t, err)
	c = dial(t, web.URL, client.WithRetryBudget(0))
	_, err = c.Insert(ctx, tbl, m{"id": 30, "n": strings.Repeat("1", 1000)})
	refused(t, err, client.ErrBodyTooLarge)
	_, err = c.InsertMany(ctx, tbl, []m{{"id": 31}, {"id": 32}, {"id": 33}, {"id": 34}})
	refused(t, err, client.ErrBatchTooLarge)
	other.Drain()
	_, err = c.Insert(ctx, tbl, m{"id": 35})
	e = refused(t, err, client.ErrDraining)
	require.Equal(t, 503, e.Status)
	require.Equal(t, time.Second, e.RetryAfter)
}

// TestCodesOfElsewhere: those that take an outage, a loss, or a proxy.
func TestCodesOfElsewhere(t *testing.T) {
	t.Parallel()
	for code, status := range map[client.Code]int{
		client.ErrReceiptGone: 410, client.ErrUnauthorized: 401, client.ErrForbidden: 403, client.ErrRateLimited: 429,
		client.ErrBufferUnavailable: 503, client.ErrStoreUnavailable: 503, client.ErrOutcomeUnknown: 504, "of_tomorrow": 418,
	} {
		wire := &canned{answers: []answer{problem(status, code, "unknown", "")}}
		_, err := wire.client(t, client.WithRetryBudget(0)).Insert(t.Context(), "t", 1)
		e := refused(t, err, code)
		require.Equal(t, client.AppliedUnknown, e.Applied)
		require.Equal(t, []any{status, "D.", "H.", "t1"}, []any{e.Status, e.Detail, e.Hint, e.TraceID})
		_, err = wire.client(t, client.WithRetryBudget(0)).Receipt(t.Context(), "t.0.1.1", 0)
		require.Equal(t, client.AppliedNo, refused(t, err, code).Applied, "a read applies nothing")
	}
}

// TestBadAnswers: what is not Headpond's never counts as a write, nor as a
// refusal after which nothing was applied, unless it did not get there.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	const html = "Content-Type: text/html"
	for _, c := range []struct {
		answer  answer
		applied string
	}{
		{answer{200, html, "<h1>Log in</h1>", nil}, client.AppliedUnknown},
		{answer{202, "", `{"key":"1"}`, nil}, client.AppliedUnknown},
		{answer{204, "", "", nil}, client.AppliedUnknown},
		{answer{301, "Location: http://elsewhere.test/", "", nil}, client.AppliedNo},
		{answer{404, html, "<h1>404</h1>", nil}, client.AppliedNo},
		{answer{413, html, "<h1>413</h1>" + strings.Repeat("ä", 500), nil}, client.AppliedNo},
		{answer{500, html, "\xff", nil}, client.AppliedUnknown},
		{answer{502, "Content-Type: application/problem+json", "{", nil}, client.AppliedUnknown},
		{answer{503, "Content-Type: application/problem+json", `{"title":"no code"}`, nil}, client.AppliedUnknown},
	} {
		wire := &canned{answers: []answer{c.answer}}
		cl := wire.client(t, client.WithRetryBudget(0))
		_, err := cl.Insert(t.Context(), "t", 1)
		e := refused(t, err, client.ErrBadAnswer)
		require.Equal(t, c.answer.status, e.Status)
		require.Equal(t, c.applied, e.Applied, "%d", c.answer.status)
		require.Less(t, len(e.Detail), 300)
		_, err = cl.InsertMany(t.Context(), "t", []int{1})
		refused(t, err, client.ErrBadAnswer)
		_, err = cl.Get(t.Context(), "t", client.KeyOf(1), nil)
		refused(t, err, client.ErrBadAnswer)
		refused(t, cl.Flush(t.Context(), "", time.Second), client.ErrBadAnswer)
		_, err = cl.WaitFor(t.Context(), "t.0.1.1")
		refused(t, err, client.ErrBadAnswer)
	}
	many := answer{207, "Headpond-Durability: fsync", "<html>", nil}
	_, err := (&canned{answers: []answer{many}}).client(t).InsertMany(t.Context(), "t", []int{1})
	require.Equal(t, client.AppliedUnknown, refused(t, err, client.ErrBadAnswer).Applied)
	many.status = http.StatusAccepted
	_, err = (&canned{answers: []answer{many}}).client(t).InsertMany(t.Context(), "t", []int{1})
	require.Equal(t, client.AppliedUnknown, refused(t, err, client.ErrBadAnswer).Applied)
}

// TestNew: what is no base URL, and what it becomes.
func TestNew(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "localhost:8080", "ftp://h", "http://", "http://h?x=1", "http://h#f", "http://[::1", "/v1"} {
		_, err := client.New(bad)
		require.Error(t, err, bad)
		require.NotContains(t, err.Error(), "\n")
	}
	_, err := client.New("http://u:secret@h/?x=1")
	require.NotContains(t, err.Error(), "secret")
	_, err = client.New("http://h", client.WithRetryBudget(-1))
	require.Error(t, err)

	wire := &canned{answers: []answer{accepted}}
	c := dial(t, "https://h.test/pond/", client.WithHTTPClient(&http.Client{Transport: wire}), client.WithHeader("x-api-key", "k"))
	w, err := c.Put(t.Context(), "a/b", client.Key{"x y", "ü,/"}, m{})
	require.NoError(t, err)
	require.Equal(t, "https://h.test/pond/v1/a%2Fb/x%20y,%C3%BC%2C%2F", wire.sent[0].URL.String())
	require.Equal(t, "k", wire.sent[0].Header.Get("X-Api-Key"))
	require.Equal(t, "fsync", w.Durability)
}
