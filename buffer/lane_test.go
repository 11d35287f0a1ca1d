package buffer

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// laneOn gives a lane that is driven by hand, on a partition of its own.
func laneOn(t *testing.T) (*lane, *Target) {
	t.Helper()
	rdb, err := Open(uptest.Redis(t).URL())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	b, err := New(Config{}, rdb, noWatermarks{}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, b.OpenPlaces(context.Background(), []Place{{t.Name(), 0}}))
	return &lane{b: b, producer: "p"}, &Target{Table: t.Name(), Partitions: 1, Index: true, MaxRows: 1 << 40, MaxBytes: 1 << 40}
}

func oneRow(target *Target, key string) *Chunk {
	c := &Chunk{Target: target, Columns: []byte("id"), Accepted: time.Now().UnixMicro(), wait: new(sync.WaitGroup)}
	c.Add(table.OpInsert, []byte(key+"\n"), key, ExpectAbsent)
	c.wait.Add(1)
	return c
}

// A reply that was lost makes the lane send the call again: it must be applied
// once, and answered as it was the first time.
func TestProducerSentTwice(t *testing.T) {
	t.Parallel()
	l, target := laneOn(t)
	ctx := context.Background()
	calls := group([]*Chunk{oneRow(target, "a")})
	l.prepare(calls[0])
	l.roundTrip(calls) // answered, and the answer is lost
	l.roundTrip(calls)
	retry, _, err := l.settle(calls[0])
	require.NoError(t, err)
	require.False(t, retry)
	require.Equal(t, table.ID{Epoch: 1, Seq: 1}, calls[0].chunks[0].result.First)
	require.EqualValues(t, 1, l.b.counters.Repeats.Load())

	l.send(group([]*Chunk{oneRow(target, "b")}))
	tails, err := l.b.Tails(ctx, []Place{{t.Name(), 0}})
	require.NoError(t, err)
	require.EqualValues(t, 2, tails[0].Last.Seq, "two rows in all")

	// The first call arrives once more, long after: nothing is applied.
	l.roundTrip(calls)
	got, err := calls[0].cmd.Slice()
	require.NoError(t, err)
	require.Equal(t, "S", answer(got, 0))
	tails, err = l.b.Tails(ctx, []Place{{t.Name(), 0}})
	require.NoError(t, err)
	require.EqualValues(t, 2, tails[0].Last.Seq)
}

func TestClassifyOfReplies(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]verdict{
		"OOM command not allowed": notApplied, "MISCONF Redis": notApplied, "READONLY You": notApplied, "LOADING Redis": notApplied,
		"NOREPLICAS Not": notApplied, "CLUSTERDOWN Hash": notApplied, "BUSY Redis": notApplied, "TRYAGAIN Multiple": notApplied,
		"NOSCRIPT No matching": noScript, "ERR Error running script": broken, "WRONGTYPE Operation": broken,
	} {
		require.Equal(t, want, classify(replyError(text)), text)
	}
	require.Equal(t, unknown, classify(context.DeadlineExceeded))
}

type replyError string

func (e replyError) Error() string { return string(e) }
func (e replyError) RedisError()   {}
