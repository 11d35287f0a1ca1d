package buffer_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// one is a chunk of one row.
func one(t *buffer.Target, op table.Op, key, value string, on buffer.Basis) *buffer.Chunk {
	c := &buffer.Chunk{Target: t, Columns: []byte("id\tv"), Accepted: time.Now().UnixMicro()}
	c.AddOn(op, []byte(key+"\t"+value+"\n"), key, on)
	return c
}

func (b *bundle) refused(c *buffer.Chunk) bool {
	b.t.Helper()
	b.append(c)
	require.NoError(b.t, c.Result().Err)
	return len(c.Result().Failed) > 0
}

// TestBasis: a row on a basis counts only while nothing was written to its key
// since: neither a write, nor a delete, nor a write that is committed and gone
// from the index.
func TestBasis(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(1)
	read := func(key string) buffer.Basis {
		f, err := b.Get(t.Context(), b.place(0), key, true)
		require.NoError(t, err)
		return f.Basis()
	}
	last := func() table.ID {
		tails, err := b.Tails(t.Context(), []buffer.Place{b.place(0)})
		require.NoError(t, err)
		return tails[0].Last
	}
	ways := map[string]func(){
		"a write":  func() { b.append(chunk(target, 0, buffer.ExpectNothing, "k")) },
		"a delete": func() { b.append(one(target, table.OpDelete, "k", "x", read("k"))) },
		"a write that was committed": func() {
			b.append(chunk(target, 0, buffer.ExpectNothing, "k"))
			b.settle(0, last())
		},
	}
	starts := map[string]func() buffer.Basis{
		"a lease": func() buffer.Basis { return read("k") },
		"a row of the log": func() buffer.Basis {
			b.append(chunk(target, 0, buffer.ExpectNothing, "k"))
			return read("k")
		},
		"a clean row": func() buffer.Basis {
			f, err := b.Get(t.Context(), b.place(0), "k", true)
			require.NoError(t, err)
			ok, err := b.Fill(t.Context(), b.place(0), "k", f.Lease, lineOf("k\tloaded\n"), minute)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, buffer.Clean, b.get(0, "k").Source)
			return read("k")
		},
	}
	for start, basis := range starts {
		on := basis()
		require.False(t, b.refused(one(target, table.OpPatch, "k", "mine", on)), "on %s, with nothing between", start)
		require.True(t, b.refused(one(target, table.OpPatch, "k", "mine", on)), "on %s, after its own first write", start)
		b.settle(0, last()) // the next start finds nothing in the index
		for way, write := range ways {
			on := basis()
			if way == "a delete" && start == "a lease" {
				continue // one that reads takes another's lease away, or waits for it
			}
			write()
			before := last()
			require.True(t, b.refused(one(target, table.OpPatch, "k", "mine", on)), "on %s, after %s", start, way)
			require.Equal(t, before, last(), "a refusal writes nothing")
			b.settle(0, last())
		}
	}
	for _, start := range []string{"a row of the log", "a clean row"} {
		on := starts[start]()
		twice := one(target, table.OpPatch, "k", "mine", on)
		twice.AddOn(table.OpPatch, []byte("k\talso mine\n"), "k", on)
		b.append(twice)
		require.Equal(t, []int{1}, twice.Result().Failed, "twice in one call on %s", start)
		b.settle(0, last())
	}
	// The clean row that was read is gone, and another is there.
	on := starts["a clean row"]()
	require.NoError(t, b.rdb.Del(t.Context(), "hp:{"+b.table+".0}:row:k").Err())
	f, err := b.Get(t.Context(), b.place(0), "k", true)
	require.NoError(t, err)
	ok, err := b.Fill(t.Context(), b.place(0), "k", f.Lease, lineOf("k\tanother\n"), minute)
	require.NoError(t, err)
	require.True(t, ok)
	require.True(t, b.refused(one(target, table.OpPatch, "k", "mine", on)), "on a clean row, after it was loaded again")
}

// TestDeletesInTheIndex: a deleted key reads as deleted, is absent for who
// expects that, and its id is a basis.
func TestDeletesInTheIndex(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(1)
	b.append(chunk(target, 0, buffer.ExpectAbsent, "k", "other"))
	gone := one(target, table.OpDelete, "k", "x", b.get(0, "k").Basis())
	require.False(t, b.refused(gone))
	f := b.get(0, "k")
	require.Equal(t, buffer.Dirty, f.Source)
	require.Equal(t, gone.Result().First, f.ID)
	known, err := b.Known(t.Context(), b.place(0), []string{"k", "other", "never"})
	require.NoError(t, err)
	require.Equal(t, []bool{false, true, false}, known)
	on := f.Basis()
	require.False(t, b.refused(chunk(target, 0, buffer.ExpectAbsent, "k")), "a deleted key is absent")
	require.True(t, b.refused(one(target, table.OpPut, "k", "late", on)), "it was written since the delete")
	require.True(t, b.refused(chunk(target, 0, buffer.ExpectAbsent, "k")))
}

// TestMarks: a row whose mark is there is not appended again, whoever sends it:
// in the same call, another one, or another process after a restart.
func TestMarks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(1)
	marked := func(key, name, value string) *buffer.Chunk {
		c := chunk(target, 0, buffer.ExpectNothing, key)
		c.Mark(name, value)
		return c
	}
	first := marked("k", "m", "answer 1")
	b.append(first)
	require.Empty(t, first.Result().Replays)
	again := marked("other", "m", "answer 2")
	b.append(again)
	require.Equal(t, buffer.Replay{ID: first.Result().First, Value: "answer 1"}, again.Result().Replays[0])
	require.Equal(t, buffer.Miss, b.get(0, "other").Source, "nothing of it is appended")
	there, err := b.Marked(t.Context(), b.place(0), []string{"n", "m"})
	require.NoError(t, err)
	require.Len(t, there, 1)
	require.Contains(t, there["m"], "answer 1")
	there, err = b.Marked(t.Context(), b.place(0), []string{"n"})
	require.NoError(t, err)
	require.Empty(t, there)

	// Many at once under few names: each name counts once, the others are told.
	var wg sync.WaitGroup
	chunks := make([]*buffer.Chunk, 200)
	for i := range chunks {
		chunks[i] = marked(fmt.Sprint("many", i), fmt.Sprint("name", i%20), fmt.Sprint("by ", i))
		wg.Go(func() {
			if err := b.Append(context.Background(), chunks[i]); err != nil || chunks[i].Result().Err != nil {
				t.Error(err, chunks[i].Result().Err)
			}
		})
	}
	wg.Wait()
	owners := make(map[string]int)
	for i, c := range chunks {
		if _, replayed := c.Result().Replays[0]; !replayed {
			owners[fmt.Sprint("name", i%20)]++
			require.Equal(t, buffer.Dirty, b.get(0, fmt.Sprint("many", i)).Source)
			continue
		}
		require.Equal(t, buffer.Miss, b.get(0, fmt.Sprint("many", i)).Source)
	}
	require.Len(t, owners, 20)
	for name, n := range owners {
		require.Equal(t, 1, n, name)
	}
	tails, err := b.Tails(t.Context(), []buffer.Place{b.place(0)})
	require.NoError(t, err)
	require.EqualValues(t, 21, tails[0].Last.Seq)
}

// TestMarkOfAChunk: its rows, and those of them that were refused, are told
// again as they were.
func TestMarkOfAChunk(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(1)
	b.append(chunk(target, 0, buffer.ExpectAbsent, "taken"))
	send := func() *buffer.Chunk {
		c := chunk(target, 0, buffer.ExpectAbsent, "a", "taken", "b")
		c.MarkWhole("m", "note")
		b.append(c)
		require.NoError(t, c.Result().Err)
		return c
	}
	first, again := send(), send()
	require.Equal(t, []int{1}, first.Result().Failed)
	require.Empty(t, first.Result().Replays)
	require.Equal(t, first.Result().First, again.Result().First)
	require.Equal(t, first.Result().Failed, again.Result().Failed)
	require.Equal(t, 2, first.Result().Rows)
	require.Equal(t, "note", again.Result().Replays[0].Value)
}

// TestMarksAreKept: a generation of marks goes as a whole, after another has
// become full; no mark has a TTL that could go before the row it speaks of.
func TestMarksAreKept(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(1)
	const parts = 125_000 // share a million: a generation has eight
	claim := func(name, sum string) string {
		got, err := b.Claim(t.Context(), b.place(0), parts, name, sum)
		require.NoError(t, err)
		return got
	}
	require.Equal(t, "1", claim("first", "1"))
	require.Equal(t, "1", claim("first", "2"), "the first sum is kept")
	for i := range 7 {
		claim(fmt.Sprint("fill", i), "1")
	}
	require.Equal(t, "1", claim("first", "2"))
	claim("second", "1") // begins a generation
	c := chunk(target, 0, buffer.ExpectNothing, "k")
	c.Mark("of a row", "answer")
	b.append(c)
	require.Empty(t, c.Result().Replays)
	for i := range 5 {
		claim(fmt.Sprint("second", i), "1")
		require.Equal(t, "1", claim("first", "2"), "its generation is the one before")
	}
	claim("second-last", "1")
	claim("third", "1")
	c = chunk(target, 0, buffer.ExpectNothing, "k")
	c.Mark("of a row", "another")
	b.append(c)
	require.Equal(t, "answer", c.Result().Replays[0].Value, "its generation is the one before")
	require.Equal(t, "2", claim("first", "2"), "two generations later it is forgotten")
	keys, err := b.rdb.Keys(t.Context(), "hp:{"+b.table+".0}:marks:*").Result()
	require.NoError(t, err)
	require.LessOrEqual(t, len(keys), 2)
	for _, k := range keys {
		require.EqualValues(t, -1, b.rdb.TTL(t.Context(), k).Val(), k)
	}
}

// TestGetMany answers as Get does, also when Redis has forgotten the scripts.
func TestGetMany(t *testing.T) {
	t.Parallel()
	b := setupOn(t, uptest.Redis(t).URL())
	target := b.target(2)
	b.append(chunk(target, 0, buffer.ExpectAbsent, "a"), chunk(target, 1, buffer.ExpectAbsent, "b"))
	asked := []buffer.Asked{{Place: b.place(0), Key: "a"}, {Place: b.place(1), Key: "b"}, {Place: b.place(1), Key: "a"}}
	for range 2 {
		found, errs := b.GetMany(t.Context(), asked)
		for i, want := range []buffer.Source{buffer.Dirty, buffer.Dirty, buffer.Miss} {
			require.NoError(t, errs[i])
			require.Equal(t, want, found[i].Source, asked[i].Key)
		}
		require.True(t, strings.HasPrefix(string(found[1].Line), "b\t"))
		require.NoError(t, b.rdb.ScriptFlush(t.Context()).Err())
	}
}
