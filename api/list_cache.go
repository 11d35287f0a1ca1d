package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// mostListCached bounds what one list takes in Redis: a page of 100 rows is a
// tenth of it, and Redis is busy with it for less than half a millisecond.
const mostListCached = 256 << 10

// lookUpList answers from Redis, else from Postgres, and counts.
func (s *Server) lookUpList(ctx context.Context, l *listing) error {
	if l.sv.ListTTL <= 0 {
		if l.only {
			return listNotCached(l)
		}
		return s.loadList(ctx, l, "fwd=miss")
	}
	l.name = queryName(l.sv.Table, l.q)
	err := s.cachedList(ctx, l)
	count := s.reads.of(l.sv.Target.Table)
	switch {
	case err != nil:
	case l.hit:
		count.listHits.Add(1)
	default:
		count.listMisses.Add(1)
	}
	return err
}

// cachedList looks in Redis, and loads the list once at a time: in one process
// under a lease, so that others wait for it, and once for all requests of this
// process that found the same version. Each has read the version after it came,
// so no load that it is given began before a change that it knows of.
//
// A lease that somebody else holds ends, at the latest, after its time; by then,
// 3 s and 100 tries, the list is loaded without one, and not stored.
func (s *Server) cachedList(ctx context.Context, l *listing) error {
	for try := 0; ; try++ {
		found, err := s.buffer.List(ctx, buffer.ListReading{Table: l.sv.Target.Table, Query: l.name, Lease: !l.only, Fresh: l.fresh})
		switch {
		case err != nil && (l.only || ctx.Err() != nil):
			return err
		case err != nil: // Postgres needs no Redis to answer this
			return s.loadList(ctx, l, "fwd=bypass")
		case found.Value != nil:
			l.take(found)
			return nil
		case l.only:
			return listNotCached(l)
		}
		if f, lead := s.lists.board(l.flightName(found), found.Lease, l.fresh, try == 100); f != nil {
			return s.ride(ctx, l, f, lead)
		}
		l.status = "fwd=miss; collapsed"
		select {
		case <-ctx.Done():
			return fault(codeStoreUnavailable, "The list is being loaded, and that takes too long.")
		case <-time.After(time.Duration(5+rand.N(try+5)) * time.Millisecond): //nolint:gosec // jitter
		}
	}
}

func listNotCached(l *listing) error {
	l.status = "fwd=miss"
	return fault(codeNotCached, "The list is not in the cache, and the request asked for nothing else.")
}

// loadList asks Postgres for this request alone.
func (s *Server) loadList(ctx context.Context, l *listing, status string) (err error) {
	l.status = status
	l.text, err = s.listRows(ctx, l.sv, l.q)
	return err
}

// take a list that lies in Redis.
func (l *listing) take(found *buffer.ListFound) {
	l.text = parseListText(found.Value)
	if l.status == "" {
		l.status, l.hit, l.age = fmt.Sprintf("hit; ttl=%d", int(found.TTL.Seconds())), true, found.Age
	}
}

func (l *listing) flightName(found *buffer.ListFound) string {
	return l.sv.Target.Table + "\x00" + l.name + found.Version
}

// ride goes along with a load of this process: it makes it, or waits for it.
func (s *Server) ride(ctx context.Context, l *listing, f *flight, lead bool) error {
	defer context.AfterFunc(ctx, func() { s.lists.leave(f) })()
	if !lead {
		l.status = "fwd=miss; collapsed"
		select {
		case <-ctx.Done():
			return fault(codeStoreUnavailable, "The list is being loaded, and that takes too long.")
		case <-f.done:
		}
		l.text = f.text
		return f.err
	}
	defer s.lists.end(f)
	l.status = "fwd=miss"
	s.fly(l, f)
	if s.storeList(ctx, l, s.lists.lease(f), f.text) {
		l.status = "fwd=miss; stored"
	}
	l.text = f.text
	return f.err
}

// fly makes the load, and lets those who wait for it go.
func (s *Server) fly(l *listing, f *flight) {
	defer close(f.done)
	f.err = fault(codeInternal, "The list could not be loaded.") // unless it comes to an end
	f.text, f.err = s.listRows(f.ctx, l.sv, l.q)
}

// storeList stores what was loaded under a lease, or gives that back when there
// is nothing to be stored.
func (s *Server) storeList(ctx context.Context, l *listing, lease string, text *listText) (ok bool) {
	if lease == "" {
		return false
	}
	ctx = context.WithoutCancel(ctx) // others wait for it
	name := l.sv.Target.Table
	if text == nil || len(text.body) > mostListCached {
		_ = s.buffer.ReleaseList(ctx, name, l.name, lease) // it ends by itself otherwise
		return false
	}
	life := l.sv.ListTTL + rand.N(l.sv.ListTTL/10+1) //nolint:gosec // jitter: lists stored together do not end together
	ok, err := s.buffer.KeepList(ctx, name, l.name, lease, text.value(), life)
	if err != nil {
		s.log.WarnContext(ctx, "store list", "table", name, "error", err)
	}
	return ok
}

func newListText(body []byte) *listText {
	sum := sha256.Sum256(body)
	return &listText{tag: `"` + hex.EncodeToString(sum[:12]) + `"`, body: body}
}

// value is the list as it lies in Redis: with its ETag, which is not computed
// for each reader.
func (t *listText) value() []byte {
	value := make([]byte, 0, len(t.tag)+1+len(t.body))
	return append(append(append(value, t.tag...), '\n'), t.body...)
}

func parseListText(value []byte) *listText {
	tag, body, _ := bytes.Cut(value, []byte{'\n'})
	return &listText{tag: string(tag), body: body}
}

// queryName is a hash of what a query means, whatever the order in which its
// parameters came, on the table as it is now: ALTER TABLE makes other lists.
func queryName(t *table.Table, q *table.Query) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%d %d\n", t.AllHeader(), t.Fingerprint, q.Limit, q.Offset)
	fmt.Fprintf(h, "select %d\norder %v\n", chosen(t, q), q.Order)
	filters := make([]string, len(q.Where))
	for i, f := range q.Where {
		values := slices.Compact(slices.Sorted(slices.Values(f.Values)))
		filters[i] = fmt.Sprintf("%d %t %q %q\n", f.Column, f.Not, f.Operator, values)
	}
	slices.Sort(filters)
	_, _ = h.Write([]byte(strings.Join(slices.Compact(filters), "")))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// chosen is the columns that a query gives, in their order.
func chosen(t *table.Table, q *table.Query) []int {
	if q.Select != nil {
		return q.Select
	}
	all := make([]int, len(t.Columns))
	for i := range all {
		all[i] = i
	}
	return all
}
