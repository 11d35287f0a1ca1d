package buffer_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// TestUnreplicatedLogIsKept: what a failover of Postgres may take back is not
// trimmed, however old or large, until a later commit is sure.
func TestUnreplicatedLogIsKept(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	target := b.target(1)
	settle := func(seq uint64, unreplicated bool) {
		_, err := b.Settle(ctx, []buffer.Settlement{{
			Place: b.place(0), Watermark: table.ID{Epoch: 1, Seq: seq}, Committed: time.Now(), Unreplicated: unreplicated,
		}})
		require.NoError(t, err)
	}
	length := func() int64 { return b.rdb.XLen(ctx, "hp:{"+b.table+".0}:log").Val() }
	for _, key := range []string{"a", "b", "c", "d"} {
		b.append(chunk(target, 0, buffer.ExpectNew, key))
	}
	settle(1, false)
	require.EqualValues(t, 3, length(), "nothing is retained here")
	settle(2, true)
	settle(3, true)
	require.EqualValues(t, 3, length())
	require.True(t, b.get(0, "b").Committed, "readers are told all the same")
	settle(3, false) // tidy, of any process: no commit
	settle(3, false)
	require.EqualValues(t, 3, length())
	settle(4, false)
	require.Zero(t, length())
}
