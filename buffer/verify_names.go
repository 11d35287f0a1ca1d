package buffer

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// The kinds of keys that a verifier tells apart; others are "".
const (
	NameRow   = "row"
	NameIndex = "dirty"
)

// Name is a key of Redis that belongs to a partition.
type Name struct {
	Place Place
	Kind  string // what stands before the next colon: log, meta, row …
	Rest  string // what stands behind it: the key of a row, the number of a generation
	Full  string

	// Mortal: it carries a TTL, though what lies there must stay.
	Mortal bool
}

// mustStay are the kinds of keys that never carry a TTL.
var mustStay = map[string]bool{"log": true, "meta": true, "commits": true, "marks": true, NameIndex: true}

// WalkNames gives the names of all keys of partitions, some of them twice. scanned
// is how many keys Redis has looked at for them.
func (b *Buffer) WalkNames(ctx context.Context, each func(names []Name, scanned int64) error) error {
	return b.eachNode(ctx, func(ctx context.Context, c redis.Cmdable) error {
		for cursor := uint64(0); ; {
			began := time.Now()
			keys, next, err := c.Scan(ctx, cursor, "hp:{*", 5*walkStep).Result()
			if err != nil {
				return unavailable("scan keys", err)
			}
			names := make([]Name, 0, len(keys))
			for _, key := range keys {
				if n, ok := nameOf(key); ok {
					names = append(names, n)
				}
			}
			if err := mortals(ctx, c, names); err != nil {
				return err
			}
			if err := each(names, 5*walkStep); err != nil {
				return err
			}
			if cursor = next; cursor == 0 {
				return nil
			}
			rest(ctx, began)
		}
	})
}

func nameOf(key string) (n Name, ok bool) {
	tag, rest, ok := strings.Cut(strings.TrimPrefix(key, "hp:{"), "}:")
	dot := strings.LastIndexByte(tag, '.')
	if !ok || dot < 0 {
		return n, false
	}
	partition, err := strconv.Atoi(tag[dot+1:])
	n = Name{Place: Place{tag[:dot], partition}, Full: key}
	n.Kind, n.Rest, _ = strings.Cut(rest, ":")
	return n, err == nil
}

// mortals asks for the TTL of what must have none.
func mortals(ctx context.Context, c redis.Cmdable, names []Name) error {
	pipe := c.Pipeline()
	cmds := make(map[int]*redis.DurationCmd)
	for i := range names {
		if mustStay[names[i].Kind] {
			cmds[i] = pipe.PTTL(ctx, names[i].Full)
		}
	}
	if len(cmds) == 0 {
		return nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return unavailable("read times to live", err)
	}
	for i, cmd := range cmds {
		names[i].Mortal = cmd.Val() >= 0
	}
	return nil
}

// Mortal reports whether a key carries a TTL.
func (b *Buffer) Mortal(ctx context.Context, name string) (bool, error) {
	left, err := b.rdb.PTTL(ctx, name).Result()
	return left >= 0, unavailable("read time to live", err)
}

// Exists reports whether there is a key of this name.
func (b *Buffer) Exists(ctx context.Context, name string) (bool, error) {
	n, err := b.rdb.Exists(ctx, name).Result()
	return n > 0, unavailable("look for key", err)
}

// Keys is how many keys there are in all.
func (b *Buffer) Keys(ctx context.Context) (n int64, err error) {
	err = b.eachNode(ctx, func(ctx context.Context, c redis.Cmdable) error {
		some, err := c.DBSize(ctx).Result()
		n += some
		return unavailable("count keys", err)
	})
	return n, err
}

// Cached is what was remembered of a key's row in Postgres.
type Cached struct {
	Key    string
	Head   string // no two values have the same
	Old    bool   // from before Redis or Postgres went back: a miss for readers
	Absent bool   // that there is no row
	Row    Row
	Ends   time.Time
}

// Cached gives the clean rows of keys of one place, and what says that there is
// none; nil for a key without either, or with a lease or a marker. A value that
// nobody of Headpond wrote has its error in errs.
func (b *Buffer) Cached(ctx context.Context, p Place, keys []string) (rows []*Cached, errs []error, err error) {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = p.row(key)
	}
	pipe := b.rdb.TxPipeline()
	// As read.lua does it: an epoch whose cache was kept does not move this one.
	meta := pipe.HMGet(ctx, p.meta(), "cache")
	values := pipe.MGet(ctx, names...)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, nil, damagedOr("read rows partition="+p.String(), err)
	}
	since, _ := meta.Val()[0].(string)
	rows, errs = make([]*Cached, len(keys)), make([]error, len(keys))
	for i, v := range values.Val() {
		if text, _ := v.(string); text != "" {
			rows[i], errs[i] = cached(keys[i], text, since)
		}
	}
	return rows, errs, nil
}

func cached(key, text, since string) (*Cached, error) {
	switch text[0] {
	case 'L', 'W':
		return nil, nil
	case 'C', 'N':
		now := time.Now()
		f, err := clean(text, now)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return &Cached{
			Key: key, Head: f.Lease, Old: epochOf(f.Lease) != since, Absent: text[0] == 'N', Row: Row{f.Columns, f.Line}, Ends: now.Add(f.TTL),
		}, nil
	}
	return nil, fmt.Errorf("%w: it begins with %q", ErrDamaged, text[:1])
}
