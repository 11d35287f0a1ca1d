package buffer

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// The lists of a table have a version. Whoever changes the table ends it, and
// with it all its lists at once; a load that began under it is never served
// after that, however long it takes. The next reader makes a new one.
//
// A version is a token and not a count, and to end it is to delete it: that
// takes no memory, so that it works in a Redis that is full, and costs nothing
// for tables that nobody lists; and when Redis loses the version, none that is
// made later is like it. A Redis that went back to an older state, with version
// and lists together, may serve those for what is left of their time; handshakes
// end versions too, so that is short.

// versionTime bounds how long the version of a table that was dropped stays.
// Where one ends before its time, lists are loaded once more.
const versionTime = 24 * time.Hour

// ListReading asks for a list of a table.
type ListReading struct {
	Table, Query string
	Lease        bool // a miss hands out a lease to load the list, unless somebody else holds one
	Fresh        bool // with Lease: the list is to be loaded again
}

// ListFound is what Redis knows of a list.
type ListFound struct {
	Value    []byte        // as it was given to KeepList; nil for a miss
	TTL, Age time.Duration // of the value
	Version  string        // of a miss: what begins to be loaded now is of this version
	Lease    string        // of a miss: for KeepList, when the caller is to load the list
}

func (b *Buffer) listContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, min(soon, b.cfg.CallTimeout))
}

// List looks for a list, for at most a second.
func (b *Buffer) List(ctx context.Context, r ListReading) (*ListFound, error) {
	ctx, cancel := b.listContext(ctx)
	defer cancel()
	token, fresh := "", ""
	if r.Lease {
		token = b.leases + strconv.FormatUint(b.leaseNo.Add(1), 36)
		if r.Fresh {
			fresh = "1"
		}
	}
	got, err := b.eval(ctx, listScript, []string{listsKey(r.Table), listKey(r.Table, r.Query)},
		token, b.cfg.LeaseTime.Milliseconds(), fresh, versionTime.Milliseconds()).Slice()
	if err != nil {
		return nil, unavailable("look for list table="+r.Table, err)
	}
	switch answer(got, 0) {
	case "C":
		if len(got) == 4 {
			left, _ := got[2].(int64)
			ttl, _ := got[3].(int64)
			return &ListFound{
				Value: []byte(answer(got, 1)),
				TTL:   time.Duration(left) * time.Millisecond, Age: time.Duration(max(ttl-left, 0)) * time.Millisecond,
			}, nil
		}
	case "L":
		version := answer(got, 1)
		return &ListFound{Version: version, Lease: "L" + version + " " + token}, nil
	case "W":
		return &ListFound{Version: answer(got, 1)}, nil
	case "M":
		return &ListFound{}, nil
	}
	return nil, fmt.Errorf("look for list table=%s: the script gave %.60v", r.Table, got)
}

// KeepList stores a list that was loaded under a lease, and reports whether it
// was taken: not when the lease has ended.
func (b *Buffer) KeepList(ctx context.Context, table, query, lease string, value []byte, ttl time.Duration) (bool, error) {
	return b.keepList(ctx, table, query, lease, strconv.FormatInt(max(ttl.Milliseconds(), 1), 10), value)
}

// ReleaseList gives a lease back without a list.
func (b *Buffer) ReleaseList(ctx context.Context, table, query, lease string) error {
	_, err := b.keepList(ctx, table, query, lease, "", nil)
	return err
}

func (b *Buffer) keepList(ctx context.Context, table, query, lease, ttl string, value []byte) (bool, error) {
	ctx, cancel := b.listContext(ctx)
	defer cancel()
	n, err := b.eval(ctx, keepScript, []string{listKey(table, query)}, lease, ttl, value).Int()
	return n == 1, unavailable("store list table="+table, err)
}

// TouchLists drops all lists of a table, and those that are being loaded. To be
// called when a change is committed, before anybody hears of that.
func (b *Buffer) TouchLists(ctx context.Context, table string) error {
	return unavailable("drop lists table="+table, b.rdb.Del(ctx, listsKey(table)).Err())
}

// touchSettled drops the lists of the tables that settlements ask it for.
func (b *Buffer) touchSettled(ctx context.Context, all []Settlement) error {
	done := make(map[string]bool)
	for i := range all {
		if t := all[i].Place.Table; all[i].Lists && !done[t] {
			done[t] = true
			if err := b.TouchLists(ctx, t); err != nil {
				return err
			}
		}
	}
	return nil
}
