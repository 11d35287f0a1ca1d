package buffer_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// peers is who is alive, and who was.
type peers struct {
	mu        sync.Mutex
	ids, dead []string
}

func (p *peers) List(context.Context) (alive, dead []string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ids), slices.Clone(p.dead), nil
}

// set who is alive; who was and is not is dead.
func (p *peers) set(ids ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range p.ids {
		if !slices.Contains(ids, id) {
			p.dead = append(p.dead, id)
		}
	}
	p.ids = ids
}

// process is one of several that share Redis and Postgres.
type process struct {
	*bundle
	stop func() // kills it: what it holds is gone
}

// keysOfLines: the first column is the key.
func keysOfLines(_ string, f *table.Frame) ([]string, error) {
	var keys []string
	for i := range f.Len() {
		keys = append(keys, string(table.ParseLine(f.Line(i))[0].Text))
	}
	return keys, nil
}

// together gives processes on one private Redis.
func together(t *testing.T, dir string, names ...string) (url string, alive *peers, all []*process) {
	t.Helper()
	url = uptest.Redis(t).URL()
	alive = &peers{ids: names}
	wms := &watermarks{ids: make(map[buffer.Place]buffer.Held), log: make(map[buffer.Place][]buffer.Recovery)}
	for _, name := range names {
		all = append(all, another(t, url, dir, name, alive, wms))
	}
	return url, alive, all
}

func another(t *testing.T, url, dir, name string, alive *peers, wms *watermarks) *process {
	t.Helper()
	rdb, err := buffer.Open(url)
	require.NoError(t, err)
	b, err := buffer.New(buffer.Config{
		Budget: 10 * time.Second, CallTimeout: 5 * time.Second, Process: name, Peers: alive,
		Memory: 64 << 20, Tally: dir, Keys: keysOfLines,
	}, rdb, wms, slog.New(slog.NewTextHandler(t.Output(), nil)).With("me", name))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	p := &process{bundle: &bundle{Buffer: b, t: t, rdb: rdb, wms: wms, table: "t"}}
	p.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, rdb.Close())
	})
	t.Cleanup(p.stop)
	return p
}

// lines of the log above an id, in order.
func (b *bundle) lines(after table.ID) (out []string) {
	b.t.Helper()
	frames, err := b.Frames(context.Background(), b.place(0), after, 1<<20, 1<<30)
	require.NoError(b.t, err)
	next := after.Seq + 1
	for _, f := range frames {
		require.Equal(b.t, next, f.First().Seq, "dense")
		next = f.Last.Seq + 1
		for i := range f.Len() {
			out = append(out, string(f.Line(i)))
		}
		if f.Lost > 0 {
			out = append(out, fmt.Sprintf("%d lost", f.Lost))
		}
	}
	return out
}

func put(target *buffer.Target, key, value string) *buffer.Chunk {
	c := &buffer.Chunk{Target: target, Columns: []byte("id\tv"), Accepted: time.Now().UnixMicro()}
	c.Add(table.OpPut, []byte(key+"\t"+value+"\n"), key, buffer.ExpectNothing)
	return c
}

// alternate writes n rows to one key, each through the next process.
func alternate(t *testing.T, all []*process, targets []*buffer.Target, from, n int) (lines []string) {
	t.Helper()
	for i := from; i < from+n; i++ {
		c := put(targets[i%len(all)], "k", strconv.Itoa(i))
		all[i%len(all)].append(c)
		require.NoError(t, c.Result().Err)
		lines = append(lines, fmt.Sprintf("k\t%d\n", i))
	}
	return lines
}

// TestEmptiedRedisGetsEverythingBack: while the processes live nothing is lost,
// and all comes back in the order in which it was accepted.
func TestEmptiedRedisGetsEverythingBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, _, all := together(t, "", "a", "b", "c")
	var targets []*buffer.Target
	for _, p := range all {
		targets = append(targets, p.target(1))
	}
	var want []string
	for round := range 3 {
		want = append(want, alternate(t, all, targets, 100*round, 20)...)
		require.NoError(t, all[0].rdb.FlushAll(ctx).Err())
		require.NoError(t, all[0].rdb.ScriptFlush(ctx).Err())
		want = append(want, alternate(t, all, targets, 100*round+20, 5)...)
		require.Equal(t, want, all[0].lines(table.ID{}))
		require.Equal(t, want[len(want)-1], string(all[1].get(0, "k").Line), "and is read")
	}
	for _, r := range all[0].wms.log[all[0].place(0)] {
		require.Zero(t, r.Lost)
		require.Positive(t, r.Replayed)
	}
}

// TestCommittedRowsDoNotComeBack: of what a process holds only that is put back
// which neither Postgres nor Redis has.
func TestCommittedRowsDoNotComeBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, _, all := together(t, "", "a", "b")
	targets := []*buffer.Target{all[0].target(1), all[1].target(1)}
	want := alternate(t, all, targets, 0, 10)
	all[0].wms.set(all[0].place(0), table.ID{Epoch: 1, Seq: 6}) // committed, and not settled
	require.NoError(t, all[0].rdb.FlushAll(ctx).Err())
	want = append(want, alternate(t, all, targets, 10, 1)...)
	require.Equal(t, want[6:], all[0].lines(table.ID{Epoch: 1, Seq: 6}))
	// Half of one call.
	c := chunk(targets[0], 0, buffer.ExpectNew)
	for i := range 1200 { // more than two frames
		c.Add(table.OpInsert, []byte(fmt.Sprintf("n%d\tx\n", i)), fmt.Sprintf("n%d", i), buffer.ExpectNew)
	}
	all[0].append(c)
	require.NoError(t, c.Result().Err)
	half := c.Result().First
	half.Seq += buffer.FrameRows - 1
	all[0].wms.set(all[0].place(0), half)
	require.NoError(t, all[0].rdb.FlushAll(ctx).Err())
	alternate(t, all, targets, 11, 1)
	got := all[0].lines(half)
	require.Len(t, got, 1200-buffer.FrameRows+1)
	require.Equal(t, fmt.Sprintf("n%d\tx\n", buffer.FrameRows), got[0])
}

// TestRestartLosesTheEnd: Redis comes back with the first part of what it had,
// as after a crash with appendfsync everysec.
func TestRestartLosesTheEnd(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	server := uptest.Redis(t)
	alive := &peers{ids: []string{"a", "b"}}
	wms := &watermarks{ids: make(map[buffer.Place]buffer.Held), log: make(map[buffer.Place][]buffer.Recovery)}
	all := []*process{another(t, server.URL(), "", "a", alive, wms), another(t, server.URL(), "", "b", alive, wms)}
	targets := []*buffer.Target{all[0].target(1), all[1].target(1)}
	want := alternate(t, all, targets, 0, 10)
	aof, err := filepath.Glob(filepath.Join(server.Dir(), "appendonlydir", "*.incr.aof"))
	require.NoError(t, err)
	require.Len(t, aof, 1)
	until, err := os.Stat(aof[0])
	require.NoError(t, err)
	want = append(want, alternate(t, all, targets, 10, 7)...)
	server.Kill()
	require.NoError(t, os.Truncate(aof[0], until.Size()))
	require.NoError(t, server.Restart(ctx))
	want = append(want, alternate(t, all, targets, 17, 3)...)
	require.Equal(t, want, all[0].lines(table.ID{}))
	require.EqualValues(t, 7, wms.log[all[0].place(0)][0].Replayed)
	require.Equal(t, "k\t19\n", string(all[0].get(0, "k").Line))
}

// TestRedisBehindPostgres: an old copy of Redis' data is restored. Rows accepted
// after it come after the watermark, and none of them is skipped.
func TestRedisBehindPostgres(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, _, all := together(t, "", "a")
	b := all[0]
	target := b.target(1)
	alternate(t, all, []*buffer.Target{target}, 0, 3)
	old := make(map[string]string)
	for _, key := range []string{"log", "meta"} {
		dump, err := b.rdb.Dump(ctx, "hp:{t.0}:"+key).Result()
		require.NoError(t, err)
		old["hp:{t.0}:"+key] = dump
	}
	alternate(t, all, []*buffer.Target{target}, 3, 3)
	b.settle(0, table.ID{Epoch: 1, Seq: 6})
	for key, dump := range old {
		require.NoError(t, b.rdb.RestoreReplace(ctx, key, 0, dump).Err())
	}
	require.NoError(t, b.rdb.ScriptFlush(ctx).Err()) // as a Redis that was started on them
	row := put(target, "k", "after")
	b.append(row)
	require.NoError(t, row.Result().Err)
	require.Equal(t, table.ID{Epoch: 2, Seq: 7}, row.Result().First)
	require.Equal(t, []string{"k\tafter\n"}, b.lines(table.ID{Epoch: 1, Seq: 6}))
	require.Equal(t, "k\tafter\n", string(b.get(0, "k").Line))
}

// TestLossIsCounted: a process died together with Redis.
func TestLossIsCounted(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	_, _, stranger := together(t, dir, "z") // of a database that was at the same address before
	alternate(t, stranger, []*buffer.Target{stranger[0].target(1)}, 0, 30)
	stranger[0].stop()
	url, alive, all := together(t, dir, "a", "b")
	targets := []*buffer.Target{all[0].target(1), all[1].target(1)}
	alternate(t, all, targets, 0, 11) // a has the last
	all[0].wms.set(all[0].place(0), table.ID{Epoch: 1, Seq: 3})
	all[0].stop()
	alive.set("b", "c")
	c := another(t, url, dir, "c", alive, all[1].wms)
	require.NoError(t, c.rdb.FlushAll(ctx).Err())
	target := c.target(1)
	row := put(target, "k", "after")
	c.append(row)
	require.NoError(t, row.Result().Err)
	require.Equal(t, []string{"k\t3\n", "k\t5\n", "k\t7\n", "k\t9\n", "4 lost", "k\tafter\n"}, c.lines(table.ID{Epoch: 1, Seq: 3}),
		"seqs 5, 7, 9 and 11 were those of the dead process")
	r := c.wms.log[c.place(0)][0]
	require.EqualValues(t, 4, r.Lost)
	files := func() []string {
		all, err := filepath.Glob(filepath.Join(dir, "*"))
		require.NoError(t, err)
		return all
	}
	require.Len(t, files(), 4, "of a, b and c, and of the stranger")
	require.NoError(t, c.ForgetDead(ctx))
	require.Len(t, files(), 4, "what a had acknowledged is not settled")
	c.settle(0, table.ID{Epoch: 2, Seq: 12})
	require.NoError(t, c.ForgetDead(ctx))
	require.Len(t, files(), 3, "that of the dead process is of no use any more")
	require.EqualValues(t, []uint64{4, 11}, []uint64{r.From, r.To})
}

// TestWaitsForEveryProcess: nobody writes before all that are alive have given
// back what they hold, and one that does not come is not waited for once it is
// known to be dead.
func TestWaitsForEveryProcess(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, alive, all := together(t, "", "a")
	target := all[0].target(1)
	alternate(t, all, []*buffer.Target{target}, 0, 3)
	alive.set("a", "b")
	require.NoError(t, all[0].rdb.FlushAll(ctx).Err())
	row := put(target, "k", "after")
	done := make(chan struct{})
	go func() { defer close(done); all[0].append(row) }()
	require.Eventually(t, func() bool {
		n, err := all[0].rdb.HLen(ctx, "hp:{t.0}:joined").Result()
		return err == nil && n == 1
	}, 10*time.Second, time.Millisecond)
	tails, err := all[0].Tails(ctx, []buffer.Place{all[0].place(0)})
	require.NoError(t, err)
	require.True(t, tails[0].Closed)
	select {
	case <-done:
		t.Fatal("a row was accepted before b came")
	default:
	}
	alive.set("a")
	<-done
	require.NoError(t, row.Result().Err)
	require.Len(t, all[0].lines(table.ID{}), 4)
}

// TestMarksSurvive: a request that was done before Redis lost everything is not
// done again, whether its rows were committed or not.
func TestMarksSurvive(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, _, all := together(t, "", "a")
	target := all[0].target(1)
	marked := func(name string) *buffer.Chunk {
		c := put(target, name, "x")
		c.Mark("mark of "+name, "answer")
		all[0].append(c)
		require.NoError(t, c.Result().Err)
		return c
	}
	marked("committed")
	all[0].settle(0, table.ID{Epoch: 1, Seq: 1})
	require.Eventually(t, func() bool { return !all[0].Holds() }, 10*time.Second, time.Millisecond)
	marked("pending")
	require.NoError(t, all[0].rdb.FlushAll(ctx).Err())
	for _, name := range []string{"committed", "pending"} {
		again := marked(name)
		require.Len(t, again.Result().Replays, 1, name)
		require.Equal(t, "answer", again.Result().Replays[0].Value)
	}
	require.Equal(t, []string{"pending\tx\n"}, all[0].lines(table.ID{Epoch: 1, Seq: 1}))
}

// TestTornLog: frames are gone from the middle of the log. What is left of it and
// what the processes hold make it whole, in order.
func TestTornLog(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, alive, all := together(t, "", "a", "b")
	targets := []*buffer.Target{all[0].target(1), all[1].target(1)}
	want := alternate(t, all, targets, 0, 12)
	all[1].stop() // what it holds is only in the log
	alive.set("a")
	require.NoError(t, all[0].rdb.XDel(ctx, "hp:{t.0}:log", "1-5", "1-7").Err()) // of a
	require.NoError(t, all[0].Reopen(ctx, all[0].place(0), 1))
	row := put(targets[0], "k", "after")
	all[0].append(row)
	require.NoError(t, row.Result().Err)
	require.Equal(t, append(want, "k\tafter\n"), all[0].lines(table.ID{}))
	require.Equal(t, "k\tafter\n", string(all[0].get(0, "k").Line))
}

// TestRewind: Postgres went back. The log is flushed again from there, and reads
// come from the log, not from rows that Postgres has no more.
func TestRewind(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, _, all := together(t, "", "a")
	b := all[0]
	target := b.target(1)
	b.append(chunk(target, 0, buffer.ExpectNothing, "x", "y"))
	b.append(chunk(target, 0, buffer.ExpectNothing, "z"))
	b.settle(0, table.ID{Epoch: 1, Seq: 3})
	f, err := b.Get(ctx, b.place(0), "other", true)
	require.NoError(t, err)
	ok, err := b.Fill(ctx, b.place(0), "other", f.Lease, lineOf("other\tnew\n"), minute)
	require.NoError(t, err)
	require.True(t, ok)
	b.wms.set(b.place(0), table.ID{Epoch: 1, Seq: 2})
	require.NoError(t, b.Reopen(ctx, b.place(0), 0))
	require.Equal(t, "z\tvalue of z\n", string(b.get(0, "z").Line))
	require.False(t, b.get(0, "z").Committed)
	require.Equal(t, buffer.Miss, b.get(0, "other").Source, "it may be newer than Postgres")
	require.Len(t, b.lines(table.ID{Epoch: 1, Seq: 2}), 1)

	// Further back than the log is kept.
	b.settle(0, table.ID{Epoch: 1, Seq: 3})
	require.NoError(t, b.rdb.XTrimMinID(ctx, "hp:{t.0}:log", "1-3").Err())
	b.wms.set(b.place(0), table.ID{Epoch: 1, Seq: 1})
	var gap *buffer.DataGap
	require.ErrorAs(t, b.Reopen(ctx, b.place(0), 0), &gap)
	require.EqualValues(t, []uint64{1, 3}, []uint64{gap.Have, gap.Next})
}

// TestMemoryIsBounded: a process that can keep no more refuses, and goes on when
// what it holds is committed.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	rdb, err := buffer.Open(uptest.SharedRedis(t).URL())
	require.NoError(t, err)
	wms := &watermarks{ids: make(map[buffer.Place]buffer.Held), log: make(map[buffer.Place][]buffer.Recovery)}
	buf, err := buffer.New(buffer.Config{Process: "a", Memory: 20_000}, rdb, wms, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- buf.Run(ctx) }()
	defer func() { stop(); require.NoError(t, <-done); require.NoError(t, rdb.Close()) }()
	b := &bundle{Buffer: buf, t: t, rdb: rdb, wms: wms, table: t.Name()}
	target := b.target(1)
	var last table.ID
	var full *buffer.BacklogFull
	for i := range 1000 {
		c := put(target, "k", strconv.Itoa(i))
		if err := b.Append(ctx, c); err != nil {
			require.ErrorAs(t, err, &full)
			break
		}
		last = c.Result().Last()
	}
	require.NotNil(t, full)
	require.Equal(t, buffer.CapHeld, full.Cap)
	b.settle(0, last)
	require.Eventually(t, func() bool { return b.Append(ctx, put(target, "k", "again")) == nil }, 10*time.Second, time.Millisecond)
}

// TestRestartWhileClosed: Redis is restarted again while the epoch of the restart
// before is still closed. A write whose answer was lost is known all the same, and
// not done twice; where Redis had lost rows before, nobody knows what became of it.
func TestRestartWhileClosed(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"restart", "behind"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			r := uptest.Redis(t)
			w, through := newWire(t, r.URL())
			alive := &peers{ids: []string{"a", "b"}}
			wms := &watermarks{ids: make(map[buffer.Place]buffer.Held), log: make(map[buffer.Place][]buffer.Recovery)}
			straight := another(t, r.URL(), "", "b", alive, wms)
			a := another(t, through, "", "a", alive, wms)
			target := a.target(1)
			straight.append(put(straight.target(1), "k", "before"))
			place, meta := a.place(0), "hp:{t.0}:meta"
			restart := func() {
				require.NoError(t, straight.rdb.HSet(ctx, meta, "run", "another").Err())
				require.NoError(t, straight.rdb.ScriptFlush(ctx).Err())
			}
			alive.set("a", "b", "c")
			w.set(func() { w.losing = true })
			c := put(target, "k", "after")
			done := make(chan struct{})
			go func() { defer close(done); a.append(c) }()
			require.Eventually(t, func() bool { return len(straight.lines(table.ID{})) == 2 }, 20*time.Second, time.Millisecond)
			if first == "behind" { // it is flushed, and an older copy of Redis comes back
				wms.set(place, table.ID{Epoch: 1, Seq: 2})
				require.NoError(t, straight.rdb.XDel(ctx, "hp:{t.0}:log", "1-2").Err())
				require.NoError(t, straight.rdb.HSet(ctx, meta, "seq", 1).Err())
			}
			restart()
			closed := func(epoch uint64) func() bool {
				return func() bool {
					tails, err := straight.Tails(ctx, []buffer.Place{place})
					return err == nil && tails[0].Closed && tails[0].Last.Epoch >= epoch
				}
			}
			require.Eventually(t, closed(2), 20*time.Second, time.Millisecond)
			restart()
			opening, stop := context.WithTimeout(ctx, 20*time.Second)
			defer stop()
			newcomer := another(t, r.URL(), "", "d", alive, wms)
			go func() { _ = newcomer.OpenPlaces(opening, []buffer.Place{place}) }()
			require.Eventually(t, closed(3), 20*time.Second, time.Millisecond)
			w.set(func() { w.losing = false })
			alive.set("a", "b")
			<-done
			if first == "behind" {
				require.ErrorIs(t, c.Result().Err, buffer.ErrOutcomeUnknown)
				return
			}
			require.NoError(t, c.Result().Err)
			require.Equal(t, table.ID{Epoch: 1, Seq: 2}, c.Result().First)
			require.Equal(t, []string{"k\tbefore\n", "k\tafter\n"}, straight.lines(table.ID{}))
		})
	}
}
