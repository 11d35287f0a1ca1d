package client_test

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api/client"
)

// TestGet: pending and committed, in part, and only if it changed.
func TestGet(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), dial(t, address)
	tbl := pond.tableWith(t, counterColumns, true, 0)
	w, err := c.Insert(ctx, tbl, counter{ID: 1, N: 2, Name: "x"})
	require.NoError(t, err)
	var row map[string]any
	read, err := c.Get(ctx, tbl, w.Key, &row, client.Select("name", "id"))
	require.NoError(t, err)
	require.Len(t, row, 2)
	require.Equal(t, &client.Read{ETag: w.ETag, Durability: "pending", CacheStatus: read.CacheStatus}, read)
	require.Contains(t, read.CacheStatus, "headpond; ")

	row = nil
	read, err = c.Get(ctx, tbl, w.Key, &row, client.IfNoneMatch(w.ETag))
	require.NoError(t, err)
	require.True(t, read.NotModified)
	require.Equal(t, w.ETag, read.ETag)
	require.Nil(t, row, "not decoded")
	_, err = c.Get(ctx, tbl, w.Key, &row, client.Select("nope"))
	refused(t, err, "bad_filter")

	pond.release(tbl)
	_, err = c.WaitFor(ctx, w.Receipt)
	require.NoError(t, err)
	read, err = c.Get(ctx, tbl, w.Key, &row, client.IfNoneMatch(`"other"`))
	require.NoError(t, err)
	require.Equal(t, "committed", read.Durability)
	require.False(t, read.NotModified)
	require.Equal(t, w.ETag, read.ETag, "the same before and after")
	require.Len(t, row, 4)
	_, err = c.Get(ctx, tbl, w.Key, new(int))
	require.ErrorContains(t, err, "decode answer")
}

// TestList: filters, order, and what is not committed yet.
func TestList(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), dial(t, address)
	tbl := pond.tableWith(t, counterColumns, true, 0)
	_, err := c.InsertMany(ctx, tbl, []counter{{ID: 1, N: 1, Name: "a&b"}, {ID: 2, N: 2, Name: "+ü"}, {ID: 3, N: 3, Name: "a&b"}})
	require.NoError(t, err)
	var rows []counter
	read, err := c.List(ctx, tbl, nil, &rows, client.Wait(10*time.Millisecond))
	require.NoError(t, err)
	require.Empty(t, rows)
	require.False(t, read.Flushed)
	pond.release(tbl)
	read, err = c.List(ctx, tbl, url.Values{"name": {"eq.a&b"}, "order": {"id.desc"}}, &rows, client.Wait(30*time.Second))
	require.NoError(t, err)
	require.True(t, read.Flushed)
	require.Equal(t, "committed", read.Durability)
	require.Equal(t, []counter{{ID: 3, N: 3, Name: "a&b"}, {ID: 1, N: 1, Name: "a&b"}}, rows)
	read, err = c.List(ctx, tbl, url.Values{"name": {"eq.+ü"}, "n": {"gte.1", "lt.9"}}, &rows)
	require.NoError(t, err)
	require.False(t, read.Flushed)
	require.Equal(t, []counter{{ID: 2, N: 2, Name: "+ü"}}, rows)
	_, err = c.List(ctx, tbl, url.Values{"m": {"eq.1"}}, &rows)
	refused(t, err, "bad_filter")
}

// TestReceipts: pending, committed and dead-lettered, and waiting for them.
func TestReceipts(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), dial(t, address)
	tbl := pond.tableWith(t, "id int primary key check (id <> 13)", true, 0)
	began := time.Now()
	good, err := c.Insert(ctx, tbl, m{"id": 1})
	require.NoError(t, err)
	bad, err := c.Insert(ctx, tbl, m{"id": 13})
	require.NoError(t, err)
	r, err := c.Receipt(ctx, good.Receipt, 10*time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, good.Receipt, r.Receipt)
	require.Equal(t, client.StatePending, r.State)
	require.WithinRange(t, r.AcceptedAt, began.Add(-time.Second), time.Now().Add(time.Second))
	require.Zero(t, r.CommittedAt)
	require.Equal(t, []string{"", ""}, []string{r.SQLState, r.Reason})

	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = c.WaitFor(short, good.Receipt)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	pond.release(tbl)
	r, err = c.WaitFor(ctx, good.Receipt)
	require.NoError(t, err)
	require.Equal(t, client.StateCommitted, r.State)
	require.False(t, r.CommittedAt.Before(r.AcceptedAt))
	r, err = c.WaitFor(ctx, bad.Receipt)
	require.Contains(t, refused(t, err, client.ErrDeadLettered).Hint, bad.Receipt)
	require.Equal(t, client.StateDeadLettered, r.State)
	require.Equal(t, "23514", r.SQLState)
	require.Contains(t, r.Reason, "check constraint")
	require.NoError(t, c.Flush(ctx, tbl, 30*time.Second))
	require.Equal(t, "1", pond.text(t, "select count(*) from "+tbl))
}

// TestWaitForPolls: it asks again until there is an answer.
func TestWaitForPolls(t *testing.T) {
	t.Parallel()
	pending := answer{200, "", `{"state":"pending"}`, nil}
	wire := &canned{answers: []answer{pending, problem(503, client.ErrStoreUnavailable, "no", ""), pending, {200, "", `{"state":"committed"}`, nil}}}
	r, err := wire.client(t).WaitFor(t.Context(), "t.0.1.1")
	require.NoError(t, err)
	require.Equal(t, client.StateCommitted, r.State)
	require.Len(t, wire.sent, 4)
	require.Equal(t, "/v1/receipts/t.0.1.1?wait=20s", wire.sent[0].URL.RequestURI())
	require.Empty(t, wire.sent[0].Header["idempotency-key"])
}
