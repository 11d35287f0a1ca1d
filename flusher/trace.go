package flusher

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// mostLinks of a flush's span: the SDK keeps 128, and what shows them fewer. The
// true number of sampled writes is an attribute.
const mostLinks = 64

// tracing is what the spans of a flush are made of. A flush has one span, with a
// link to each sampled write that it makes durable, and a child for each thing that
// it does; each sampled write has a span in its own trace, from when it was
// accepted until it is committed.
type tracing struct {
	tracer trace.Tracer
	began  time.Time
	ctx    context.Context // of the span
	span   trace.Span      // nil before rows were read
	phase  trace.Span      // what is being done
	writes []sampledWrite
}

// sampledWrite is rows of one sampled request that follow each other in the log.
type sampledWrite struct {
	span     table.Span
	place    buffer.Place
	first    table.ID
	rows     int
	accepted time.Time
	replays  string // the dead letter that it replays
}

// last row's id.
func (w *sampledWrite) last() table.ID {
	return table.ID{Epoch: w.first.Epoch, Seq: w.first.Seq + uint64(w.rows) - 1} //nolint:gosec // at least one row
}

func (f *Flusher) traceFlush() *tracing { return &tracing{tracer: f.cfg.Tracer, began: time.Now()} }

// read begins the span when the rows are there: only then is it known whether any
// of them is sampled. picked is when their reading began.
func (t *tracing) read(ctx context.Context, tbl string, parts []Part, picked time.Time) {
	if t.span != nil { // the flush was begun anew
		t.end(nil)
	}
	t.writes = sampledWrites(parts)
	var links []trace.Link
	for i := range t.writes[:min(len(t.writes), mostLinks)] {
		links = append(links, trace.Link{SpanContext: buffer.ContextOf(t.writes[i].span)})
	}
	rows, partitions := 0, make([]int, 0, len(parts))
	for i := range parts {
		rows += parts[i].Rows()
		partitions = append(partitions, parts[i].Place.Partition)
	}
	t.ctx, t.span = t.tracer.Start(ctx, "process "+tbl, trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithTimestamp(t.began), trace.WithLinks(links...))
	if t.span.IsRecording() {
		t.span.SetAttributes(semconv.MessagingSystemKey.String("redis"), semconv.MessagingOperationTypeProcess,
			semconv.MessagingOperationName("flush"), semconv.MessagingDestinationName(tbl), semconv.MessagingBatchMessageCount(rows),
			attribute.IntSlice("headpond.partitions", partitions), attribute.Int("headpond.sampled_writes", len(t.writes)))
	}
	_, reading := t.tracer.Start(t.ctx, "read", trace.WithTimestamp(picked))
	reading.End()
	t.does("copying")
}

func sampledWrites(parts []Part) (out []sampledWrite) {
	for i := range parts {
		for _, f := range parts[i].Frames {
			replays := ""
			if len(f.Traces) > 0 {
				if l, _, is := table.CutReplay(f.Columns); is {
					replays = l.String()
				}
			}
			for _, t := range f.Traces {
				first := f.First()
				first.Seq += uint64(t.From) //nolint:gosec // never negative
				out = append(out, sampledWrite{
					span: t.Span, place: parts[i].Place, first: first, rows: t.To - t.From, accepted: f.Accepted(t.From), replays: replays,
				})
			}
		}
	}
	return out
}

// names of what a worker does, as spans have them.
var phases = map[string]string{"copying": "COPY", "merging": "merge", "committing": "commit", "settling": "settle"}

// does ends the child span of what was done, and begins the next.
func (t *tracing) does(state string) {
	if t.span == nil {
		return
	}
	t.endPhase()
	_, t.phase = t.tracer.Start(t.ctx, phases[state])
}

func (t *tracing) endPhase() {
	if t.phase != nil {
		t.phase.End()
		t.phase = nil
	}
}

// end of the flush. Messages of Postgres hold values, so the class and the SQLSTATE
// are all that a span says of an error.
func (t *tracing) end(err error) {
	if t.span == nil {
		return
	}
	if t.phase != nil && err != nil {
		t.phase.SetStatus(codes.Error, string(ClassOf(err)))
	}
	t.endPhase()
	if err != nil {
		t.span.SetStatus(codes.Error, string(ClassOf(err)))
		t.span.SetAttributes(errorAttributes(string(ClassOf(err)), stateOf(err))...)
	}
	t.span.End()
}

func errorAttributes(class, sqlstate string) []attribute.KeyValue {
	out := []attribute.KeyValue{semconv.ErrorTypeKey.String(class)}
	if sqlstate != "" {
		out = append(out, semconv.DBResponseStatusCode(sqlstate))
	}
	return out
}

// stateOf an error of Postgres; "" for another.
func stateOf(err error) string {
	var told interface{ SQLState() string }
	if errors.As(err, &told) {
		return told.SQLState()
	}
	return ""
}

// committed makes the spans of the writes that a batch has made durable.
func (t *tracing) committed(report *Report, failed *failedFlushes) {
	if t.span == nil {
		return
	}
	for i := range report.Parts {
		p := report.Parts[i].Place
		tries := failed.take(p)
		for j := range t.writes {
			if w := &t.writes[j]; w.place == p {
				t.lag(w, report, tries)
			}
		}
	}
	dead := 0
	for _, d := range report.Dead {
		dead += len(d)
	}
	if dead > 0 {
		t.span.AddEvent("dead letters", trace.WithAttributes(attribute.Int("headpond.rows", dead)))
	}
}

// lag is the span of one write.
func (t *tracing) lag(w *sampledWrite, report *Report, tries []failedFlush) {
	ctx := trace.ContextWithSpanContext(context.Background(), buffer.ContextOf(w.span))
	_, span := t.tracer.Start(ctx, "durability lag", trace.WithTimestamp(w.accepted), trace.WithLinks(trace.Link{SpanContext: t.span.SpanContext()}))
	defer span.End(trace.WithTimestamp(report.Committed))
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attribute.Int("headpond.rows", w.rows), attribute.String("headpond.receipt", w.place.Receipt(w.last())))
	if w.replays != "" {
		span.AddEvent("replay", trace.WithTimestamp(w.accepted), trace.WithAttributes(attribute.String("headpond.dead_letter", w.replays)))
	}
	for _, f := range tries {
		if f.at.After(w.accepted) {
			span.AddEvent("retry", trace.WithTimestamp(f.at), trace.WithAttributes(errorAttributes(string(f.class), f.sqlstate)...))
		}
	}
	first, last := w.first, w.last()
	for _, d := range report.Dead[w.place] {
		if d.ID.Epoch == first.Epoch && d.ID.Seq >= first.Seq && d.ID.Seq <= last.Seq {
			span.SetStatus(codes.Error, "dead letter")
			span.AddEvent("dead letter", trace.WithTimestamp(report.Committed), trace.WithAttributes(
				semconv.DBResponseStatusCode(d.SQLState), attribute.String("headpond.receipt", w.place.Receipt(d.ID))))
		}
	}
}

// failedFlushes are the flushes of a partition that failed since one was committed, the
// last few. Safe for concurrent use.
type failedFlushes struct {
	mu sync.Mutex
	of map[buffer.Place][]failedFlush
}

type failedFlush struct {
	at       time.Time
	class    Class
	sqlstate string
}

const mostFailures = 16

func (f *failedFlushes) note(tbl string, partitions []int, err error) {
	one := failedFlush{time.Now(), ClassOf(err), stateOf(err)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of == nil {
		f.of = make(map[buffer.Place][]failedFlush)
	}
	for _, i := range partitions {
		p := buffer.Place{Table: tbl, Partition: i}
		all := append(f.of[p], one)
		f.of[p] = slices.Clone(all[max(len(all)-mostFailures, 0):])
	}
}

// take gives those of a place, and forgets them.
func (f *failedFlushes) take(p buffer.Place) []failedFlush {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.of[p]
	delete(f.of, p)
	return out
}
