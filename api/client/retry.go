package client

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

const (
	firstPause = 100 * time.Millisecond
	mostPause  = 5 * time.Second
)

// answer to a call.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends a call until it is answered, or repeating it is not safe or not
// worth while. Both results are there when some of many rows were accepted. The
// error is an *Error.
func (c *Client) do(ctx context.Context, r *call) (*answer, error) {
	var before history
	var until time.Time // no attempt begins later; set by the first failure
	for n := 1; ; n++ {
		a, e := c.once(ctx, r)
		if e == nil {
			return a, nil
		}
		e.Attempts = n
		before.add(a, e)
		if until.IsZero() {
			until = c.giveUpAt(ctx)
		}
		pause := pauseAfter(n, e.RetryAfter)
		if !e.temporary() || ctx.Err() != nil || !r.safe() && e.Applied != AppliedNo || time.Now().Add(pause).After(until) {
			return before.result(e)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			e.cause = context.Cause(ctx)
			return before.result(e)
		}
	}
}

// giveUpAt is when the last repeat may begin, of a call that failed just now.
func (c *Client) giveUpAt(ctx context.Context) time.Time {
	until := time.Now().Add(c.budget)
	if end, ok := ctx.Deadline(); ok && end.Before(until) {
		return end
	}
	return until
}

// history is what the failed attempts of one call tell together.
type history struct {
	doubt  bool    // one of them may have been applied, or may yet be
	some   *Error  // of the newest that accepted some of many rows
	answer *answer // of the same
}

func (h *history) add(a *answer, e *Error) {
	if a != nil {
		h.some, h.answer = e, a
	}
	h.doubt = h.doubt || e.Applied == AppliedUnknown
}

// result of a call whose last attempt failed with e. That it applied nothing is
// true of that attempt alone, unless it tells what became of the Idempotency-Key.
func (h *history) result(e *Error) (*answer, error) {
	if h.doubt && e.Applied == AppliedNo && !e.final() {
		e.Applied = AppliedUnknown
	}
	if h.some == nil {
		return nil, e
	}
	if h.some != e {
		h.some.Attempts, h.some.cause = e.Attempts, e
	}
	for i := range h.some.Errors {
		if item := &h.some.Errors[i]; h.doubt && item.Code.temporary() {
			item.Code = ErrOutcomeUnknown
		}
	}
	return h.answer, h.some
}

// pauseAfter the n-th attempt: as long as the server asked for, and then half
// of a pause that doubles, up to all of it, so that clients that failed
// together do not come back together.
func pauseAfter(n int, asked time.Duration) time.Duration {
	half := min(firstPause<<min(n-1, 10), mostPause) / 2
	return asked + half + rand.N(half) //nolint:gosec // jitter
}

// once sends a call once. Both results are there when some of many rows were
// accepted.
func (c *Client) once(ctx context.Context, r *call) (*answer, *Error) {
	a, e := c.send(ctx, r)
	switch {
	case e != nil:
	case a.status == http.StatusNotModified && r.kind == kindGet:
		return a, nil
	case a.status < 200 || a.status > 299:
		e = refusal(a.status, a.header, a.body)
	case r.kind != kindOther && a.header.Get("Headpond-Durability") == "":
		e = badAnswer(a.status, "The answer is not Headpond's.") // it must not count as one
	case a.status == http.StatusMultiStatus:
		e = rejectedSome(a)
	}
	if e == nil || e.Code == ErrSomeRejected {
		return a, e
	}
	if r.kind&kindWrite == 0 {
		e.Applied = AppliedNo
	}
	return nil, e
}

func (c *Client) send(ctx context.Context, r *call) (*answer, *Error) {
	if ctx.Err() != nil {
		return nil, noAnswer(context.Cause(ctx), false)
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout+r.wait)
	defer cancel()
	req, err := c.request(ctx, r)
	if err != nil {
		return nil, noAnswer(err, false)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, noAnswer(err, !dialling(err))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, noAnswer(err, true)
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: body}, nil
}

func (c *Client) request(ctx context.Context, r *call) (*http.Request, error) {
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	for name, values := range c.header {
		req.Header[name] = values
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	if len(r.prefer) > 0 {
		req.Header.Set("Prefer", strings.Join(r.prefer, ", "))
	}
	return req, nil
}
