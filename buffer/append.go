package buffer

import (
	"context"
	"sync"

	"go.opentelemetry.io/otel/trace"
)

// Append sends the chunks and waits until each is accepted or refused; look at
// their Results. It returns an error only when none of them was sent.
//
// It does not take the caller's deadline: a write that was handed to Redis is
// waited for (at most Config.Budget), because an answer that comes too late is
// worth more than not knowing.
//
// Rows without a span of their own (Chunk.Traced) belong to that of ctx.
func (b *Buffer) Append(ctx context.Context, chunks ...*Chunk) error {
	if b.draining.Load() {
		return ErrDraining
	}
	chunks = b.admit(chunks)
	if len(chunks) == 0 {
		return nil
	}
	if b.memory.full.Load() {
		for _, c := range chunks {
			b.counters.refuse(CapHeld, c.Len())
		}
		return b.memory.refusal(chunks[0].Target.Table)
	}
	var wait sync.WaitGroup
	wait.Add(len(chunks))
	in := trace.SpanContextFromContext(ctx)
	for _, c := range chunks {
		c.wait = &wait
		c.startSpans(b.cfg.Tracer, in)
	}
	defer func() {
		for _, c := range chunks {
			c.endSpans()
		}
	}()
	if !b.queue.put(chunks) {
		return ErrDraining
	}
	wait.Wait()
	return nil
}
