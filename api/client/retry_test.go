package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api/client"
)

// canned answers requests from memory, one after the other; the last answer is
// given again and again.
type canned struct {
	answers []answer
	sent    []*http.Request
	bodies  []string
	at      []time.Time
}

type answer struct {
	status int
	header string // "Name: value\n…"
	body   string
	err    error // instead of an answer
}

func (c *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(r.Body)
	n := min(len(c.sent), len(c.answers)-1)
	c.sent, c.bodies, c.at = append(c.sent, r), append(c.bodies, string(body)), append(c.at, time.Now())
	a := c.answers[n]
	if a.err != nil {
		return nil, a.err
	}
	h := make(http.Header)
	for line := range strings.Lines(a.header) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		h.Add(name, value)
	}
	if strings.Contains(a.body, `"code"`) && h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/problem+json")
	}
	return &http.Response{StatusCode: a.status, Header: h, Body: io.NopCloser(strings.NewReader(a.body))}, nil
}

func (c *canned) client(t testing.TB, opts ...client.Option) *client.Client {
	return dial(t, "http://headpond.test", append(opts, client.WithHTTPClient(&http.Client{Transport: c}))...)
}

// problem is an answer as Headpond gives it.
func problem(status int, code client.Code, applied, header string) answer {
	return answer{status, header, fmt.Sprintf(`{"status":%d,"code":%q,"detail":"D.","hint":"H.","trace_id":"t1","applied":%q}`, status, code, applied), nil}
}

var (
	accepted          = answer{202, "Headpond-Durability: fsync\nHeadpond-Receipt: t.0.1.1\nLocation: /v1/t/1", "", nil}
	refusedConnection = answer{err: &net.OpError{Op: "dial", Err: errors.New("connection refused")}}
	brokenConnection  = answer{err: io.ErrUnexpectedEOF}
)

func TestRetryUntilAccepted(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]answer{
		"no connection": refusedConnection,
		"no answer":     brokenConnection,
		"429":           problem(429, client.ErrRateLimited, "no", "Retry-After: 1"),
		"503":           problem(503, client.ErrBacklogFull, "no", "Retry-After: 2"),
		"504":           problem(504, client.ErrOutcomeUnknown, "unknown", ""),
		"proxy's 502":   {502, "", "<h1>Bad Gateway</h1>", nil},
		"proxy's 503":   {503, "Content-Type: text/html", "<h1>Sorry</h1>", nil},
		"proxy's 504":   {504, "", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				wire := &canned{answers: []answer{a, a, accepted}}
				w, err := wire.client(t).Insert(t.Context(), "t", map[string]int{"id": 1})
				require.NoError(t, err)
				require.Equal(t, client.Key{"1"}, w.Key)
				require.Len(t, wire.sent, 3)
				require.NotEmpty(t, wire.sent[0].Header["idempotency-key"])
				for i := range wire.sent {
					require.Equal(t, wire.sent[0].Header, wire.sent[i].Header, "the same key")
					require.Equal(t, `{"id":1}`, wire.bodies[i])
				}
			})
		})
	}
}

// TestRetryAfter: a repeat waits at least as long as the server asks, in seconds
// or until a date, and not much longer.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header string // %s is the date in 7 s
		pause  time.Duration
	}{
		{"Retry-After: 7", 7 * time.Second},
		{"Retry-After: %s", 7 * time.Second},
		{"Retry-After: Thu, 01 Jan 1998 00:00:00 GMT", 0},
		{"Retry-After: 0", 0}, {"Retry-After: -7", 0}, {"Retry-After: soon", 0}, {"Retry-After: 99999999999999999999", 0}, {"", 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			c.header = strings.ReplaceAll(c.header, "%s", time.Now().Add(7*time.Second).UTC().Format(http.TimeFormat))
			wire := &canned{answers: []answer{problem(503, client.ErrDraining, "no", c.header), accepted}}
			_, err := wire.client(t).Put(t.Context(), "t", client.KeyOf(1), struct{}{})
			require.NoError(t, err)
			pause := wire.at[1].Sub(wire.at[0])
			require.GreaterOrEqual(t, pause, c.pause+50*time.Millisecond, c.header)
			require.LessOrEqual(t, pause, c.pause+100*time.Millisecond, c.header)
		})
	}
}

// TestRetryEnds: with the budget, with the context's time, with what Retry-After
// asks for, and with a context that is cancelled; and the error says so.
func TestRetryEnds(t *testing.T) {
	t.Parallel()
	full := problem(503, client.ErrBacklogFull, "no", "Retry-After: 1")
	t.Run("budget", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			wire := &canned{answers: []answer{full}}
			began := time.Now()
			_, err := wire.client(t).Insert(t.Context(), "t", 1)
			e := refused(t, err, client.ErrBacklogFull)
			require.LessOrEqual(t, time.Since(began), client.DefaultRetryBudget)
			require.Greater(t, time.Since(began), client.DefaultRetryBudget-7*time.Second)
			require.Equal(t, len(wire.sent), e.Attempts)
			require.Greater(t, e.Attempts, 5)
			require.Equal(t, client.AppliedNo, e.Applied)
			require.Equal(t, time.Second, e.RetryAfter)
		})
	})
	t.Run("no budget", func(t *testing.T) {
		t.Parallel()
		wire := &canned{answers: []answer{full}}
		_, err := wire.client(t, client.WithRetryBudget(0)).Insert(t.Context(), "t", 1)
		require.Equal(t, 1, refused(t, err, client.ErrBacklogFull).Attempts)
	})
	t.Run("deadline", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			wire := &canned{answers: []answer{full}}
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, err := wire.client(t).Insert(ctx, "t", 1)
			refused(t, err, client.ErrBacklogFull)
			require.NoError(t, ctx.Err(), "it does not wait for what cannot be")
			require.Len(t, wire.sent, 1)
		})
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			wire := &canned{answers: []answer{full}}
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("enough")
			time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
			_, err := wire.client(t).Insert(ctx, "t", 1)
			require.ErrorIs(t, err, why)
			refused(t, err, client.ErrBacklogFull)
			_, err = wire.client(t).Insert(ctx, "t", 1)
			require.ErrorIs(t, err, why)
			require.Equal(t, client.AppliedNo, refused(t, err, client.ErrNoAnswer).Applied, "it was never sent")
			require.Len(t, wire.sent, 1)
		})
	})
}

// TestRetryNever: what will not be better the next time is sent once.
func TestRetryNever(t *testing.T) {
	t.Parallel()
	for _, a := range []answer{
		problem(400, "invalid_json", "no", ""), problem(401, client.ErrUnauthorized, "no", ""), problem(404, client.ErrTableNotFound, "no", ""),
		problem(422, client.ErrInvalidRows, "no", ""), problem(500, "internal", "unknown", ""), problem(504, client.ErrFlushTimeout, "no", ""),
		{302, "Location: /elsewhere", "", nil}, {307, "Location: /elsewhere", "", nil}, {200, "", "<h1>Log in</h1>", nil}, {204, "", "", nil},
	} {
		wire := &canned{answers: []answer{a}}
		_, err := wire.client(t).Insert(t.Context(), "t", 1)
		require.Error(t, err)
		require.Len(t, wire.sent, 1, "%d %s", a.status, a.body)
	}
}

// TestRetryWithoutKey: a write without a key is sent again only when it was
// certainly not applied.
func TestRetryWithoutKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		first answer
		sent  int
	}{
		{problem(503, client.ErrDraining, "no", ""), 2},
		{problem(429, client.ErrRateLimited, "no", ""), 2},
		{answer{429, "", "slow down", nil}, 2},
		{problem(504, client.ErrOutcomeUnknown, "unknown", ""), 1},
		{problem(503, "strange", "", ""), 1},
		{answer{502, "", "", nil}, 1},
		{answer{503, "", "", nil}, 1},
		{brokenConnection, 1},
		{refusedConnection, 2},
		{answer{207, "Headpond-Durability: fsync", `{"accepted":1,"rejected":1,"errors":[{"index":1,"code":"backlog_full"}]}`, nil}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			wire := &canned{answers: []answer{c.first, accepted}}
			_, err := wire.client(t).InsertMany(t.Context(), "t", []int{1, 2}, client.IdempotencyKey(""))
			require.Empty(t, wire.sent[0].Header["idempotency-key"])
			require.Len(t, wire.sent, c.sent, "%d %s", c.first.status, c.first.body)
			require.Equal(t, c.sent == 2, err == nil)
		})
	}
}

// TestAppliedIsCertain: a write whose first attempt may have been applied is not
// said to be not applied because the last one was not.
func TestAppliedIsCertain(t *testing.T) {
	t.Parallel()
	some := answer{207, "Headpond-Durability: fsync", `{"accepted":1,"rejected":2,"receipts":["t.0.1.1"],"errors":[
		{"index":1,"pointer":"/1","code":"backlog_full","detail":"F."},{"index":2,"pointer":"/2/n","code":"type_mismatch","detail":"T."}]}`, nil}
	for name, c := range map[string]struct {
		answers []answer
		code    client.Code
		applied string
		second  client.Code // of row 1, when some were accepted
	}{
		"never sent":              {[]answer{refusedConnection}, client.ErrNoAnswer, client.AppliedNo, ""},
		"lost, then refused":      {[]answer{brokenConnection, problem(503, client.ErrDraining, "no", "")}, client.ErrDraining, client.AppliedUnknown, ""},
		"lost, then no one there": {[]answer{brokenConnection, refusedConnection}, client.ErrNoAnswer, client.AppliedUnknown, ""},
		"lost, then no entry":     {[]answer{brokenConnection, problem(401, client.ErrUnauthorized, "no", "")}, client.ErrUnauthorized, client.AppliedUnknown, ""},
		"lost, then told":         {[]answer{brokenConnection, problem(409, client.ErrRowExists, "no", "")}, client.ErrRowExists, client.AppliedNo, ""},
		"refused, then refused":   {[]answer{problem(503, client.ErrDraining, "no", ""), refusedConnection}, client.ErrNoAnswer, client.AppliedNo, ""},
		"some":                    {[]answer{some}, client.ErrSomeRejected, client.AppliedSome, client.ErrBacklogFull},
		"some, then refused":      {[]answer{some, problem(503, client.ErrDraining, "no", "")}, client.ErrSomeRejected, client.AppliedSome, client.ErrBacklogFull},
		"some, then lost":         {[]answer{some, brokenConnection, refusedConnection}, client.ErrSomeRejected, client.AppliedSome, client.ErrOutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				wire := &canned{answers: c.answers}
				w, err := wire.client(t, client.WithRetryBudget(2*time.Second)).InsertMany(t.Context(), "t", []int{1, 2, 3})
				e := refused(t, err, c.code)
				require.Equal(t, c.applied, e.Applied)
				require.Equal(t, len(wire.sent), e.Attempts)
				require.Equal(t, c.second != "", w != nil)
				if w != nil {
					require.Equal(t, 1, w.Accepted)
					require.Equal(t, []string{"t.0.1.1"}, w.Receipts)
					require.Equal(t, c.second, w.Errors[0].Code)
					require.EqualValues(t, "type_mismatch", w.Errors[1].Code)
				}
				if len(c.answers) > 1 && w != nil {
					require.True(t, errors.Is(err, client.ErrDraining) || errors.Is(err, client.ErrNoAnswer), "what the last attempt said")
				}
			})
		})
	}
}

// TestSomeThenAll: rows that were refused for now are accepted by a repeat under
// the same key.
func TestSomeThenAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		wire := &canned{answers: []answer{
			{207, "Headpond-Durability: fsync", `{"accepted":1,"rejected":1,"errors":[{"index":1,"code":"backlog_full"}]}`, nil},
			{202, "Headpond-Durability: fsync\nIdempotency-Replayed: true", `{"accepted":2,"rejected":0,"receipts":["t.0.1.2"],"errors":[]}`, nil},
		}}
		w, err := wire.client(t).InsertMany(t.Context(), "t", []int{1, 2}, client.Lenient())
		require.NoError(t, err)
		require.Equal(t, &client.WrittenMany{
			Accepted: 2, Receipts: []string{"t.0.1.2"}, Errors: []client.ItemError{}, Durability: "fsync", Replayed: true,
		}, w)
	})
}

// TestHiddenRepeat: net/http sends a request that has an Idempotency-Key again
// by itself when a connection that was in use breaks. If nobody is there then,
// or somebody who refuses, still the first one may have been applied: so it is
// kept from doing that.
func TestHiddenRepeat(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch requests.Add(1) % 3 {
		case 1:
			w.Header().Set("Headpond-Durability", "fsync")
			w.WriteHeader(http.StatusAccepted)
		case 2:
			_, _ = io.Copy(io.Discard, r.Body) // it was applied, as it were
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		default:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, problem(503, client.ErrDraining, "no", "").body)
		}
	}))
	t.Cleanup(server.Close)
	c := dial(t, server.URL, client.WithRetryBudget(0))
	for name, send := range map[string]func() error{
		"with a body": func() error { _, err := c.Insert(t.Context(), "t", 1); return err },
		"without":     func() error { _, err := c.Delete(t.Context(), "t", client.KeyOf(1)); return err },
	} {
		requests.Store(0)
		require.NoError(t, send(), name)
		require.Equal(t, client.AppliedUnknown, refused(t, send(), client.ErrNoAnswer).Applied, name)
		require.EqualValues(t, 2, requests.Load(), name)
		require.Equal(t, client.AppliedNo, refused(t, send(), client.ErrDraining).Applied, name)
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	_, err := dial(t, gone.URL, client.WithRetryBudget(0)).Insert(t.Context(), "t", 3)
	require.Equal(t, client.AppliedNo, refused(t, err, client.ErrNoAnswer).Applied, "nobody is there from the start")
}

// TestAttemptEnds: a server that never answers is not waited for longer than
// the context allows, and the cause is told.
func TestAttemptEnds(t *testing.T) {
	t.Parallel()
	never := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-never }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(never) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := dial(t, server.URL).Insert(ctx, "t", 1)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, client.AppliedUnknown, refused(t, err, client.ErrNoAnswer).Applied)
}
