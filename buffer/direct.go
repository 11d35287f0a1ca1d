package buffer

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// A marker that nobody takes away ends by itself: after a COMMIT whose answer
// was lost, or when its process died. By then Postgres has ended the
// transaction; until then readers go to Postgres.
const markerTime = 30 * time.Second

// SetStrategy says how the rows of a table get to Postgres from now on, in
// every process: also in those that were started with another strategy. To be
// called when its places are open. Rows that wait in the log are flushed; writes
// that go to Postgres directly wait for them (StillPending).
func (b *Buffer) SetStrategy(ctx context.Context, t *Target, strategy string) error {
	b.AssumeStrategy(t.Table, strategy)
	pipe := b.rdb.Pipeline()
	for i := range t.Partitions {
		pipe.HSet(ctx, Place{t.Table, i}.meta(), "strategy", strategy)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return unavailable("set strategy table="+t.Table, err)
	}
	t.Follow(strategy)
	return nil
}

// AssumeStrategy says what strategy a partition has when Redis has lost it.
func (b *Buffer) AssumeStrategy(table, strategy string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.strategies == nil {
		b.strategies = make(map[string]string)
	}
	b.strategies[table] = strategy
}

// CheckDrained finds out whether rows wait in the log of a table that is
// written directly, and tells the target.
func (b *Buffer) CheckDrained(ctx context.Context, t *Target) error {
	pipe := b.rdb.Pipeline()
	got := make([]*redis.SliceCmd, t.Partitions)
	for i := range got {
		got[i] = pipe.HMGet(ctx, Place{t.Table, i}.meta(), "seq", "wm", "strategy")
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return unavailable("look for backlog table="+t.Table, err)
	}
	for _, cmd := range got {
		v := cmd.Val()
		if strategy, _ := v[2].(string); v[0] != v[1] || strategy != t.Strategy() {
			return nil
		}
	}
	t.SetDrained(true)
	return nil
}

// Markers stand on keys while they are written directly: see hold.lua.
type Markers struct {
	b     *Buffer
	token string
	keys  map[Place][]string
}

// Hold puts markers on the keys of one table, in the step before the COMMIT that
// changes their rows, while Postgres has them locked. A *StillPending says that
// the log comes first, ErrSwitched that another strategy is in force now, which
// the target follows.
func (b *Buffer) Hold(ctx context.Context, t *Target, keys map[Place][]string) (*Markers, error) {
	m := &Markers{b: b, token: b.token(), keys: keys}
	err := m.each(ctx, func(pipe redis.Pipeliner, p Place, keys []string) *redis.Cmd {
		args := append(make([]any, 0, 4+len(keys)), p.prefix(), t.Strategy(), m.token, markerTime.Milliseconds())
		for _, k := range keys {
			args = append(args, k)
		}
		return pipe.EvalSha(ctx, holdScript.sha, []string{p.meta()}, args...)
	}, func(p Place, cmd *redis.Cmd) error {
		got, err := cmd.Slice()
		if err != nil {
			return err
		}
		switch answer(got, 0) {
		case "X":
			t.Follow(answer(got, 1))
			return ErrSwitched
		case "B":
			seq, _ := strconv.ParseUint(answer(got, 1), 10, 64)
			return &StillPending{p, seq}
		case "U":
			return errNotOpen
		}
		return nil
	})
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.cfg.CallTimeout)
		defer cancel()
		_ = m.Remove(ctx) // or they end by themselves
		return nil, err
	}
	return m, nil
}

var errNotOpen = fmt.Errorf("the partition is not open yet: %w", ErrUnavailable)

// holdKeys is the most keys of one call: Redis is busy with it for a
// millisecond.
const holdKeys = 500

// each sends a script for the keys of each place, some at a time, and looks at
// the answers.
func (m *Markers) each(ctx context.Context, send func(redis.Pipeliner, Place, []string) *redis.Cmd, look func(Place, *redis.Cmd) error) error {
	for try := 0; ; try++ {
		pipe := m.b.rdb.Pipeline()
		type sent struct {
			place Place
			cmd   *redis.Cmd
		}
		var all []sent
		for p, keys := range m.keys {
			for from := 0; from < max(len(keys), 1); from += holdKeys {
				all = append(all, sent{p, send(pipe, p, keys[from:min(from+holdKeys, len(keys))])})
			}
		}
		_, _ = pipe.Exec(ctx) // each command carries its own error
		var first error
		unknown := false
		for _, s := range all {
			err := look(s.place, s.cmd)
			if failed := s.cmd.Err(); failed != nil {
				if classify(failed) == noScript {
					unknown = true
					continue
				}
				err = unavailable("mark keys partition="+s.place.String(), failed)
			}
			if err != nil && first == nil {
				first = err
			}
		}
		if !unknown || try > 0 {
			return first
		}
		if err := m.b.shake(ctx); err != nil { // Redis is another run
			return err
		}
	}
}

// Row is what is to lie under a key.
type Row struct{ Columns, Line []byte }

// Fill puts the rows of keys where the markers still are, and takes the others
// away. rows is by key, of each place.
func (m *Markers) Fill(ctx context.Context, rows map[Place]map[string]Row, life Life) error {
	head := m.b.head(life.TTL)
	return m.each(ctx, func(pipe redis.Pipeliner, p Place, keys []string) *redis.Cmd {
		args := append(make([]any, 0, 4+2*len(keys)), p.prefix(), m.token, life.milliseconds(), head)
		for _, k := range keys {
			var value []byte
			if r, ok := rows[p][k]; ok {
				value = append(append(append(value, r.Columns...), '\n'), r.Line...)
			}
			args = append(args, k, value)
		}
		return pipe.EvalSha(ctx, releaseScript.sha, []string{p.meta()}, args...)
	}, func(_ Place, cmd *redis.Cmd) error { return cmd.Err() })
}

// Remove takes the markers away: the next reader loads the row.
func (m *Markers) Remove(ctx context.Context) error { return m.Fill(ctx, nil, Life{}) }
