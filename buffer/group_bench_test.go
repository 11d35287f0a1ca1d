package buffer

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// BenchmarkGroupCommit compares the two ways to send the writes of concurrent
// requests together: our lanes, which merge rows into frames, and the
// driver's AutoPipeline, which sends one script call for each row. Redis syncs
// its log before it answers. The figures are in ARCHITECTURE.md.
func BenchmarkGroupCommit(b *testing.B) {
	for _, conns := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("lanes/connections=%d", conns), func(b *testing.B) { benchLanes(b, conns) })
		b.Run(fmt.Sprintf("autopipeline/connections=%d", conns), func(b *testing.B) { benchAuto(b, conns) })
	}
}

type noWatermarks struct{}

func (noWatermarks) Record(context.Context, Recovery) error { return nil }

func (noWatermarks) Recorded(context.Context, Place, uint64) ([]Recovery, error) { return nil, nil }

func (noWatermarks) Hold(_ context.Context, places []Place, open func(Place, Held) (Opening, error)) error {
	for _, p := range places {
		if _, err := open(p, Held{}); err != nil {
			return err
		}
	}
	return nil
}

const benchLine = "0190a6c1-7b3e-7cc8-9f57-3f6cdd3a2f10\t123456\tclick\t12.34\t{\"page\": \"/products/12\", \"ref\": \"home\", \"ok\": true}\t2026-01-01 00:00:00.123456+00\n"

func startBench(b *testing.B) (*Buffer, *Target) {
	b.Helper()
	rdb, err := Open(uptest.Redis(b).URL())
	require.NoError(b, err)
	buf, err := New(Config{}, rdb, noWatermarks{}, slog.New(slog.DiscardHandler))
	require.NoError(b, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- buf.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		require.NoError(b, <-done)
		require.NoError(b, rdb.Close())
	})
	target := &Target{Table: "bench", Partitions: 8, Index: true, MaxRows: 1 << 40, MaxBytes: 1 << 40}
	var places []Place
	for p := range 8 {
		places = append(places, Place{"bench", p})
	}
	require.NoError(b, buf.OpenPlaces(ctx, places))
	return buf, target
}

// each calls write from so many goroutines, b.N times in all.
func each(b *testing.B, conns int, write func(worker, n int)) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for w := range conns {
		wg.Go(func() {
			for {
				n := int(next.Add(1))
				if n > b.N {
					return
				}
				write(w, n)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func benchLanes(b *testing.B, conns int) {
	buf, target := startBench(b)
	each(b, conns, func(_, n int) {
		c := &Chunk{Target: target, Partition: target.Filling(), Columns: []byte("id"), Accepted: time.Now().UnixMicro()}
		c.Add(table.OpInsert, []byte(benchLine), fmt.Sprintf("0190a6c1-7b3e-7cc8-9f57-%012d", n), ExpectNew)
		if err := buf.Append(context.Background(), c); err != nil || c.Result().Err != nil {
			b.Error(err, c.Result().Err)
		}
	})
	b.ReportMetric(float64(buf.Counters().Rows.Load())/float64(buf.Counters().Calls.Load()), "rows/call")
}

func benchAuto(b *testing.B, conns int) {
	buf, _ := startBench(b)
	client, ok := buf.rdb.(*redis.Client)
	require.True(b, ok)
	auto, err := client.AutoPipeline()
	require.NoError(b, err)
	numbers := make([]int, conns)
	each(b, conns, func(w, n int) {
		f := table.Frame{Columns: []byte("id")}
		f.Add(table.OpInsert, time.Now().UnixMicro(), []byte(benchLine))
		p := Place{"bench", n % 8}
		numbers[w]++
		got, err := auto.EvalSha(context.Background(), appendScript.sha, []string{p.log(), p.meta()},
			p.prefix(), fmt.Sprint("w", w), numbers[w], time.Now().UnixMilli(), 1<<40, 1<<40, "1", 1, 0,
			1, f.Columns, f.Base, f.Heads, f.Data, "g", fmt.Sprintf("0190a6c1-7b3e-7cc8-9f57-%012d", n)).Slice()
		if err != nil || answer(got, 0) != "K" {
			b.Error(err, got)
		}
	})
}
