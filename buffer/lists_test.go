package buffer_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

func (b *bundle) list(query string, lease, fresh bool) *buffer.ListFound {
	b.t.Helper()
	f, err := b.List(context.Background(), buffer.ListReading{Table: b.table, Query: query, Lease: lease, Fresh: fresh})
	require.NoError(b.t, err)
	return f
}

func (b *bundle) keep(query, lease, value string, ttl time.Duration) bool {
	b.t.Helper()
	ok, err := b.KeepList(context.Background(), b.table, query, lease, []byte(value), ttl)
	require.NoError(b.t, err)
	return ok
}

// TestListVersions: what began to be loaded before the lists were touched is
// never given to anybody after.
func TestListVersions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := context.Background()
	require.Equal(t, &buffer.ListFound{}, b.list("q", false, false))
	first := b.list("q", true, false)
	require.NotEmpty(t, first.Lease)
	second := b.list("q", true, false)
	require.Empty(t, second.Lease, "one loads it")
	require.Equal(t, first.Version, second.Version)
	require.True(t, b.keep("q", first.Lease, "old", time.Minute))
	hit := b.list("q", true, false)
	require.Equal(t, "old", string(hit.Value))
	require.InDelta(t, time.Minute, hit.TTL, float64(20*time.Second))
	require.Equal(t, time.Minute, (hit.TTL + hit.Age).Round(time.Second))
	require.False(t, b.keep("q", first.Lease, "again", time.Minute), "a lease is used once")

	slow := b.list("slow", true, false)
	require.Equal(t, first.Version, slow.Version)
	require.NoError(t, b.TouchLists(ctx, b.table))
	require.Nil(t, b.list("q", false, false).Value)
	other := b.list("other", true, false) // somebody makes a new version meanwhile
	require.NotEqual(t, first.Version, other.Version)
	require.Nil(t, b.list("q", false, false).Value, "of the old version")
	b.keep("slow", slow.Lease, "from before", time.Minute)
	require.Nil(t, b.list("slow", false, false).Value, "it began before")
	again := b.list("slow", true, false)
	require.NotEmpty(t, again.Lease)
	require.False(t, b.keep("slow", slow.Lease, "from before", time.Minute))
	require.True(t, b.keep("slow", again.Lease, "new", time.Minute))
	require.Equal(t, "new", string(b.list("slow", false, false).Value))
}

// TestListLeases: one is given back, taken away by who wants it fresh, or ends.
func TestListLeases(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := context.Background()
	l := b.list("q", true, false)
	require.NoError(t, b.ReleaseList(ctx, b.table, "q", l.Lease))
	l = b.list("q", true, false)
	require.NotEmpty(t, l.Lease)
	fresh := b.list("q", true, true)
	require.NotEmpty(t, fresh.Lease)
	require.False(t, b.keep("q", l.Lease, "older", time.Minute))
	require.True(t, b.keep("q", fresh.Lease, "newer", time.Minute))
	require.NotEmpty(t, b.list("q", true, true).Lease, "whatever lies there")
	require.Empty(t, b.list("q", true, false).Lease)
	name := "hp:{" + b.table + "}:"
	require.EqualValues(t, 2, b.rdb.Del(ctx, name+"lists", name+"list:q").Val(), "Redis loses them")
	require.False(t, b.keep("q", fresh.Lease, "from before", time.Minute))
	after := b.list("q", true, false)
	require.NotEqual(t, fresh.Version, after.Version, "a version does not come back")

	keys, err := b.rdb.Keys(ctx, name+"*").Result()
	require.NoError(t, err)
	require.Len(t, keys, 2)
	for _, key := range keys {
		require.Positive(t, b.rdb.PTTL(ctx, key).Val(), key)
	}
}

// refusing fails DEL, as a Redis does that cannot be reached.
type refusing struct{ on atomic.Bool }

func (r *refusing) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *refusing) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if r.on.Load() && strings.EqualFold(cmd.Name(), "del") {
			cmd.SetErr(errors.New("cut off"))
			return cmd.Err()
		}
		return next(ctx, cmd)
	}
}

func (r *refusing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestSettleDropsListsFirst: where the lists cannot be dropped, nobody hears of
// the commit.
func TestSettleDropsListsFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := context.Background()
	target := b.target(1)
	b.append(chunk(target, 0, buffer.ExpectAbsent, "a"))
	l := b.list("q", true, false)
	require.True(t, b.keep("q", l.Lease, "[]", time.Minute))
	hook := &refusing{}
	b.rdb.AddHook(hook)
	hook.on.Store(true)
	now := time.Now()
	settlement := buffer.Settlement{
		Place: b.place(0), Watermark: table.ID{Epoch: 1, Seq: 1}, Committed: now, Picked: now, Copied: now, Retain: time.Hour, Lists: true,
	}
	settled := func() uint64 {
		tails, err := b.Tails(ctx, []buffer.Place{b.place(0)})
		require.NoError(t, err)
		return tails[0].Settled
	}
	_, err := b.Settle(ctx, []buffer.Settlement{settlement})
	require.ErrorIs(t, err, buffer.ErrUnavailable)
	require.Zero(t, settled())
	require.NotNil(t, b.list("q", false, false).Value)
	hook.on.Store(false)
	_, err = b.Settle(ctx, []buffer.Settlement{settlement})
	require.NoError(t, err)
	require.EqualValues(t, 1, settled())
	require.Nil(t, b.list("q", false, false).Value)
	hook.on.Store(true)
	settlement.Lists = false
	_, err = b.Settle(ctx, []buffer.Settlement{settlement})
	require.NoError(t, err, "who has no lists does not pay for them")
}
