package table

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFrameGivesBackItsRows(t *testing.T) {
	t.Parallel()
	var f Frame
	f.Columns = []byte("id")
	start := time.Now().UnixMicro()
	for i := range 300 {
		f.Add(OpInsert, start+int64(i)*1000, fmt.Appendf(nil, "row %d\n", i))
	}
	f.Last = ID{Epoch: 2, Seq: 1000}
	require.NoError(t, f.Check())
	require.Equal(t, 300, f.Len())
	require.Equal(t, ID{Epoch: 2, Seq: 701}, f.First())
	for i := range 300 {
		require.Equal(t, fmt.Sprintf("row %d\n", i), string(f.Line(i)))
		require.Equal(t, start+int64(i)*1000, f.Accepted(i).UnixMicro())
		require.Equal(t, OpInsert, f.Op(i))
	}
	require.Equal(t, "row 7\nrow 8\n", string(f.Lines(7, 9)))
	require.Empty(t, f.Lines(0, 0))
	f.Add(OpInsert, start+time.Hour.Microseconds(), []byte("late\n"))
	require.Equal(t, 65535*time.Millisecond, f.Accepted(300).Sub(f.Accepted(0)), "saturates")
}

func TestFrameCheckFindsDamage(t *testing.T) {
	t.Parallel()
	make := func() *Frame {
		f := &Frame{Columns: []byte("id")}
		f.Add(OpInsert, 1, []byte("a\n"))
		f.Add(OpInsert, 1, []byte("b\n"))
		f.Last = ID{Epoch: 1, Seq: 2}
		return f
	}
	require.NoError(t, make().Check())
	for name, damage := range map[string]func(*Frame){
		"no rows":          func(f *Frame) { f.Heads = nil },
		"half a head":      func(f *Frame) { f.Heads = f.Heads[:12] },
		"seq too small":    func(f *Frame) { f.Last.Seq = 1 },
		"data cut":         func(f *Frame) { f.Data = f.Data[:3] },
		"data too long":    func(f *Frame) { f.Data = append(f.Data, "c\n"...) },
		"no newline":       func(f *Frame) { f.Data[1] = 'x' },
		"newline in a row": func(f *Frame) { f.Data[2] = '\n' },
	} {
		f := make()
		damage(f)
		require.ErrorIs(t, f.Check(), ErrCorruptFrame, name)
	}
}

// The partition of a key is fixed for ever: rows in flight depend on it.
func TestPartitionIsFixed(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]int{
		"": 4, "1": 5, "2": 4, "42": 4, "0190a6c1-7b3e-7cc8-9f57-3f6cdd3a2f10": 6, "a,b": 0,
	} {
		require.Equal(t, want, Partition([]byte(key), 8), key)
		for i := range len(key) {
			require.Equal(t, want, Prefix([]byte(key[:i])).Partition([]byte(key[i:]), 8))
		}
	}
	counts := make([]int, 8)
	for i := range 80_000 {
		counts[Partition(fmt.Append(nil, i), 8)]++
	}
	for _, n := range counts {
		require.InDelta(t, 10_000, n, 1000, "%v", counts)
	}
}

func TestParseID(t *testing.T) {
	t.Parallel()
	id, err := ParseID("3-871")
	require.NoError(t, err)
	require.Equal(t, ID{Epoch: 3, Seq: 871}, id)
	require.Equal(t, "3-871", id.String())
	for _, bad := range []string{"", "1", "1-", "-1", "a-1", "1-2-3", "1--2"} {
		_, err := ParseID(bad)
		require.Error(t, err, bad)
	}
	require.True(t, ID{2, 1}.After(ID{1, 9}))
	require.True(t, ID{1, 2}.After(ID{1, 1}))
	require.False(t, ID{1, 1}.After(ID{1, 1}))
}
