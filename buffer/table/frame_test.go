package table

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
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

// Traces come back as they were, whatever is cut out, and a frame of rows that
// nobody samples lies in the log as it always did.
func TestFrameTraces(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var f Frame
		want := make([]Span, rapid.IntRange(1, 40).Draw(t, "rows"))
		for i := range want {
			f.Add(OpInsert, 1764000000123456, fmt.Appendf(nil, "row %d\n", i))
			if n := byte(rapid.IntRange(0, 3).Draw(t, "request")); n > 0 {
				want[i] = Span{Trace: [16]byte{0: n, 15: 0xff}, Span: [8]byte{0: 1, 7: n}}
				f.Trace(want[i])
			}
		}
		f.Last = ID{Epoch: 1, Seq: 1000}
		base, traces, err := ParseTime(f.Time())
		require.NoError(t, err)
		require.Equal(t, f.Base, base)
		require.Equal(t, f.Traces, traces)
		to := rapid.IntRange(1, len(want)).Draw(t, "to")
		from := rapid.IntRange(0, to-1).Draw(t, "from")
		for i, part := from, f.Cut(from, to); i < to; i++ {
			require.Equal(t, want[i], f.Traced(i))
			require.Equal(t, want[i], part.Traced(i-from))
		}
	})
	f := &Frame{}
	f.Add(OpInsert, 1764000000123456, []byte("a\n"))
	require.Equal(t, "1764000000123456", f.Time())
	f.Trace(Span{Trace: [16]byte{1}, Span: [8]byte{2}})
	require.Equal(t, "1764000000123456 \x00\x01\x01"+strings.Repeat("\x00", 15)+"\x02"+strings.Repeat("\x00", 7), f.Time())
	for _, bad := range []string{"", "x", "1 ", "1 \x00", "1 \x00\x00" + f.Time()[19:], f.Time()[:40], f.Time() + "0", f.Time() + "\x00\xff\xff\xff\x7f" + f.Time()[19:]} {
		_, _, err := ParseTime(bad)
		require.ErrorIs(t, err, ErrCorruptFrame, bad)
	}
}
