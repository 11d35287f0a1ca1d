package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// States of a Receipt.
const (
	StatePending      = "pending"
	StateCommitted    = "committed"
	StateDeadLettered = "dead-lettered"
)

// Receipt is what became of a write.
type Receipt struct {
	Receipt     string    `json:"receipt"`
	State       string    `json:"state"`        // StatePending, StateCommitted or StateDeadLettered
	AcceptedAt  time.Time `json:"accepted_at"`  // zero when it is not known any more
	CommittedAt time.Time `json:"committed_at"` // zero while it is pending, or not known any more
	SQLState    string    `json:"sqlstate"`     // why Postgres refused the row
	Reason      string    `json:"reason"`       // why Postgres refused the row
	ReplayedAs  string    `json:"replayed_as"`  // the receipt of its last replay; the state is that of it
}

const (
	// longPoll is below the idle timeouts that proxies have.
	longPoll = 20 * time.Second
	// betweenPolls keeps a server that answers at once from being asked
	// without pause.
	betweenPolls = 100 * time.Millisecond
)

// Receipt asks what became of a write. With wait it answers when the write is
// committed or dead-lettered, or after that time; the server caps it, at 60 s
// by default. The error is ErrReceiptNotFound if there was no such write, and
// ErrReceiptGone if it cannot be told any more.
func (c *Client) Receipt(ctx context.Context, receipt string, wait time.Duration) (*Receipt, error) {
	out := &Receipt{}
	if err := c.ask(ctx, http.MethodGet, "/v1/receipts/"+url.PathEscape(receipt), wait, out); err != nil {
		return nil, err
	}
	return out, nil
}

// WaitFor returns when a write is committed. If it is dead-lettered, the error
// is ErrDeadLettered, and the Receipt is there too. It waits as long as ctx
// allows, but not for a server that does not answer: that is an error when the
// retry budget is spent.
func (c *Client) WaitFor(ctx context.Context, receipt string) (*Receipt, error) {
	wait := longPoll
	if c.http.Timeout > 0 {
		wait = min(wait, c.http.Timeout/2)
	}
	for {
		r, err := c.Receipt(ctx, receipt, wait)
		switch {
		case err != nil:
			return nil, err
		case r.State == StateDeadLettered:
			return r, &Error{
				Status: http.StatusOK, Code: ErrDeadLettered, Applied: AppliedNo, Attempts: 1,
				Detail: fmt.Sprintf("Postgres refused the row: %s (SQLSTATE %s).", r.Reason, r.SQLState),
				Hint:   "The row lies in the dead letters, as " + receipt + ".",
			}
		case r.State == StateCommitted:
			return r, nil
		}
		select {
		case <-time.After(betweenPolls):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Flush returns when all that was accepted before for the table, or for every
// table if it is "", is committed or dead-lettered; after wait the error is
// ErrFlushTimeout. The server caps wait, at 60 s by default.
func (c *Client) Flush(ctx context.Context, table string, wait time.Duration) error {
	path := "/v1/flush"
	if table != "" {
		path = tablePath(table) + "/flush"
	}
	return c.ask(ctx, http.MethodPost, path, wait, &flushed{})
}

// flushed is the answer to a flush.
type flushed struct{ Flushed bool }

func (f *flushed) told() bool { return f.Flushed }

func (r *Receipt) told() bool { return r.State != "" }

// ask sends a request whose answer is an object, and that may take a while. An
// answer that does not tell what was asked is not Headpond's.
func (c *Client) ask(ctx context.Context, method, path string, wait time.Duration, dst interface{ told() bool }) error {
	r, err := newCall(kindOther, method, path, nil)
	if err != nil {
		return err
	}
	r.wait = wait
	r.query.Set("wait", wait.String())
	a, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	if decode(a.body, dst) != nil || !dst.told() {
		e := badAnswer(a.status, "The answer is not Headpond's.")
		e.Applied, e.Attempts = AppliedNo, 1
		return e
	}
	return nil
}
