package buffer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

func TestMain(m *testing.M) {
	uptest.Main(m, goleak.IgnoreTopFunction("github.com/redis/go-redis/v9/maintnotifications.(*CircuitBreakerManager).cleanupLoop"))
}

// watermarks stands in for Postgres: it only remembers.
type watermarks struct {
	mu   sync.Mutex
	fail error
	ids  map[buffer.Place]buffer.Held
	log  map[buffer.Place][]buffer.Recovery
}

func (w *watermarks) Record(_ context.Context, r buffer.Recovery) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.ContainsFunc(w.log[r.Place], func(o buffer.Recovery) bool { return o.Epoch == r.Epoch }) {
		w.log[r.Place] = append(w.log[r.Place], r)
	}
	return w.fail
}

func (w *watermarks) Recorded(_ context.Context, p buffer.Place, after uint64) (out []buffer.Recovery, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.log[p] {
		if r.Epoch > after {
			out = append(out, r)
		}
	}
	return out, w.fail
}

func (w *watermarks) Hold(_ context.Context, places []buffer.Place, open func(buffer.Place, buffer.Held) (buffer.Opening, error)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return w.fail
	}
	for _, p := range places {
		h := w.ids[p]
		o, err := open(p, h)
		if err != nil {
			return err
		}
		h.Opened = max(h.Opened, o.Epoch)
		w.ids[p] = h
	}
	return nil
}

func (w *watermarks) set(p buffer.Place, id table.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.ids[p]
	h.Watermark = id
	w.ids[p] = h
}

var tables atomic.Int32 // so far

type bundle struct {
	*buffer.Buffer
	t     *testing.T
	rdb   redis.UniversalClient
	wms   *watermarks
	table string
}

// setup gives a running buffer on a shared Redis, with a table of its own.
func setup(t *testing.T) *bundle {
	t.Helper()
	return setupOn(t, uptest.SharedRedis(t).URL())
}

func setupOn(t *testing.T, url string) *bundle {
	t.Helper()
	rdb, err := buffer.Open(url)
	require.NoError(t, err)
	wms := &watermarks{ids: make(map[buffer.Place]buffer.Held), log: make(map[buffer.Place][]buffer.Recovery)}
	b, err := buffer.New(buffer.Config{Budget: 3 * time.Second, CallTimeout: time.Second, Process: "p", Memory: 64 << 20}, rdb, wms, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
		require.NoError(t, rdb.Close())
	})
	return &bundle{Buffer: b, t: t, rdb: rdb, wms: wms, table: strings.ReplaceAll(t.Name(), "/", "_") + strconv.Itoa(int(tables.Add(1)))}
}

func (b *bundle) target(partitions int) *buffer.Target {
	b.t.Helper()
	var places []buffer.Place
	for p := range partitions {
		places = append(places, b.place(p))
	}
	require.NoError(b.t, b.OpenPlaces(context.Background(), places))
	return &buffer.Target{Table: b.table, Partitions: partitions, Index: true, MaxRows: 1 << 40, MaxBytes: 1 << 40}
}

func (b *bundle) place(p int) buffer.Place { return buffer.Place{Table: b.table, Partition: p} }

func chunk(t *buffer.Target, partition int, expect buffer.Expect, keys ...string) *buffer.Chunk {
	c := &buffer.Chunk{Target: t, Partition: partition, Columns: []byte("id\tv"), Accepted: time.Now().UnixMicro()}
	for _, k := range keys {
		c.Add(table.OpInsert, []byte(k+"\tvalue of "+k+"\n"), k, expect)
	}
	return c
}

func lineOf(line string) buffer.Row { return buffer.Row{Columns: []byte("id\tv"), Line: []byte(line)} }

var minute = buffer.Life{TTL: time.Minute}

func (b *bundle) append(c ...*buffer.Chunk) {
	b.t.Helper()
	require.NoError(b.t, b.Append(context.Background(), c...))
}

func (b *bundle) get(p int, key string) *buffer.Found {
	b.t.Helper()
	f, err := b.Get(context.Background(), b.place(p), key, false)
	require.NoError(b.t, err)
	return f
}

func (b *bundle) settle(p int, wm table.ID, dead ...buffer.DeadRow) buffer.Tail {
	b.t.Helper()
	b.wms.set(b.place(p), wm)
	now := time.Now()
	tails, err := b.Settle(context.Background(), []buffer.Settlement{{
		Place: b.place(p), Watermark: wm, Committed: now, Picked: now, Copied: now,
		Dead: dead, Retain: time.Hour, RetainBytes: 1 << 30,
	}})
	require.NoError(b.t, err)
	return tails[0]
}

func TestAppendThenGet(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(1)
	c := chunk(target, 0, buffer.ExpectAbsent, "a", "b", "c")
	b.append(c)
	require.NoError(t, c.Result().Err)
	require.Equal(t, table.ID{Epoch: 1, Seq: 1}, c.Result().First)
	require.Equal(t, table.ID{Epoch: 1, Seq: 3}, c.Result().Last())
	f := b.get(0, "b")
	require.Equal(t, buffer.Dirty, f.Source)
	require.False(t, f.Committed)
	require.Equal(t, "b\tvalue of b\n", string(f.Line))
	require.Equal(t, "id\tv", string(f.Columns))
	require.Equal(t, table.ID{Epoch: 1, Seq: 2}, f.ID)
	require.WithinDuration(t, time.Now(), f.Accepted, 5*time.Second)
	require.Equal(t, buffer.Miss, b.get(0, "z").Source)
}

func TestSeqIsDense(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(4)
	var wg sync.WaitGroup
	const writers, each = 32, 40
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				c := chunk(target, (w+i)%4, buffer.ExpectNew, fmt.Sprintf("k%d-%d", w, i))
				if err := b.Append(context.Background(), c); err != nil || c.Result().Err != nil {
					t.Error(err, c.Result().Err)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for p := range 4 {
		frames, err := b.Frames(context.Background(), b.place(p), table.ID{Epoch: 1}, 1<<20, 1<<30)
		require.NoError(t, err)
		next := uint64(1)
		for _, f := range frames {
			require.Equal(t, next, f.First().Seq)
			next = f.Last.Seq + 1
			total += f.Len()
		}
	}
	require.Equal(t, writers*each, total)
}

func TestAppendRefusedWhole(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(1)
	b.append(chunk(target, 0, buffer.ExpectAbsent, "taken"))

	atomic := chunk(target, 0, buffer.ExpectAbsent, "x", "taken", "y")
	atomic.Atomic = true
	b.append(atomic)
	require.Equal(t, []int{1}, atomic.Result().Failed)
	require.Zero(t, atomic.Result().Rows)
	require.Equal(t, buffer.Miss, b.get(0, "x").Source)

	lenient := chunk(target, 0, buffer.ExpectAbsent, "x", "taken", "y", "x")
	b.append(lenient)
	require.Equal(t, []int{1, 3}, lenient.Result().Failed, "a key twice in one call exists the second time")
	require.Equal(t, 2, lenient.Result().Rows)
	require.Equal(t, table.ID{Epoch: 1, Seq: 2}, lenient.Result().First)
	require.Equal(t, buffer.Dirty, b.get(0, "y").Source)
}

func TestBacklogFull(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(1)
	target.MaxRows = 2
	b.append(chunk(target, 0, buffer.ExpectAbsent, "a", "b"))
	c := chunk(target, 0, buffer.ExpectAbsent, "c")
	b.append(c)
	var full *buffer.BacklogFull
	require.ErrorAs(t, c.Result().Err, &full)
	require.EqualValues(t, 2, full.Rows)
	b.settle(0, table.ID{Epoch: 1, Seq: 2})
	c = chunk(target, 0, buffer.ExpectAbsent, "c")
	b.append(c)
	require.NoError(t, c.Result().Err)
}

func TestGenerationsDropOnlyWhenCommitted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(1)
	const rows = 20_000 // more than two generations
	for from := 0; from < rows; from += 2000 {
		var keys []string
		for i := range 2000 {
			keys = append(keys, fmt.Sprint(from+i))
		}
		b.append(chunk(target, 0, buffer.ExpectNew, keys...))
	}
	gens := func() int {
		keys, err := b.rdb.Keys(context.Background(), "hp:{"+b.table+".0}:dirty:*").Result()
		require.NoError(t, err)
		return len(keys)
	}
	before := gens()
	require.Greater(t, before, 1)
	b.settle(0, table.ID{Epoch: 1, Seq: 9999})
	require.Equal(t, before, gens(), "the last row of the first generation is not committed")
	require.Equal(t, buffer.Dirty, b.get(0, "9999").Source)
	b.settle(0, table.ID{Epoch: 1, Seq: 10_000})
	require.Less(t, gens(), before, "what is committed goes")
	for _, i := range []int{10_000, 15_000, rows - 1} {
		f := b.get(0, fmt.Sprint(i))
		require.Equal(t, buffer.Dirty, f.Source, "row %d is not committed and must be found", i)
		require.False(t, f.Committed)
	}
	tail := b.settle(0, table.ID{Epoch: 1, Seq: rows})
	require.Zero(t, tail.Backlog())
	require.Zero(t, tail.Bytes)
	require.Zero(t, gens())
	require.Equal(t, buffer.Miss, b.get(0, "15000").Source)
}

func TestSettledIsHeard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(1)
	b.append(chunk(target, 0, buffer.ExpectNew, "a"))
	require.Eventually(t, func() bool {
		b.settle(0, table.ID{Epoch: 1, Seq: 1}) // the first notice may come before the subscription
		b.append(chunk(target, 0, buffer.ExpectNew, fmt.Sprint(time.Now().UnixNano())))
		tails, err := b.Tails(context.Background(), []buffer.Place{b.place(0)})
		require.NoError(t, err)
		b.settle(0, tails[0].Last)
		seq, _ := b.Settled(b.place(0))
		return seq > 0
	}, 5*time.Second, 10*time.Millisecond)
}

func TestDeadRowsLeaveTheIndex(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(1)
	b.append(chunk(target, 0, buffer.ExpectNew, "good", "bad", "more"))
	b.settle(0, table.ID{Epoch: 1, Seq: 2}, buffer.DeadRow{Key: "bad", ID: table.ID{Epoch: 1, Seq: 2}})
	require.Equal(t, buffer.Miss, b.get(0, "bad").Source)
	f := b.get(0, "good")
	require.Equal(t, buffer.Dirty, f.Source)
	require.True(t, f.Committed, "still in the log, and committed")
}

func TestFillAfterWriteIsRefused(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	target := b.target(1)
	f, err := b.Get(ctx, b.place(0), "k", true)
	require.NoError(t, err)
	require.NotEmpty(t, f.Lease)
	other, err := b.Get(ctx, b.place(0), "k", true)
	require.NoError(t, err)
	require.True(t, other.Held)
	require.Empty(t, other.Lease)

	b.append(chunk(target, 0, buffer.ExpectAbsent, "k"))
	ok, err := b.Fill(ctx, b.place(0), "k", f.Lease, lineOf("k\told\n"), minute)
	require.NoError(t, err)
	require.False(t, ok, "a write came after the lease was given")

	b.settle(0, table.ID{Epoch: 1, Seq: 1})
	f, err = b.Get(ctx, b.place(0), "k", true)
	require.NoError(t, err)
	ok, err = b.Fill(ctx, b.place(0), "k", f.Lease, lineOf("k\tnew\n"), minute)
	require.NoError(t, err)
	require.True(t, ok)
	f = b.get(0, "k")
	require.Equal(t, buffer.Clean, f.Source)
	require.Equal(t, "k\tnew\n", string(f.Line))
	require.InDelta(t, 60, f.TTL.Seconds(), 5)
}

func TestNoTTLOnDirtyKeys(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	target := b.target(1)
	b.append(chunk(target, 0, buffer.ExpectNew, "a", "b"))
	b.settle(0, table.ID{Epoch: 1, Seq: 1})
	keys, err := b.rdb.Keys(ctx, "hp:{"+b.table+".0}:*").Result()
	require.NoError(t, err)
	require.Len(t, keys, 4, "log, meta, commits and one generation: %v", keys)
	for _, k := range keys {
		ttl, err := b.rdb.TTL(ctx, k).Result()
		require.NoError(t, err)
		require.EqualValues(t, -1, ttl, k)
	}
}

func TestLogIsTrimmed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	target := b.target(1)
	settle := func(seq uint64, retain time.Duration, size int64) {
		frames, err := b.Frames(ctx, b.place(0), table.ID{Epoch: 1, Seq: seq - 1}, 1, 1)
		require.NoError(t, err)
		_, err = b.Settle(ctx, []buffer.Settlement{{
			Place: b.place(0), Watermark: table.ID{Epoch: 1, Seq: seq}, Bytes: frames[0].Bytes,
			Committed: time.Now(), Retain: retain, RetainBytes: size,
		}})
		require.NoError(t, err)
	}
	length := func() int64 { return b.rdb.XLen(ctx, "hp:{"+b.table+".0}:log").Val() }
	for i := range 4 {
		b.append(chunk(target, 0, buffer.ExpectNew, fmt.Sprint(i)))
	}
	settle(1, time.Hour, 1<<30)
	settle(2, time.Hour, 1<<30)
	require.EqualValues(t, 4, length(), "committed frames stay for a while")
	settle(3, time.Hour, 1)
	require.EqualValues(t, 2, length(), "but not more bytes than asked for; the newest commit stays")
	require.Equal(t, buffer.Dirty, b.get(0, "3").Source)
	settle(4, 0, 1<<30)
	require.Zero(t, length(), "nor longer than asked for")
	life := func(seq uint64) time.Time {
		_, c, err := b.Life(ctx, b.place(0), table.ID{Epoch: 1, Seq: seq})
		require.NoError(t, err)
		return c.Committed
	}
	require.True(t, life(1).IsZero())
}

func TestOpenAfterRedisLostEverything(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	target := b.target(1)
	b.append(chunk(target, 0, buffer.ExpectNew, "a", "b", "c"))
	b.wms.set(b.place(0), table.ID{Epoch: 1, Seq: 3})
	keys, err := b.rdb.Keys(ctx, "hp:{"+b.table+".0}:*").Result()
	require.NoError(t, err)
	require.NoError(t, b.rdb.Del(ctx, keys...).Err())

	c := chunk(target, 0, buffer.ExpectNew, "d")
	b.append(c)
	require.NoError(t, c.Result().Err)
	require.Equal(t, table.ID{Epoch: 2, Seq: 4}, c.Result().First, "a new epoch, above the watermark")
	frames, err := b.Frames(ctx, b.place(0), table.ID{Epoch: 1, Seq: 3}, 10, 1<<20)
	require.NoError(t, err)
	require.Len(t, frames, 1, "and the flusher finds it after the watermark")
}

func TestOpenKeepsTheLogWhenOnlyMetaIsGone(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	target := b.target(1)
	b.append(chunk(target, 0, buffer.ExpectNew, "a", "b"))
	require.NoError(t, b.rdb.Del(ctx, "hp:{"+b.table+".0}:meta").Err())
	c := chunk(target, 0, buffer.ExpectNew, "c")
	b.append(c)
	require.Equal(t, table.ID{Epoch: 2, Seq: 3}, c.Result().First)
	frames, err := b.Frames(ctx, b.place(0), table.ID{}, 10, 1<<20)
	require.NoError(t, err)
	require.Len(t, frames, 2)
	require.Equal(t, uint64(3), frames[1].First().Seq)
}

func TestScriptFlushIsTransparent(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	b := setupOn(t, r.URL())
	target := b.target(1)
	b.append(chunk(target, 0, buffer.ExpectNew, "a"))
	require.NoError(t, b.rdb.ScriptFlush(context.Background()).Err())
	c := chunk(target, 0, buffer.ExpectNew, "b")
	b.append(c)
	require.NoError(t, c.Result().Err)
	require.EqualValues(t, 2, c.Result().First.Seq)
	require.NoError(t, b.rdb.ScriptFlush(context.Background()).Err())
	require.Equal(t, buffer.Dirty, b.get(0, "b").Source)
}

func TestOOMAppliesNothing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := uptest.Redis(t)
	b := setupOn(t, r.URL())
	target := b.target(1)
	require.NoError(t, b.rdb.ConfigSet(ctx, "maxmemory", "1").Err())
	c := chunk(target, 0, buffer.ExpectAbsent, "a")
	b.append(c)
	require.ErrorIs(t, c.Result().Err, buffer.ErrUnavailable)
	require.NoError(t, b.rdb.ConfigSet(ctx, "maxmemory", "0").Err())
	require.Equal(t, buffer.Miss, b.get(0, "a").Source)
	c = chunk(target, 0, buffer.ExpectAbsent, "a")
	b.append(c)
	require.NoError(t, c.Result().Err)
	require.EqualValues(t, 1, c.Result().First.Seq, "no hole")
}

func TestRedisKilledAndRestarted(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := uptest.Redis(t)
	b := setupOn(t, r.URL())
	target := b.target(2)
	b.append(chunk(target, 0, buffer.ExpectAbsent, "a"), chunk(target, 1, buffer.ExpectAbsent, "b"))
	require.NoError(t, r.Kill())
	c := chunk(target, 0, buffer.ExpectAbsent, "c")
	b.append(c)
	require.ErrorIs(t, c.Result().Err, buffer.ErrUnavailable, "it was never sent: certainly not applied")
	require.NoError(t, r.Restart(ctx))
	c = chunk(target, 0, buffer.ExpectAbsent, "c")
	b.append(c)
	require.NoError(t, c.Result().Err)
	require.EqualValues(t, 2, c.Result().First.Seq)
	require.Equal(t, buffer.Dirty, b.get(0, "a").Source, "fsync before the answer")
	require.Equal(t, buffer.Dirty, b.get(1, "b").Source)
}

func TestDurabilityIsWhatRedisDoes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := uptest.Redis(t)
	b := setupOn(t, r.URL())
	require.NoError(t, b.rdb.ConfigSet(ctx, "maxmemory", "128mb").Err())
	require.NoError(t, b.CheckDurability(ctx))
	require.Equal(t, "fsync", b.Durability().Level)
	require.Empty(t, b.Durability().Warnings)
	require.NoError(t, b.rdb.ConfigSet(ctx, "appendfsync", "everysec").Err())
	require.NoError(t, b.CheckDurability(ctx))
	require.Equal(t, "memory", b.Durability().Level)
	require.Len(t, b.Durability().Warnings, 1)
	require.NoError(t, b.rdb.ConfigSet(ctx, "maxmemory-policy", "allkeys-lru").Err())
	require.ErrorIs(t, b.CheckDurability(ctx), buffer.ErrUnsafeRedis)
}

// No receipt may be given out twice, even when nothing of the lost epoch was
// ever committed.
func TestOpenNeverRepeatsAnEpoch(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	target := b.target(1)
	for epoch := uint64(1); epoch <= 3; epoch++ {
		c := chunk(target, 0, buffer.ExpectNew, "a")
		b.append(c)
		require.Equal(t, table.ID{Epoch: epoch, Seq: epoch}, c.Result().First, "those before were put back")
		keys, err := b.rdb.Keys(ctx, "hp:{"+b.table+".0}:*").Result()
		require.NoError(t, err)
		require.NoError(t, b.rdb.Del(ctx, keys...).Err())
	}
}

func TestOpenPlacesIsTriedAgainAfterAFailure(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	b.wms.fail = errors.New("Postgres is away")
	require.ErrorContains(t, b.OpenPlaces(ctx, []buffer.Place{b.place(0)}), "Postgres is away")
	b.wms.fail = nil
	target := b.target(1)
	c := chunk(target, 0, buffer.ExpectNew, "a")
	b.append(c)
	require.NoError(t, c.Result().Err)
}

// TestReadsTogether: of many readers at a time each gets the answer to its own
// question, wherever it lies, and one of those who ask the same gets the lease.
func TestReadsTogether(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	target := b.target(2)
	b.append(chunk(target, 0, buffer.ExpectAbsent, "dirty"))
	fill := func(p int, key, line string, want buffer.Want) {
		f, err := b.Read(b.place(p), key, want)
		require.NoError(t, err)
		var ok bool
		if line == "" {
			ok, err = b.FillAbsent(ctx, b.place(p), key, f.Lease, minute)
		} else {
			ok, err = b.Fill(ctx, b.place(p), key, f.Lease, lineOf(line), minute)
		}
		require.NoError(t, err)
		require.True(t, ok)
	}
	want := buffer.Want{Lease: true, Negative: true}
	for p := range 2 {
		for i := range 100 {
			key := fmt.Sprint(p, "-", i)
			fill(p, key, key+"\tx\n", want)
		}
		fill(p, "none", "", want)
	}
	var leases [2]atomic.Int64
	for round := range 2 { // the second with scripts that Redis does not know
		if round == 1 {
			b.append(chunk(target, 1, buffer.ExpectAbsent, "dirty"))
		}
		var g sync.WaitGroup
		for n := range 600 {
			g.Go(func() {
				p, key := n%2, fmt.Sprint(n%2, "-", n%100)
				ask := []string{key, "cold", "none", "dirty"}[n/2%4]
				f, err := b.Read(b.place(p), ask, want)
				if err != nil {
					t.Error(err)
					return
				}
				switch ask {
				case "cold":
					if f.Lease != "" {
						leases[p].Add(1)
					} else if !f.Held {
						t.Errorf("%+v", f)
					}
				case "none":
					if f.Source != buffer.Absent {
						t.Errorf("%+v", f)
					}
				case "dirty":
					if got := f.Source == buffer.Dirty; got != (p == 0 || round == 1) {
						if f.Lease == "" && !f.Held {
							t.Errorf("%+v", f)
						}
					}
				default:
					if string(f.Line) != key+"\tx\n" {
						t.Errorf("%s: %q", key, f.Line)
					}
				}
			})
		}
		g.Wait()
	}
	require.EqualValues(t, 1, leases[0].Load())
	require.EqualValues(t, 1, leases[1].Load())
}

// TestIndexBeforeCleanRow: a row with a key that Headpond made is found though
// something else lies under its key, whichever way it is looked for.
func TestIndexBeforeCleanRow(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	target := b.target(1)
	f, err := b.Get(ctx, b.place(0), "k", true)
	require.NoError(t, err)
	ok, err := b.Fill(ctx, b.place(0), "k", f.Lease, lineOf("k\tclean\n"), minute)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, buffer.Clean, b.get(0, "k").Source)
	b.append(chunk(target, 0, buffer.ExpectNew, "k"))
	for range 3 {
		require.Equal(t, buffer.Dirty, b.get(0, "k").Source)
	}
	tail := b.settle(0, table.ID{Epoch: 1, Seq: 1})
	require.Zero(t, tail.Backlog())
	for range 3 {
		require.Equal(t, buffer.Clean, b.get(0, "k").Source)
	}
}

// TestMarkerStopsFills: while a direct writer is about to commit, nobody gets a
// lease, and what was loaded before is not stored.
func TestMarkerStopsFills(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t)
	target := b.target(1)
	require.NoError(t, b.SetStrategy(ctx, target, buffer.WriteThrough))
	before, err := b.Get(ctx, b.place(0), "k", true)
	require.NoError(t, err)
	m, err := b.Hold(ctx, target, map[buffer.Place][]string{b.place(0): {"k"}})
	require.NoError(t, err)
	ok, err := b.Fill(ctx, b.place(0), "k", before.Lease, lineOf("k\told\n"), minute)
	require.NoError(t, err)
	require.False(t, ok)
	f, err := b.Get(ctx, b.place(0), "k", true)
	require.NoError(t, err)
	require.True(t, f.Written)
	require.Empty(t, f.Lease)
	rows := map[buffer.Place]map[string]buffer.Row{b.place(0): {"k": {Columns: []byte("id\tv"), Line: []byte("k\tnew\n")}}}
	require.NoError(t, m.Fill(ctx, rows, buffer.Life{TTL: time.Minute}))
	f = b.get(0, "k")
	require.Equal(t, "k\tnew\n", string(f.Line))
	require.InDelta(t, 60, f.TTL.Seconds(), 5)
}

// TestFillOfAnotherEpoch: what was loaded before Redis went back is a miss.
func TestFillOfAnotherEpoch(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setupOn(t, uptest.Redis(t).URL())
	target := b.target(1)
	f, err := b.Get(ctx, b.place(0), "k", true)
	require.NoError(t, err)
	require.NoError(t, b.rdb.Del(ctx, "hp:{"+b.table+".0}:meta").Err())
	b.wms.set(b.place(0), table.ID{Epoch: 1, Seq: 7})
	require.NoError(t, b.rdb.ScriptFlush(ctx).Err())
	b.append(chunk(target, 0, buffer.ExpectNew, "other"))
	ok, err := b.Fill(ctx, b.place(0), "k", f.Lease, lineOf("k\told\n"), minute)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, buffer.Miss, b.get(0, "k").Source)
	tails, err := b.Tails(ctx, []buffer.Place{b.place(0)})
	require.NoError(t, err)
	b.settle(0, tails[0].Last)
	for range 3 { // also when the index is empty
		require.Equal(t, buffer.Miss, b.get(0, "k").Source)
	}
}
