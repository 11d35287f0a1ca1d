package buffer_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
)

// TestWrongTypeIsAnAlarm: somebody else has written to a key of ours. The script
// fails, is not repeated, and is counted; nobody says that nothing was applied.
func TestWrongTypeIsAnAlarm(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(1)
	require.NoError(t, b.rdb.Set(context.Background(), "hp:{"+b.table+".0}:dirty:1", "not ours", 0).Err())
	c := chunk(target, 0, buffer.ExpectNothing, "a")
	b.append(c)
	require.ErrorContains(t, c.Result().Err, "WRONGTYPE")
	require.NotErrorIs(t, c.Result().Err, buffer.ErrUnavailable)
	require.EqualValues(t, 1, b.Counters().Broken.Load())
}
