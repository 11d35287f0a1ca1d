package buffer

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // what Redis has; not for secrecy
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
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
	Absent               // it was found earlier that Postgres has no such row
)

// Found is what Redis knows about a key.
type Found struct {
	Source    Source
	ID        table.ID      // Dirty
	Committed bool          // Dirty: at or below the watermark
	Op        table.Op      // Dirty
	Accepted  time.Time     // Dirty
	Columns   []byte        // the column list of Line, as in Table.Header
	Line      []byte        // COPY text line
	TTL       time.Duration // Clean, Absent: what is left; below zero when it is past its time
	Age       time.Duration // Clean: since it was loaded
	Lease     string        // Miss: non-empty when the caller holds the lease to load the row; Clean: to load it again
	Held      bool          // Miss: somebody else holds it
	Written   bool          // Miss: a direct writer is about to commit the row: nobody may store it now

	value string // Clean: as it lies in Redis
}

// Deleted reports whether the newest row is a delete.
func (f *Found) Deleted() bool { return f.Source == Dirty && f.Op == table.OpDelete }

// Basis for a row that is to follow what was found. Not for a miss without a
// lease.
func (f *Found) Basis() Basis {
	switch {
	case f.Source == Dirty:
		return After(f.ID)
	case f.Source == Clean:
		sum := sha1.Sum([]byte(f.value)) //nolint:gosec // what Redis has; not for secrecy
		return Basis{expectClean, hex.EncodeToString(sum[:])}
	}
	return Basis{expectLease, f.Lease}
}

// Want is what a read is for.
type Want byte

// What reads can want. They are the letters of read.lua.
const (
	WantRow   Want = 'r' // a row to be shown: also one past its time, and that there is none
	WantBasis Want = 'b' // what the next row is computed from
	WantFresh Want = 'f' // what is in the log, else what is in Postgres from now on
)

// Life is how long a clean row is served: TTL, and Stale beyond that while it is
// loaded again.
type Life struct{ TTL, Stale time.Duration }

func (l Life) ttl() int64 { return max(l.TTL.Milliseconds(), 1) }

// Reading is one read of a key.
type Reading struct {
	Place Place
	Key   string
	Want  Want
	Lease bool          // a miss hands out a lease to load the row, unless somebody else holds one
	Ahead time.Duration // WantRow: a clean row that has less left is to be loaded again; 0: none

	token string
	found *Found
	err   error
	done  chan struct{}
}

func (r *Reading) args(b *Buffer) []any {
	ahead := ""
	if r.Ahead > 0 {
		ahead = strconv.FormatInt(r.Ahead.Milliseconds(), 10)
	}
	if r.Lease {
		r.token = b.leases + strconv.FormatUint(b.leaseNo.Add(1), 36)
	}
	return []any{r.Place.prefix(), r.Key, r.token, b.cfg.LeaseTime.Milliseconds(), string(r.Want), ahead}
}

// Get reads the newest row of a key, to show it. With lease, a miss hands out
// a lease to load it, unless somebody else holds one.
func (b *Buffer) Get(ctx context.Context, p Place, key string, lease bool) (*Found, error) {
	return b.Read(ctx, &Reading{Place: p, Key: key, Want: WantRow, Lease: lease})
}

// Asked is a key of GetMany.
type Asked struct {
	Place Place
	Key   string
}

// GetMany reads keys whose next rows are to be computed, with leases, in one
// pipeline. A key whose read failed has its error in errs.
func (b *Buffer) GetMany(ctx context.Context, keys []Asked) (found []*Found, errs []error) {
	found, errs = make([]*Found, len(keys)), make([]error, len(keys))
	reads := make([]*Reading, len(keys))
	for i, k := range keys {
		reads[i] = &Reading{Place: k.Place, Key: k.Key, Want: WantBasis, Lease: true}
	}
	b.readAll(ctx, reads)
	for i, r := range reads {
		found[i], errs[i] = r.found, r.err
	}
	return found, errs
}

// readAll sends reads in one pipeline.
func (b *Buffer) readAll(ctx context.Context, reads []*Reading) {
	cmds := make([]*redis.Cmd, len(reads))
	pipe := b.rdb.Pipeline()
	for i, r := range reads {
		cmds[i] = pipe.EvalSha(ctx, readScript.sha, []string{r.Place.log(), r.Place.meta(), r.Place.row(r.Key)}, r.args(b)...)
	}
	_, _ = pipe.Exec(ctx) // each command carries its own error
	for i, r := range reads {
		if err := cmds[i].Err(); err != nil && classify(err) == noScript {
			cmds[i] = b.rdb.Eval(ctx, readScript.text, []string{r.Place.log(), r.Place.meta(), r.Place.row(r.Key)}, r.args(b)...)
		}
		r.found, r.err = b.found(cmds[i], r.Place, r.token)
	}
}

func (b *Buffer) found(cmd *redis.Cmd, p Place, token string) (*Found, error) {
	got, err := cmd.Slice()
	if err != nil {
		return nil, unavailable("read key partition="+p.String(), err)
	}
	f, err := found(got)
	if err != nil {
		return nil, fmt.Errorf("read key partition=%s: %w", p, err)
	}
	if answer(got, 0) == "L" || answer(got, 4) == "1" && f.Source == Clean {
		f.Lease = token
	}
	if f.Source == Miss {
		b.counters.Misses.Add(1)
	} else {
		b.counters.Hits.Add(1)
	}
	return f, nil
}

func found(got []any) (*Found, error) {
	switch answer(got, 0) {
	case "D":
		id, err := table.ParseID(answer(got, 1))
		head, line := answer(got, 5), answer(got, 6)
		wm, err2 := strconv.ParseUint(answer(got, 2), 10, 64)
		base, err3 := strconv.ParseInt(answer(got, 4), 10, 64)
		if err != nil || err2 != nil || err3 != nil || len(head) != 8 || line == "" {
			return nil, table.ErrCorruptFrame
		}
		op := table.Op(head[0])
		if op.Changes() { // readers want the row alone
			line = line[:strings.LastIndexByte(line, '\t')+1]
			line = line[:max(len(line)-1, 0)] + "\n"
		}
		late := int64(binary.LittleEndian.Uint16([]byte(head)[2:])) * 1000
		return &Found{
			Source: Dirty, ID: id, Committed: id.Seq <= wm, Op: op,
			Accepted: time.UnixMicro(base + late),
			Columns:  []byte(answer(got, 3)), Line: []byte(line),
		}, nil
	case "C":
		columns, line, ok := bytes.Cut([]byte(answer(got, 1)), []byte{'\n'})
		if !ok {
			return nil, table.ErrCorruptFrame
		}
		left, _ := got[2].(int64)
		ttl, _ := strconv.ParseInt(answer(got, 3), 10, 64)
		return &Found{
			value: answer(got, 1), Source: Clean, Columns: columns, Line: line,
			TTL: time.Duration(left) * time.Millisecond, Age: time.Duration(max(ttl-left, 0)) * time.Millisecond,
		}, nil
	case "N":
		left, _ := got[1].(int64)
		return &Found{Source: Absent, TTL: time.Duration(left) * time.Millisecond}, nil
	case "W":
		return &Found{Held: true}, nil
	case "H":
		return &Found{Held: true, Written: true}, nil
	default:
		return &Found{}, nil
	}
}

// Fill stores a row that was loaded under a lease, and reports whether it was
// taken: not if a write came in between. columns and line are as in Found.
func (b *Buffer) Fill(ctx context.Context, p Place, key, lease string, row Row, life Life) (bool, error) {
	value := make([]byte, 0, len(row.Columns)+len(row.Line)+1)
	value = append(append(append(value, row.Columns...), '\n'), row.Line...)
	return b.fill(ctx, p, key, lease, "C", value, life)
}

// FillAbsent stores that there is no row.
func (b *Buffer) FillAbsent(ctx context.Context, p Place, key, lease string, life Life) (bool, error) {
	return b.fill(ctx, p, key, lease, "N", nil, life)
}

// Release gives a lease back without a row.
func (b *Buffer) Release(ctx context.Context, p Place, key, lease string) error {
	_, err := b.fill(ctx, p, key, lease, "", nil, Life{})
	return err
}

func (b *Buffer) fill(ctx context.Context, p Place, key, lease, kind string, value []byte, life Life) (bool, error) {
	n, err := b.eval(ctx, fillScript, []string{p.row(key), p.meta()}, lease, kind, value, life.ttl(), life.Stale.Milliseconds()).Int()
	if err != nil {
		return false, unavailable("fill key partition="+p.String(), err)
	}
	if n == 0 && kind != "" {
		b.counters.FillLost.Add(1)
	}
	return n == 1, nil
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
