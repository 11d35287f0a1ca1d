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
	rows map[int]trace.SpanContext
	all  trace.SpanContext // of rows that are not in rows
}

func (t *traces) set(row int, of trace.SpanContext) {
	if !of.IsSampled() {
		return
	}
	if t.rows == nil {
		t.rows = make(map[int]trace.SpanContext, 1)
	}
	t.rows[row] = of
}

// rest are the rows that have none of their own.
func (t *traces) rest(of trace.SpanContext) {
	if of.IsSampled() && t.rows == nil {
		t.all = of
	}
}

// of row i; not valid when it is of no sampled request.
func (t *traces) of(i int) trace.SpanContext {
	if of, is := t.rows[i]; is {
		return of
	}
	return t.all
}

// Traced says in which span the row was written that was added last. A span that
// is not sampled leaves no trace.
func (c *Chunk) Traced(in trace.SpanContext) { c.traces.set(c.Len()-1, in) }

// SpanOf a span's context, as the log has it.
func SpanOf(c trace.SpanContext) table.Span {
	return table.Span{Trace: c.TraceID(), Span: c.SpanID()}
}

// ContextOf a span of the log: a sampled one of elsewhere.
func ContextOf(s table.Span) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: s.Trace, SpanID: s.Span, TraceFlags: trace.FlagsSampled, Remote: true})
}

// sending is a call as the trace of one of its requests shows it.
type sending struct {
	of   table.Span // of the request
	span trace.Span
	rows int
}

// startSpans begins a span in the trace of each sampled request of the call, once.
func (k *call) startSpans(tracer trace.Tracer) {
	if k.spans != nil {
		return
	}
	for _, c := range k.chunks {
		if len(c.traces.rows) == 0 && !c.traces.all.IsValid() {
			continue
		}
		for i := range c.ends {
			if of := c.traces.of(i); of.IsValid() {
				k.startSpan(tracer, of)
			}
		}
	}
	for i := range k.spans {
		if n := k.spans[i].rows; n > 1 {
			k.spans[i].span.SetAttributes(semconv.MessagingBatchMessageCount(n))
		}
	}
}

func (k *call) startSpan(tracer trace.Tracer, of trace.SpanContext) {
	name := SpanOf(of)
	for i := len(k.spans) - 1; i >= 0; i-- {
		if k.spans[i].of == name {
			k.spans[i].rows++
			return
		}
	}
	_, span := tracer.Start(trace.ContextWithSpanContext(context.Background(), of), "send "+k.place.Table,
		trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
			semconv.MessagingSystemKey.String("redis"), semconv.MessagingOperationName("append"), semconv.MessagingOperationTypeSend,
			semconv.MessagingDestinationName(k.place.Table), semconv.MessagingDestinationPartitionID(strconv.Itoa(k.place.Partition))))
	k.spans = append(k.spans, sending{of: name, span: span, rows: 1})
}

// span of the call in a request's trace.
func (k *call) span(of trace.SpanContext) table.Span {
	name := SpanOf(of)
	for i := range k.spans {
		if k.spans[i].of == name {
			return SpanOf(k.spans[i].span.SpanContext())
		}
	}
	return name
}

// retried notes on the spans that the call has to be sent again.
func (k *call) retried(err error) {
	for i := range k.spans {
		k.spans[i].span.AddEvent("retry", trace.WithAttributes(semconv.ErrorTypeKey.String(errorType(err))))
	}
}

func (k *call) endSpans(err error) {
	for i := range k.spans {
		s := k.spans[i].span
		if err != nil {
			s.SetStatus(codes.Error, errorType(err))
			s.SetAttributes(semconv.ErrorTypeKey.String(errorType(err)))
		}
		s.End()
	}
	k.spans = nil
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
