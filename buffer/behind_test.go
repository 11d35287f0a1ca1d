package buffer_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// TestOpenWhenRedisWentBack: Redis has an old copy of a partition, which ends
// below what Postgres has committed. What is accepted next lies above that, or
// the flusher would take it for committed.
func TestOpenWhenRedisWentBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setupOn(t, uptest.Redis(t).URL())
	target := b.target(1)
	b.append(chunk(target, 0, buffer.ExpectNew, "a", "b", "c"))
	old := make(map[string]string)
	keys, err := b.rdb.Keys(ctx, "hp:{"+b.table+".0}:*").Result()
	require.NoError(t, err)
	for _, k := range keys {
		old[k] = b.rdb.Dump(ctx, k).Val()
	}
	b.append(chunk(target, 0, buffer.ExpectNew, "d", "e"))
	b.wms.set(b.place(0), table.ID{Epoch: 1, Seq: 5})
	for k, v := range old {
		require.NoError(t, b.rdb.RestoreReplace(ctx, k, 0, v).Err())
	}
	require.NoError(t, b.rdb.ScriptFlush(ctx).Err()) // as a restart does

	c := chunk(target, 0, buffer.ExpectNew, "f")
	b.append(c)
	require.NoError(t, c.Result().Err)
	require.Equal(t, table.ID{Epoch: 2, Seq: 6}, c.Result().First)
	frames, err := b.Frames(ctx, b.place(0), table.ID{Epoch: 1, Seq: 5}, 10, 1<<20)
	require.NoError(t, err)
	require.Len(t, frames, 1)
}
