package buffer

import (
	"context"
	"crypto/sha1" //nolint:gosec // what Redis has; not for secrecy
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headpond/headpond/buffer/table"
)

// Source says where a read was answered from.
type Source int

// The sources of a read.
const (
	Miss   Source = iota // not in Redis; Lease is set when the caller may load it
	Dirty                // from the log: accepted; Committed says whether it is in Postgres already
	Clean                // loaded from Postgres earlier
	Absent               // Postgres was asked earlier, and had no row
)

// Found is what Redis knows about a key. Read-only: readers who ask at the same
// time get the same one.
type Found struct {
	Source    Source
	ID        table.ID  // Dirty
	Committed bool      // Dirty: at or below the watermark
	Op        table.Op  // Dirty
	Accepted  time.Time // Dirty
	Columns   []byte    // the column list of Line, as in Table.Header
	Line      []byte    // COPY text line
	Stored    time.Time // Clean, Absent
	TTL       time.Duration
	Again     bool // Clean: the caller is to load the row again
	// Lease is what Fill needs. Miss: non-empty when the caller holds the lease to
	// load the row. Clean, Absent: to put something else in its place.
	Lease   string
	Held    bool // Miss: somebody else holds it
	Written bool // Miss: a direct writer is about to commit, so Postgres knows; what is loaded now cannot be stored
}

// Deleted reports whether the newest row is a delete.
func (f *Found) Deleted() bool { return f.Source == Dirty && f.Op == table.OpDelete }

// Basis for a row that is to follow what was found. Not for a miss without a
// lease, nor for what was read with a Want that takes more than clean rows whose
// time has not ended.
func (f *Found) Basis() Basis {
	switch {
	case f.Source == Dirty:
		return After(f.ID)
	case f.Source == Clean:
		sum := sha1.New() //nolint:gosec // what Redis has; not for secrecy
		sum.Write(f.Columns)
		sum.Write([]byte{'\n'})
		sum.Write(f.Line)
		return Basis{expectClean, hex.EncodeToString(sum.Sum(nil))}
	}
	return Basis{expectLease, f.Lease}
}

// Want says what a reader takes for an answer. The zero Want takes rows of the
// log, and clean rows whose time has not ended.
type Want struct {
	Lease    bool          // a miss hands out a lease to load the row, unless somebody else holds one
	Take     bool          // also one that somebody else holds: what that one loads is not stored then
	Negative bool          // Absent will do
	Stale    time.Duration // a clean row will do so long after its end
	Ahead    time.Duration // who reads a clean row so long before its end is told to load it again; needs Lease
}

// Get reads the newest row of a key. With lease, a miss hands out a lease to
// load it, unless somebody else holds one.
func (b *Buffer) Get(ctx context.Context, p Place, key string, lease bool) (*Found, error) {
	found, errs := b.look(ctx, []asked{{Asked{p, key}, Want{Lease: lease}}})
	return found[0], errs[0]
}

// Asked is a key of GetMany.
type Asked struct {
	Place Place
	Key   string
}

// GetMany is Get of many keys, with leases, in one pipeline. A key whose read
// failed has its error in errs.
func (b *Buffer) GetMany(ctx context.Context, keys []Asked) (found []*Found, errs []error) {
	all := make([]asked, len(keys))
	for i, k := range keys {
		all[i] = asked{k, Want{Lease: true}}
	}
	return b.look(ctx, all)
}

// eval runs a script, loading it when Redis does not know it. Not for append:
// see loadScripts.
func (b *Buffer) eval(ctx context.Context, s script, keys []string, args ...any) *redis.Cmd {
	cmd := b.rdb.EvalSha(ctx, s.sha, keys, args...)
	if err := cmd.Err(); err != nil && classify(err) == noScript {
		return b.rdb.Eval(ctx, s.text, keys, args...)
	}
	return cmd
}

// Known reports which keys have a row in the index. It is a look, not a promise: a
// key may come or go a moment later.
func (b *Buffer) Known(ctx context.Context, p Place, keys []string) ([]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.CallTimeout)
	defer cancel()
	known := make([]bool, len(keys))
	gens, err := b.rdb.HMGet(ctx, p.meta(), "glo", "gen").Result()
	if err != nil {
		return nil, unavailable("look up keys partition="+p.String(), err)
	}
	number := func(v any) int64 {
		s, _ := v.(string)
		n, _ := strconv.ParseInt(s, 10, 64)
		return max(n, 1)
	}
	const step = 1000
	for g := number(gens[0]); g <= number(gens[1]); g++ {
		for from := 0; from < len(keys); from += step {
			got, err := b.rdb.HMGet(ctx, p.dirty(g), keys[from:min(from+step, len(keys))]...).Result()
			if err != nil {
				return nil, unavailable("look up keys partition="+p.String(), err)
			}
			for i, v := range got {
				if id, ok := v.(string); ok { // the newest generation is right
					known[from+i] = !strings.HasSuffix(id, "d")
				}
			}
		}
	}
	return known, nil
}

// Marked gives those of these marks that a place has (Chunk.Mark), as they are
// noted.
func (b *Buffer) Marked(ctx context.Context, p Place, names []string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.CallTimeout)
	defer cancel()
	for {
		g, err := b.rdb.HGet(ctx, p.meta(), "ig").Int64()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, unavailable("look up marks partition="+p.String(), err)
		}
		g = max(g, 1)
		pipe := b.rdb.Pipeline()
		var found []*redis.SliceCmd
		for some := range slices.Chunk(names, 1000) {
			found = append(found, pipe.HMGet(ctx, p.marks(g), some...), pipe.HMGet(ctx, p.marks(g-1), some...))
		}
		again := pipe.HGet(ctx, p.meta(), "ig")
		if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return nil, unavailable("look up marks partition="+p.String(), err)
		}
		if n, _ := again.Int64(); max(n, 1) != g {
			continue // a generation began meanwhile
		}
		there := make(map[string]string)
		for i, cmd := range found {
			for j, v := range cmd.Val() {
				if text, ok := v.(string); ok {
					there[names[i/2*1000+j]] = text
				}
			}
		}
		return there, nil
	}
}

// Claim remembers the sum of the first request of a name, as long as marks are
// kept, and gives the sum that is remembered. parts is how many places share
// the names.
func (b *Buffer) Claim(ctx context.Context, p Place, parts int, name, sum string) (string, error) {
	first, err := b.eval(ctx, claimScript, []string{p.meta()}, p.prefix(), name, sum, time.Now().UnixMilli(),
		max(marksPerTable/parts, 1), marksKept.Milliseconds()).Text()
	if err != nil {
		return "", unavailable("claim name partition="+p.String(), err)
	}
	return first, nil
}
