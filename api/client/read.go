package client

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Read is what is known of a row or a list that was read.
type Read struct {
	ETag        string // of a row, for IfMatch and IfNoneMatch
	Durability  string // "pending" or "committed"
	CacheStatus string // RFC 9211: "headpond; hit; ttl=51"
	NotModified bool   // the row still has the ETag of IfNoneMatch, and was not decoded
	Flushed     bool   // List with Wait: all that was accepted before was committed first
}

// Get decodes a row into dst, a pointer to a struct, a map, a json.RawMessage
// or anything else that JSON can be decoded into. It gives what was written
// last, whether it is in Postgres yet or not. If there is no such row the error
// is ErrRowNotFound.
func (c *Client) Get(ctx context.Context, table string, key Key, dst any, opts ...CallOption) (*Read, error) {
	r, err := newCall(kindGet, http.MethodGet, rowPath(table, key), opts)
	if err != nil {
		return nil, err
	}
	return c.read(ctx, r, dst)
}

// List decodes rows into dst, a pointer to a slice. The query has PostgREST's
// form: {"total": {"gte.10"}, "order": {"total.desc"}, "limit": {"50"}}; without
// a limit there are at most 100 rows. They are those of Postgres: what was
// accepted and is not committed yet is not among them, unless Wait flushes it.
func (c *Client) List(ctx context.Context, table string, query url.Values, dst any, opts ...CallOption) (*Read, error) {
	r, err := newCall(kindList, http.MethodGet, tablePath(table), opts)
	if err != nil {
		return nil, err
	}
	r.query = query
	return c.read(ctx, r, dst)
}

func (c *Client) read(ctx context.Context, r *call, dst any) (*Read, error) {
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	out := &Read{
		ETag:        a.header.Get("ETag"),
		Durability:  a.header.Get("Headpond-Durability"),
		CacheStatus: a.header.Get("Cache-Status"),
		NotModified: a.status == http.StatusNotModified,
		Flushed:     slices.ContainsFunc(a.header.Values("Preference-Applied"), func(s string) bool { return strings.Contains(s, "wait=") }),
	}
	if out.NotModified {
		return out, nil
	}
	return out, decode(a.body, dst)
}
