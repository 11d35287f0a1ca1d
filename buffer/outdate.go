package buffer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/headpond/headpond/buffer/table"
)

// Kept is a key that has an operation which is not committed.
type Kept struct {
	Place Place
	Key   string
	ID    table.ID // of the newest operation
}

// outdateKeys is the most keys of one call: Redis is busy with it for a
// millisecond.
const outdateKeys = 500

// Outdate lets go of all that is known of keys whose rows somebody else changed
// in Postgres: clean rows, leases, and what the log says of them, when it is
// committed. upto is the watermark of each place, read from Postgres when the
// change was visible there. Keys with operations above it are kept, and to be
// given here again when those are committed. Repeating a call does no harm.
func (b *Buffer) Outdate(ctx context.Context, keys map[Place][]string, upto map[Place]uint64) ([]Kept, error) {
	_, kept, err := b.outdate(ctx, keys, upto)
	return kept, err
}

// outdate also tells how many keys were let go of.
func (b *Buffer) outdate(ctx context.Context, keys map[Place][]string, upto map[Place]uint64) (gone int64, out []Kept, err error) {
	type sent struct {
		place Place
		keys  []string
		args  []any
		cmd   *redis.Cmd
	}
	var all []*sent
	pipe := b.rdb.Pipeline()
	for p, keys := range keys {
		for from := 0; from < len(keys); from += outdateKeys {
			s := &sent{place: p, keys: keys[from:min(from+outdateKeys, len(keys))], args: []any{p.prefix(), upto[p]}}
			for _, k := range s.keys {
				s.args = append(s.args, k)
			}
			s.cmd = pipe.EvalSha(ctx, outdateScript.sha, []string{p.meta()}, s.args...)
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return 0, nil, nil
	}
	_, _ = pipe.Exec(ctx) // each command carries its own error
	for _, s := range all {
		if err := s.cmd.Err(); err != nil && classify(err) == noScript {
			s.cmd = b.rdb.Eval(ctx, outdateScript.text, []string{s.place.meta()}, s.args...)
		}
		got, err := s.cmd.Slice()
		if err != nil {
			return gone, nil, unavailable("outdate keys partition="+s.place.String(), err)
		}
		if len(got) > 0 {
			n, _ := got[0].(int64)
			gone += n
		}
		for i := 1; i+1 < len(got); i += 2 {
			n, _ := got[i].(int64)
			id, err := table.ParseID(answer(got, i+1))
			if err != nil || int(n) >= len(s.keys) {
				return gone, nil, fmt.Errorf("outdate keys partition=%s: the script gave %v", s.place, got)
			}
			out = append(out, Kept{s.place, s.keys[n], id})
		}
	}
	return gone, out, nil
}

// OutdateTable does it for every key of a table that Redis knows. Clean rows come
// first: an operation that was computed from one of them is in the index then, and
// so is found there.
func (b *Buffer) OutdateTable(ctx context.Context, name string, partitions int, upto map[Place]uint64) ([]Kept, error) {
	err := b.eachNode(ctx, func(ctx context.Context, c redis.Cmdable) error {
		return b.outdateClean(ctx, c, name, upto)
	})
	if err != nil {
		return nil, err
	}
	var out []Kept
	for i := range partitions {
		kept, err := b.outdateIndex(ctx, Place{name, i}, upto)
		if err != nil {
			return nil, err
		}
		out = append(out, kept...)
	}
	return out, nil
}

// eachNode calls do for each master of a cluster, one after the other.
func (b *Buffer) eachNode(ctx context.Context, do func(context.Context, redis.Cmdable) error) error {
	cluster, ok := b.rdb.(*redis.ClusterClient)
	if !ok {
		return do(ctx, b.rdb)
	}
	turn := make(chan struct{}, 1)
	return cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		turn <- struct{}{}
		defer func() { <-turn }()
		return do(ctx, c)
	})
}

var globs = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

func (b *Buffer) outdateClean(ctx context.Context, c redis.Cmdable, name string, upto map[Place]uint64) error {
	start := "hp:{" + name + "."
	for cursor := uint64(0); ; {
		names, next, err := c.Scan(ctx, cursor, globs.Replace(start)+"*}:row:*", 1000).Result()
		if err != nil {
			return unavailable("scan rows table="+name, err)
		}
		keys := make(map[Place][]string)
		for _, row := range names {
			number, key, _ := strings.Cut(strings.TrimPrefix(row, start), "}:row:")
			if n, err := strconv.Atoi(number); err == nil { // else another table, whose name goes on with a dot
				keys[Place{name, n}] = append(keys[Place{name, n}], key)
			}
		}
		if _, err := b.Outdate(ctx, keys, upto); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// outdateIndex goes on until it has seen the newest generation: one may begin
// meanwhile.
func (b *Buffer) outdateIndex(ctx context.Context, p Place, upto map[Place]uint64) ([]Kept, error) {
	known := make(map[string]Kept)
	for g := int64(0); ; g++ {
		ends, err := b.rdb.HMGet(ctx, p.meta(), "glo", "gen").Result()
		if err != nil {
			return nil, unavailable("read generations partition="+p.String(), err)
		}
		if g = max(g, numberOf(ends[0]), 1); g > max(numberOf(ends[1]), 1) {
			break
		}
		for cursor := uint64(0); ; {
			pairs, next, err := b.rdb.HScan(ctx, p.dirty(g), cursor, "", 1000).Result()
			if err != nil && !errors.Is(err, redis.Nil) {
				return nil, unavailable("scan index partition="+p.String(), err)
			}
			keys := make([]string, 0, len(pairs)/2)
			for i := 0; i < len(pairs); i += 2 {
				keys = append(keys, pairs[i])
			}
			kept, err := b.Outdate(ctx, map[Place][]string{p: keys}, upto)
			if err != nil {
				return nil, err
			}
			for _, k := range kept {
				known[k.Key] = k
			}
			if cursor = next; cursor == 0 {
				break
			}
		}
	}
	out := make([]Kept, 0, len(known))
	for _, k := range known {
		out = append(out, k)
	}
	return out, nil
}

func numberOf(v any) int64 {
	s, _ := v.(string)
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
