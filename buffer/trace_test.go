package buffer_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

func spanContext(n byte, sampled bool) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{n}, SpanID: trace.SpanID{n}, TraceFlags: trace.TraceFlags(0).WithSampled(sampled),
	})
}

// TestTracesFollowTheirRows: when rows of a call are refused the others keep the
// spans that they are of, and so they do when Redis loses them and they are put back.
func TestTracesFollowTheirRows(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setupOn(t, uptest.Redis(t).URL())
	target := b.target(1)
	require.NoError(t, b.Append(ctx, chunk(target, 0, buffer.ExpectAbsent, "there")))

	c := chunk(target, 0, buffer.ExpectAbsent)
	for i, key := range []string{"a", "there", "b", "c", "d"} {
		c.Add(table.OpInsert, []byte(key+"\tv\n"), key, buffer.ExpectAbsent)
		c.Traced(spanContext(byte(i+1), i != 3))
	}
	require.NoError(t, b.Append(ctx, c))
	require.Equal(t, []int{1}, c.Result().Failed)
	sampled := trace.ContextWithSpanContext(ctx, spanContext(9, true))
	require.NoError(t, b.Append(sampled, chunk(target, 0, buffer.ExpectAbsent, "e", "f")))
	unsampled := trace.ContextWithSpanContext(ctx, spanContext(8, false))
	require.NoError(t, b.Append(unsampled, chunk(target, 0, buffer.ExpectAbsent, "g")))

	traces := func() (out []byte) { // the first byte of each row's trace
		frames, err := b.Frames(ctx, b.place(0), table.ID{}, 1000, 1<<20)
		require.NoError(t, err)
		for _, f := range frames {
			for i := range f.Len() {
				out = append(out, f.Traced(i).Trace[0])
			}
		}
		return out
	}
	want := []byte{0, 1, 3, 0, 5, 9, 9, 0}
	require.Equal(t, want, traces())
	story, err := b.Story(ctx, b.place(0), table.ID{Epoch: 1, Seq: 3})
	require.NoError(t, err)
	require.Equal(t, buffer.SpanOf(spanContext(3, true)), story.Span)

	require.NoError(t, b.rdb.FlushAll(ctx).Err())
	require.NoError(t, b.Append(ctx, chunk(target, 0, buffer.ExpectAbsent, "h")))
	require.Equal(t, append(want, 0), traces())
}
