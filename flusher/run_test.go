package flusher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a log and a store in memory, for the pool's own logic.
type world struct {
	mu        sync.Mutex
	logs      map[buffer.Place][]*table.Frame
	settled   map[buffer.Place]uint64
	watermark map[buffer.Place]table.ID
	fail      error // of the next flushes
	dead      map[buffer.Place][]buffer.DeadRow
	dropped   map[buffer.Place][]buffer.DeadRow // by the next flush
	said      []buffer.Settlement
	flushes   int

	unreplicated bool // commits from now on
	paused       bool
	asked        int // whether it is
}

func newWorld() *world {
	return &world{
		logs: map[buffer.Place][]*table.Frame{}, settled: map[buffer.Place]uint64{},
		watermark: map[buffer.Place]table.ID{}, dead: map[buffer.Place][]buffer.DeadRow{},
	}
}

func place(p int) buffer.Place { return buffer.Place{Table: "t", Partition: p} }

// add puts rows into a partition's log.
func (w *world) add(p, rows int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	log := w.logs[place(p)]
	last := uint64(0)
	if len(log) > 0 {
		last = log[len(log)-1].Last.Seq
	}
	w.logs[place(p)] = append(log, frameUpTo(last+uint64(rows), rows))
}

func frameUpTo(last uint64, rows int) *table.Frame {
	f := &table.Frame{Columns: []byte("id"), Last: table.ID{Epoch: 1, Seq: last}}
	for range rows {
		f.Add(table.OpInsert, time.Now().UnixMicro(), []byte("1\n"))
	}
	return f
}

func (w *world) tail(p buffer.Place) buffer.Tail {
	t := buffer.Tail{Place: p, Open: true, Settled: w.settled[p]}
	if log := w.logs[p]; len(log) > 0 {
		t.Last = log[len(log)-1].Last
	}
	return t
}

func (w *world) Tails(_ context.Context, places []buffer.Place) ([]buffer.Tail, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []buffer.Tail
	for _, p := range places {
		out = append(out, w.tail(p))
	}
	return out, nil
}

func (w *world) Frames(_ context.Context, p buffer.Place, after table.ID, _, _ int) ([]*table.Frame, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []*table.Frame
	for _, f := range w.logs[p] {
		if f.Last.After(after) {
			out = append(out, f)
		}
	}
	return out, nil
}

func (w *world) Settle(_ context.Context, all []buffer.Settlement) ([]buffer.Tail, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []buffer.Tail
	for _, s := range all {
		if s.Watermark.After(w.watermark[s.Place]) {
			panic("settled before it was committed")
		}
		w.said = append(w.said, s)
		w.settled[s.Place] = s.Watermark.Seq
		out = append(out, w.tail(s.Place))
	}
	return out, nil
}

// Reopen finds that nobody has what is missing.
func (w *world) Paused(context.Context, string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	return w.paused, nil
}

func (w *world) Reopen(_ context.Context, p buffer.Place, torn uint64) error {
	return fmt.Errorf("data gap in %s: torn=%d", p, torn)
}

func (w *world) Flush(ctx context.Context, b Batch) (*Report, error) {
	w.mu.Lock()
	w.flushes++
	fail := w.fail
	var claims []Claim
	for _, p := range b.Partitions {
		claims = append(claims, Claim{Place: place(p), Watermark: w.watermark[place(p)]})
	}
	w.mu.Unlock()
	parts, err := b.Load(ctx, claims)
	if err == nil {
		err = fail
	}
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range parts {
		w.watermark[parts[i].Place] = parts[i].Last()
	}
	dropped := w.dropped
	w.dropped = nil
	return &Report{Parts: parts, Dropped: dropped, Copied: time.Now(), Committed: time.Now(), Unreplicated: w.unreplicated}, nil
}

func (w *world) DeadBetween(_ context.Context, p buffer.Place, after, upto uint64) ([]buffer.DeadRow, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []buffer.DeadRow
	for _, d := range w.dead[p] {
		if d.ID.Seq > after && d.ID.Seq <= upto {
			out = append(out, d)
		}
	}
	return out, nil
}

func (w *world) Lag(string, time.Duration, int64)           {}
func (w *world) Sampled(string, time.Duration, table.Span)  {}
func (w *world) Flushed(string, string, int, time.Duration) {}

func (w *world) seq(p int) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watermark[place(p)].Seq
}

// start runs a flusher on the world; stop ends it and waits.
func (w *world) start(t *testing.T, wakes <-chan buffer.Place) (f *Flusher, stop func()) {
	t.Helper()
	f, err := New(Config{Workers: 2, Sweep: 20 * time.Millisecond, Drain: 2 * time.Second}, w, w, wakes, w, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	f.Set(Table{Name: "t", Partitions: 3, Linger: time.Millisecond, TargetLag: time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return f, sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

func TestFlushesWhatTheSweepFinds(t *testing.T) {
	t.Parallel()
	w := newWorld()
	_, stop := w.start(t, nil)
	defer stop()
	for p := range 3 {
		w.add(p, 10+p)
	}
	require.Eventually(t, func() bool { return w.seq(0) == 10 && w.seq(1) == 11 && w.seq(2) == 12 }, 5*time.Second, time.Millisecond)
}

func TestSettleOnlyAfterCommit(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.fail = errors.New("connection lost during COMMIT")
	w.add(0, 5)
	f, stop := w.start(t, nil)
	defer stop()
	require.Eventually(t, func() bool { return f.Stats().Tables["t"].Failures > 2 }, 5*time.Second, time.Millisecond)
	w.mu.Lock()
	require.Empty(t, w.said)
	w.fail = nil
	w.mu.Unlock()
	require.Contains(t, f.Stats().Tables["t"].Error, "connection lost during COMMIT")
	require.Eventually(t, func() bool { return w.seq(0) == 5 && f.Stats().Tables["t"].Error == "" }, 5*time.Second, time.Millisecond)
}

func TestGapStopsPartition(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.add(0, 5)
	w.logs[place(1)] = []*table.Frame{frameUpTo(3, 3), frameUpTo(10, 4)} // 4 to 6 are gone
	f, stop := w.start(t, nil)
	require.Eventually(t, func() bool { return f.Stats().Tables["t"].Error != "" }, 5*time.Second, time.Millisecond)
	require.Contains(t, f.Stats().Tables["t"].Error, "data gap in t.1: torn=1")
	require.Eventually(t, func() bool { return w.seq(0) == 5 }, 5*time.Second, time.Millisecond, "the others go on")
	require.Zero(t, w.seq(1))
	w.mu.Lock()
	w.logs[place(1)] = []*table.Frame{frameUpTo(3, 3)}
	w.mu.Unlock()
	require.Eventually(t, func() bool { return w.seq(1) == 3 }, 10*time.Second, time.Millisecond, "mended")
	stop()
}

// A worker that died between COMMIT and settle leaves this behind.
func TestSettlesWhatWasFoundCommitted(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.add(0, 5)
	w.watermark[place(0)] = table.ID{Epoch: 1, Seq: 5}
	dead := buffer.DeadRow{Key: "k", ID: table.ID{Epoch: 1, Seq: 4}}
	w.dead[place(0)] = []buffer.DeadRow{dead}
	_, stop := w.start(t, nil)
	require.Eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.settled[place(0)] == 5
	}, 5*time.Second, time.Millisecond)
	stop()
	require.Equal(t, []buffer.DeadRow{dead}, w.said[0].Dead, "readers must not be given it any more")
}

// A replay that was left out is not in Postgres: readers must not be given it.
func TestSettlesWhatWasLeftOut(t *testing.T) {
	t.Parallel()
	w := newWorld()
	left := map[buffer.Place][]buffer.DeadRow{place(0): {{Key: "k", ID: table.ID{Epoch: 1, Seq: 2}}}}
	w.dropped = left
	w.add(0, 3)
	_, stop := w.start(t, nil)
	require.Eventually(t, func() bool { return w.seq(0) == 3 }, 5*time.Second, time.Millisecond)
	stop()
	require.Equal(t, left[place(0)], w.said[0].Dead)
}

// Lists go with each settlement that moves a watermark, whoever committed it.
func TestSettlesDropLists(t *testing.T) {
	t.Parallel()
	for _, lists := range []bool{true, false} {
		w := newWorld()
		w.add(0, 5)
		w.watermark[place(0)] = table.ID{Epoch: 1, Seq: 5} // by a worker that died
		w.add(1, 3)
		f, err := New(Config{Workers: 1, Sweep: time.Hour}, w, w, nil, w, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		f.Set(Table{Name: "t", Partitions: 2, Linger: time.Millisecond, TargetLag: time.Second, Lists: lists})
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.NoError(t, f.Run(ctx)) // the drain
		require.EqualValues(t, 3, w.seq(1))
		require.NotEmpty(t, w.said)
		for _, s := range w.said {
			require.Equal(t, lists, s.Lists, s.Place)
		}
		require.NoError(t, f.tidyAll(context.Background()))
		require.False(t, w.said[len(w.said)-1].Lists, "nothing was committed")
	}
}

func TestDrainsOnStop(t *testing.T) {
	t.Parallel()
	w := newWorld()
	f, err := New(Config{Workers: 2, Sweep: time.Hour}, w, w, nil, w, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	f.Set(Table{Name: "t", Partitions: 1, Linger: time.Millisecond, TargetLag: time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w.add(0, 7)
	require.NoError(t, f.Run(ctx))
	require.EqualValues(t, 7, w.seq(0))
}

func TestDrainGivesUpAtItsDeadline(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.fail = errors.New("Postgres is away")
	w.add(0, 7)
	f, err := New(Config{Workers: 2, Drain: 50 * time.Millisecond}, w, w, nil, w, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	f.Set(Table{Name: "t", Partitions: 1, Linger: time.Millisecond, TargetLag: time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(t, f.Run(ctx))
	require.Zero(t, w.seq(0))
}

func TestWakeIsFasterThanTheSweep(t *testing.T) {
	t.Parallel()
	w := newWorld()
	wakes := make(chan buffer.Place, 1)
	f, err := New(Config{Workers: 1, Sweep: time.Hour}, w, w, wakes, w, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	f.Set(Table{Name: "t", Partitions: 1, Linger: time.Millisecond, TargetLag: time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	require.Eventually(t, func() bool { return len(f.nudge) == 0 }, 5*time.Second, time.Millisecond)
	w.add(0, 1)
	wakes <- place(0)
	require.Eventually(t, func() bool { return w.seq(0) == 1 }, 5*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
}

func TestTidySettlesWhereItStands(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.add(0, 7)
	w.watermark[place(0)] = table.ID{Epoch: 1, Seq: 7}
	w.settled[place(0)] = 5
	f, err := New(Config{}, w, w, nil, w, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	f.Set(Table{Name: "t", Partitions: 2, Retain: time.Hour, RetainBytes: 9})
	require.NoError(t, f.tidyAll(context.Background()))
	require.Len(t, w.said, 1)
	require.Equal(t, table.ID{Epoch: 1, Seq: 5}, w.said[0].Watermark, "not a row further than Redis knows to be committed")
	require.Equal(t, time.Hour, w.said[0].Retain)
	require.EqualValues(t, 9, w.said[0].RetainBytes)
}
