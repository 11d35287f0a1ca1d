package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/headpond/headpond/buffer/table"
)

// flushes measures batches.
type flushes struct {
	rows metric.Int64Histogram
	took metric.Float64Histogram
}

func newFlushes(m metric.Meter) (*flushes, error) {
	rows, err := m.Int64Histogram("headpond_flush_batch_rows", metric.WithUnit("{row}"), metric.WithDescription("Rows of the batches committed by this process."),
		metric.WithExplicitBucketBoundaries(1, 10, 100, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000))
	if err != nil {
		return nil, err
	}
	took, err := m.Float64Histogram("headpond_flush_duration", metric.WithUnit("s"), metric.WithDescription("Time of a batch, from looking at the log to telling Redis of the commit."),
		metric.WithExplicitBucketBoundaries(lagBounds...))
	return &flushes{rows, took}, err
}

// Flushed implements flusher.Observer.
func (t *telemetry) Flushed(table, outcome string, rows int, took time.Duration) {
	if t.flushes == nil {
		return
	}
	of := attribute.String("table", table)
	t.flushes.took.Record(context.Background(), took.Seconds(), metric.WithAttributes(of, attribute.String("outcome", outcome)))
	if rows > 0 {
		t.flushes.rows.Record(context.Background(), int64(rows), metric.WithAttributes(of))
	}
}

// Lag implements flusher.Observer.
func (t *telemetry) Lag(table string, lag time.Duration, rows int64) { t.lag.record(table, lag, rows) }

// Sampled implements flusher.Observer.
func (t *telemetry) Sampled(table string, lag time.Duration, of table.Span) {
	t.lag.exemplar(table, lag, of)
}

// lagBounds are the histogram's buckets, in seconds: from a commit that
// follows at once to an outage of an hour.
var lagBounds = []float64{
	.005, .01, .025, .05, .075, .1, .15, .2, .3, .5, .75, 1, 2, 5, 10, 30, 60, 300, 900, 3600,
}

// lagHistogram counts every row, thousands at a time, which no instrument of
// the SDK can: so it hands its counts to the readers itself.
type lagHistogram struct {
	mu     sync.Mutex // guards tables
	tables map[string]*lagCounts
	start  time.Time
}

type lagCounts struct {
	counts    []uint64
	sum       float64
	total     uint64
	exemplars []metricdata.Exemplar[float64] // the last sampled write of each bucket; zero where there was none
}

func (h *lagHistogram) record(table string, lag time.Duration, rows int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.of(table)
	n := uint64(max(rows, 0)) //nolint:gosec // not negative
	c.counts[bucketOf(lag)] += n
	c.total += n
	c.sum += lag.Seconds() * float64(n)
}

func (h *lagHistogram) exemplar(table string, lag time.Duration, of table.Span) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.of(table).exemplars[bucketOf(lag)] = metricdata.Exemplar[float64]{
		Time: time.Now(), Value: lag.Seconds(), SpanID: of.Span[:], TraceID: of.Trace[:],
	}
}

// of a table. The caller holds mu.
func (h *lagHistogram) of(table string) *lagCounts {
	c := h.tables[table]
	if c == nil {
		c = &lagCounts{counts: make([]uint64, len(lagBounds)+1), exemplars: make([]metricdata.Exemplar[float64], len(lagBounds)+1)}
		h.tables[table] = c
	}
	return c
}

func bucketOf(lag time.Duration) int {
	i := 0
	for i < len(lagBounds) && lag.Seconds() > lagBounds[i] {
		i++
	}
	return i
}

// Produce implements metric.Producer.
func (h *lagHistogram) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var points []metricdata.HistogramDataPoint[float64]
	now := time.Now()
	for name, c := range h.tables {
		p := metricdata.HistogramDataPoint[float64]{
			Attributes: attribute.NewSet(attribute.String("table", name)), StartTime: h.start, Time: now,
			Count: c.total, Sum: c.sum, Bounds: lagBounds, BucketCounts: slices.Clone(c.counts),
		}
		for _, e := range c.exemplars {
			if e.TraceID != nil {
				p.Exemplars = append(p.Exemplars, e)
			}
		}
		points = append(points, p)
	}
	if len(points) == 0 {
		return nil, nil
	}
	return []metricdata.ScopeMetrics{{Metrics: []metricdata.Metrics{{
		Name: "headpond_durability_lag", Unit: "s", Description: "From accepted to committed, for every row.",
		Data: metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality, DataPoints: points},
	}}}}, nil
}
