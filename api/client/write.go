package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// Written is a write that was accepted: it survives what Durability names.
type Written struct {
	Key        Key    // nil when the table has no primary key
	Receipt    string // for Receipt and WaitFor; "" when nothing had to be written and the row is in Postgres
	Durability string // "memory", "fsync", or "committed": in Postgres
	ETag       string // of the row; "" after Delete
	Replayed   bool   // an earlier request with the same IdempotencyKey was this write
}

// WrittenMany is what became of many rows or operations.
type WrittenMany struct {
	Accepted   int         `json:"accepted"`
	Rejected   int         `json:"rejected"`
	Receipts   []string    `json:"receipts"` // when these are committed or dead-lettered, all are
	Errors     []ItemError `json:"errors"`   // of the rejected ones, at most 1,000
	Durability string      `json:"-"`        // see Written
	Replayed   bool        `json:"-"`        // see Written
}

// Insert adds a row. Columns that are left out take their default. A key that
// exists is ErrRowExists if the row is in Headpond's buffer; else it is a dead
// letter later, unless MergeDuplicates or IgnoreDuplicates says otherwise.
//
// Like every write, it has been accepted if *Written is not nil, even when err
// is not nil: then what Return asked for could not be decoded.
func (c *Client) Insert(ctx context.Context, table string, row any, opts ...CallOption) (*Written, error) {
	return c.write(ctx, kindInsert, http.MethodPost, tablePath(table), row, opts)
}

// Put inserts or replaces a whole row. Columns that are left out take their
// default, or null.
func (c *Client) Put(ctx context.Context, table string, key Key, row any, opts ...CallOption) (*Written, error) {
	return c.change(ctx, http.MethodPut, rowPath(table, key), key, row, opts)
}

// Patch changes the given columns of a row. If there is none the error is
// ErrRowNotFound.
func (c *Client) Patch(ctx context.Context, table string, key Key, columns any, opts ...CallOption) (*Written, error) {
	return c.change(ctx, http.MethodPatch, rowPath(table, key), key, columns, opts)
}

// Increment adds to numeric columns, exactly. A missing row is made with its
// defaults if its other columns allow it, else the error is ErrRowNotFound.
func (c *Client) Increment(ctx context.Context, table string, key Key, by any, opts ...CallOption) (*Written, error) {
	return c.change(ctx, http.MethodPost, rowPath(table, key)+"/increment", key, by, opts)
}

// Delete removes a row. If there is none the error is ErrRowNotFound.
func (c *Client) Delete(ctx context.Context, table string, key Key, opts ...CallOption) (*Written, error) {
	return c.change(ctx, http.MethodDelete, rowPath(table, key), key, nil, opts)
}

// InsertMany adds the rows of a slice, all or nothing unless Lenient. When only
// some are accepted both results are there, and the error is ErrSomeRejected.
func (c *Client) InsertMany(ctx context.Context, table string, rows any, opts ...CallOption) (*WrittenMany, error) {
	r, err := newCall(kindInsertMany, http.MethodPost, tablePath(table), opts)
	if err != nil {
		return nil, err
	}
	if r.body, err = encode(rows); err != nil {
		return nil, err
	}
	if len(r.body) == 0 || r.body[0] != '[' {
		return nil, fmt.Errorf("client: InsertMany takes a slice, not a %T", rows)
	}
	r.header.Set("Content-Type", "application/json")
	return c.writeMany(ctx, r)
}

// Op is what an Operation does.
type Op string

// The operations, each as the method of its name.
const (
	OpInsert    Op = "insert"
	OpPut       Op = "put"
	OpPatch     Op = "patch"
	OpIncrement Op = "increment"
	OpDelete    Op = "delete"
)

// Operation is one of Bulk.
type Operation struct {
	Op    Op
	Table string
	Key   Key // may be nil for OpInsert and OpPut: then it is in Row, or made by Headpond
	Row   any // nil for OpDelete
}

// Bulk does operations of all kinds on several tables; those on one key in
// their order. Good ones are applied unless Strict. When only some are accepted
// both results are there, and the error is ErrSomeRejected.
func (c *Client) Bulk(ctx context.Context, operations []Operation, opts ...CallOption) (*WrittenMany, error) {
	r, err := newCall(kindBulk, http.MethodPost, "/v1/_bulk", opts)
	if err != nil {
		return nil, err
	}
	for i := range operations {
		line, err := operations[i].line()
		if err != nil {
			return nil, fmt.Errorf("operation %d: %w", i, err)
		}
		r.body = append(append(r.body, line...), '\n')
	}
	r.header.Set("Content-Type", "application/x-ndjson")
	return c.writeMany(ctx, r)
}

func (o Operation) line() ([]byte, error) {
	return encode(struct {
		Op    Op     `json:"op"`
		Table string `json:"table"`
		Key   string `json:"key,omitempty"`
		Row   any    `json:"row,omitempty"`
	}{o.Op, o.Table, o.Key.String(), o.Row})
}

// change is a write to a key that is known.
func (c *Client) change(ctx context.Context, method, path string, key Key, row any, opts []CallOption) (*Written, error) {
	w, err := c.write(ctx, kindChange, method, path, row, opts)
	if w != nil && w.Key == nil {
		w.Key = key
	}
	return w, err
}

// write sends one row; all that is not the row itself is in the headers.
func (c *Client) write(ctx context.Context, k kind, method, path string, row any, opts []CallOption) (*Written, error) {
	r, err := newCall(k, method, path, opts)
	if err != nil {
		return nil, err
	}
	if method != http.MethodDelete {
		if r.body, err = encode(row); err != nil {
			return nil, err
		}
		r.header.Set("Content-Type", "application/json")
	}
	r.returns("return=minimal")
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	w := &Written{
		Key:        keyOfLocation(a.header.Get("Location")),
		Receipt:    a.header.Get("Headpond-Receipt"),
		Durability: a.header.Get("Headpond-Durability"),
		ETag:       a.header.Get("ETag"),
		Replayed:   a.replayed(),
	}
	var shown struct{ Row json.RawMessage }
	if r.into == nil {
		return w, nil
	}
	if err := decode(a.body, &shown); err != nil {
		return w, err
	}
	return w, decode(shown.Row, r.into)
}

func (c *Client) writeMany(ctx context.Context, r *call) (*WrittenMany, error) {
	r.returns("")
	a, refused := c.do(ctx, r)
	if a == nil {
		return nil, refused
	}
	var shown struct {
		WrittenMany
		Rows json.RawMessage
	}
	if err := decode(a.body, &shown); err != nil {
		return nil, badAnswer(a.status, err.Error())
	}
	w := shown.WrittenMany
	w.Durability, w.Replayed = a.header.Get("Headpond-Durability"), a.replayed()
	if some := new(Error); errors.As(refused, &some) {
		w.Errors = some.Errors
	}
	if r.into != nil {
		if err := decode(shown.Rows, r.into); err != nil {
			return &w, errors.Join(refused, err)
		}
	}
	return &w, refused
}

// returns asks for the row if somebody wants it.
func (r *call) returns(otherwise string) {
	if r.into != nil {
		otherwise = "return=representation"
	}
	if otherwise != "" {
		r.prefer = append(r.prefer, otherwise)
	}
}

func (a *answer) replayed() bool { return a.header.Get("Idempotency-Replayed") == "true" }

// rejectedSome is the error of a request of many rows that was accepted in part.
func rejectedSome(a *answer) *Error {
	var w WrittenMany
	if err := decode(a.body, &w); err != nil {
		return badAnswer(a.status, err.Error())
	}
	return &Error{
		Status: a.status, Code: ErrSomeRejected, Applied: AppliedSome, Errors: w.Errors,
		Detail: fmt.Sprintf("%d of %d rows were not accepted.", w.Rejected, w.Accepted+w.Rejected),
	}
}

func encode(row any) ([]byte, error) {
	text, err := json.Marshal(row)
	if err != nil {
		return nil, fmt.Errorf("client: encode row: %w", err)
	}
	return text, nil
}

// decode keeps the digits of numbers. Nothing is decoded from nothing.
func decode(text []byte, dst any) error {
	if len(text) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(dst); err != nil {
		return fmt.Errorf("client: decode answer: %w", err)
	}
	return nil
}
