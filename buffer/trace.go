package buffer

import (
	"context"
	"errors"
	"strconv"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/headpond/headpond/buffer/table"
)

// traces are the spans of the sampled requests that rows of a chunk are of.
type traces struct {
	rows  map[int]rowTrace
	all   rowTrace // of rows that are not in rows
	spans []trace.Span
}

// rowTrace is of no sampled request when it is zero.
type rowTrace struct {
	of   trace.SpanContext // of the request
	sent table.Span        // within it: that rows are put into the log
}

func (t *traces) set(row int, r rowTrace) {
	if !r.of.IsSampled() {
		return
	}
	if t.rows == nil {
		t.rows = make(map[int]rowTrace, 1)
	}
	t.rows[row] = r
}

func (t *traces) at(i int) rowTrace {
	if r, is := t.rows[i]; is {
		return r
	}
	return t.all
}

// Traced says in which span the row was written that was added last. A span that
// is not sampled leaves no trace.
func (c *Chunk) Traced(in trace.SpanContext) { c.traces.set(c.Len()-1, rowTrace{of: in}) }

// SpanOf a span's context, as the log has it.
func SpanOf(c trace.SpanContext) table.Span {
	return table.Span{Trace: c.TraceID(), Span: c.SpanID()}
}

// ContextOf a span of the log: a sampled one of elsewhere.
func ContextOf(s table.Span) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: s.Trace, SpanID: s.Span, TraceFlags: trace.FlagsSampled, Remote: true})
}

// startSpans begins a span in the trace of each sampled request that has rows in the
// chunk; in is that of rows without one of their own. It is done by who appends, and
// not by the lane, where all requests would wait for it.
func (c *Chunk) startSpans(tracer trace.Tracer, in trace.SpanContext) {
	t := &c.traces
	if in.IsSampled() && t.rows == nil {
		t.all = rowTrace{of: in, sent: c.startSpan(tracer, in, c.Len())}
	}
	if len(t.rows) == 0 {
		return
	}
	count := make(map[table.Span]int)
	for _, r := range t.rows {
		count[SpanOf(r.of)]++
	}
	begun := make(map[table.Span]table.Span)
	for i := range c.ends {
		r, is := t.rows[i]
		if !is {
			continue
		}
		of := SpanOf(r.of)
		if _, has := begun[of]; !has {
			begun[of] = c.startSpan(tracer, r.of, count[of])
		}
		r.sent = begun[of]
		t.rows[i] = r
	}
}

func (c *Chunk) startSpan(tracer trace.Tracer, in trace.SpanContext, rows int) table.Span {
	_, span := tracer.Start(trace.ContextWithSpanContext(context.Background(), in), "send "+c.Target.Table, trace.WithSpanKind(trace.SpanKindProducer))
	if span.IsRecording() {
		span.SetAttributes(
			semconv.MessagingSystemKey.String("redis"), semconv.MessagingOperationName("append"), semconv.MessagingOperationTypeSend,
			semconv.MessagingDestinationName(c.Target.Table), semconv.MessagingDestinationPartitionID(strconv.Itoa(c.Partition)))
		if rows > 1 {
			span.SetAttributes(semconv.MessagingBatchMessageCount(rows))
		}
	}
	c.traces.spans = append(c.traces.spans, span)
	return SpanOf(span.SpanContext())
}

// retried notes on the spans that the call has to be sent again.
func (k *call) retried(err error) {
	for _, c := range k.chunks {
		for _, span := range c.traces.spans {
			span.AddEvent("retry", trace.WithAttributes(semconv.ErrorTypeKey.String(errorType(err))))
		}
	}
}

func (c *Chunk) endSpans() {
	for _, span := range c.traces.spans {
		if err := c.result.Err; err != nil {
			span.SetStatus(codes.Error, errorType(err))
			span.SetAttributes(semconv.ErrorTypeKey.String(errorType(err)))
		}
		span.End()
	}
}

// errorType tells an error without what it is about: messages may hold values.
func errorType(err error) string {
	switch {
	case errors.Is(err, ErrOutcomeUnknown):
		return "outcome_unknown"
	case errors.Is(err, ErrUnavailable):
		return "buffer_unavailable"
	case errors.Is(err, ErrSwitched):
		return "strategy_switched"
	}
	if full := new(BacklogFull); errors.As(err, &full) {
		return "backlog_full"
	}
	switch classify(err) {
	case notApplied:
		return "redis_not_applied"
	case unknown:
		return "redis_not_answered"
	}
	return "internal"
}
