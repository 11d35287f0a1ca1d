package buffer

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Invalidated is what an invalidation came to so far.
type Invalidated struct {
	Gone    int64 // keys whose rows are not cached any more
	Kept    int64 // keys with a row that is not committed: that stays
	Scanned int64 // keys of the tables that were looked at, each in every place where it lay
}

// Add takes another one in.
func (i *Invalidated) Add(o Invalidated) {
	i.Gone, i.Kept, i.Scanned = i.Gone+o.Gone, i.Kept+o.Kept, i.Scanned+o.Scanned
}

// Invalidate lets go of one key.
func (b *Buffer) Invalidate(ctx context.Context, p Place, key string) (Invalidated, error) {
	gone, kept, err := b.outdate(ctx, map[Place][]string{p: {key}}, nil)
	return Invalidated{Gone: gone, Kept: int64(len(kept)), Scanned: 1}, err
}

// walkStep is how many keys Redis looks at in one step of a walk, some tenths of a
// millisecond. Between two steps the walk rests as long as the step took: so
// readers find Redis free at least half of the time.
const walkStep = 200

// Selection is those keys of a table that Match reports.
type Selection struct {
	Target *Target
	Match  func(key string) bool
}

// InvalidateMatching lets go of keys, and tells what it came to for each table. It
// walks over each node once, and over the indexes, in small steps, and tells progress
// after each; an error of progress ends it. Rows that are cached meanwhile may stay:
// they are new. Redis chooses the rows of a table, and Match among them: Redis knows
// no key as users know it, and does not tell how many keys a pattern was held to.
func (b *Buffer) InvalidateMatching(ctx context.Context, tables []Selection, progress func(Invalidated) error) (map[string]Invalidated, error) {
	w := &walk{b: b, tables: make(map[string]Selection, len(tables)), progress: progress, sums: make(map[string]Invalidated, len(tables))}
	for _, t := range tables {
		w.tables[t.Target.Table] = t
	}
	if err := b.eachNode(ctx, w.rows); err != nil {
		return w.sums, err
	}
	for _, t := range tables {
		for i := range t.Target.Partitions {
			if err := w.index(ctx, Place{t.Target.Table, i}); err != nil {
				return w.sums, err
			}
		}
	}
	return w.sums, nil
}

type walk struct {
	b        *Buffer
	tables   map[string]Selection
	progress func(Invalidated) error
	sums     map[string]Invalidated
	kept     map[Place]map[string]bool // a key may be in more than one generation
}

// rows walks over the clean rows of a node.
func (w *walk) rows(ctx context.Context, c redis.Cmdable) error {
	match := "hp:{*}:row:*"
	if len(w.tables) == 1 {
		for name := range w.tables {
			match = "hp:{" + globs.Replace(name) + ".*}:row:*"
		}
	}
	for cursor := uint64(0); ; {
		began := time.Now()
		names, next, err := c.Scan(ctx, cursor, match, walkStep).Result()
		if err != nil {
			return unavailable("scan rows", err)
		}
		keys := make(map[string]map[Place][]string)
		for _, name := range names {
			if p, key, ok := w.rowOf(name); ok && w.takes(p, key) {
				if keys[p.Table] == nil {
					keys[p.Table] = make(map[Place][]string)
				}
				keys[p.Table][p] = append(keys[p.Table][p], key)
			}
		}
		for table, keys := range keys {
			if err := w.drop(ctx, table, keys); err != nil {
				return err
			}
		}
		if err := w.tell(); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
		rest(ctx, began)
	}
}

// rowOf reads the name of a clean row of one of the tables.
func (w *walk) rowOf(name string) (p Place, key string, ok bool) {
	place, key, ok := strings.Cut(strings.TrimPrefix(name, "hp:{"), "}:row:")
	dot := strings.LastIndexByte(place, '.')
	if !ok || dot < 0 {
		return p, "", false
	}
	n, err := strconv.Atoi(place[dot+1:])
	t := w.tables[place[:dot]].Target
	if err != nil || t == nil || n < 0 || n >= t.Partitions {
		return p, "", false
	}
	return Place{t.Table, n}, key, true
}

// takes looks at a key.
func (w *walk) takes(p Place, key string) bool {
	sum := w.sums[p.Table]
	sum.Scanned++
	w.sums[p.Table] = sum
	return w.tables[p.Table].Match(key)
}

// index walks over the index of a place. Generations that begin meanwhile hold
// only new rows.
func (w *walk) index(ctx context.Context, p Place) error {
	ends, err := w.b.rdb.HMGet(ctx, p.meta(), "glo", "gen").Result()
	if err != nil {
		return unavailable("read generations partition="+p.String(), err)
	}
	for g := max(numberOf(ends[0]), 1); g <= max(numberOf(ends[1]), 1); g++ {
		for cursor := uint64(0); ; {
			began := time.Now()
			pairs, next, err := w.b.rdb.HScan(ctx, p.dirty(g), cursor, "", walkStep).Result()
			if err != nil {
				return unavailable("scan index partition="+p.String(), err)
			}
			var keys []string
			for i := 0; i < len(pairs); i += 2 {
				if w.takes(p, pairs[i]) {
					keys = append(keys, pairs[i])
				}
			}
			if err := w.drop(ctx, p.Table, map[Place][]string{p: keys}); err != nil {
				return err
			}
			if err := w.tell(); err != nil {
				return err
			}
			if cursor = next; cursor == 0 {
				break
			}
			rest(ctx, began)
		}
	}
	return nil
}

// drop lets go of keys of a table.
func (w *walk) drop(ctx context.Context, table string, keys map[Place][]string) error {
	gone, kept, err := w.b.outdate(ctx, keys, nil)
	if err != nil {
		return err
	}
	sum := w.sums[table]
	sum.Gone += gone
	for _, k := range kept {
		if w.kept == nil {
			w.kept = make(map[Place]map[string]bool)
		}
		if w.kept[k.Place] == nil {
			w.kept[k.Place] = make(map[string]bool)
		}
		if !w.kept[k.Place][k.Key] {
			w.kept[k.Place][k.Key] = true
			sum.Kept++
		}
	}
	w.sums[table] = sum
	return nil
}

// tell the progress.
func (w *walk) tell() error {
	var all Invalidated
	for _, sum := range w.sums {
		all.Add(sum)
	}
	return w.progress(all)
}

// rest waits as long as the work since began took.
func rest(ctx context.Context, began time.Time) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Since(began)):
	}
}

// PutOutcome is what became of a row that was put.
type PutOutcome string

// The outcomes of Put. They are the letters of put.lua.
const (
	PutStored  PutOutcome = "K"
	PutDirty   PutOutcome = "D" // the log has a newer row of the key
	PutWritten PutOutcome = "W" // the key is being written directly
	PutNoLease PutOutcome = "V" // the lease does not stand any more
)

// Put stores a row that a client has loaded itself. With a lease it is stored
// only if nothing was written since that was given out.
func (b *Buffer) Put(ctx context.Context, p Place, key, lease string, row Row, life Life) (PutOutcome, error) {
	value := append(append(append(b.head(life.TTL), row.Columns...), '\n'), row.Line...)
	out, err := b.eval(ctx, putScript, []string{p.row(key), p.meta()}, p.prefix(), key, lease, value, life.milliseconds()).Text()
	if err != nil {
		return "", unavailable("put key partition="+p.String(), err)
	}
	return PutOutcome(out), nil
}
