package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	promclient "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/runtime"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/buffer"
)

// telemetry is the metrics of this process: OpenTelemetry instruments, read by
// an exporter that serves them as OpenMetrics.
type telemetry struct {
	provider *sdkmetric.MeterProvider
	handler  http.Handler
	lag      lagHistogram
}

func newTelemetry() (*telemetry, error) {
	t := &telemetry{lag: lagHistogram{tables: make(map[string]*lagCounts), start: time.Now()}}
	registry := promclient.NewRegistry()
	exporter, err := prometheus.New(prometheus.WithRegisterer(registry), prometheus.WithoutScopeInfo(), prometheus.WithProducer(&t.lag))
	if err != nil {
		return nil, fmt.Errorf("start metrics: %w", err)
	}
	t.provider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))
	if err := runtime.Start(runtime.WithMeterProvider(t.provider)); err != nil {
		return nil, fmt.Errorf("start runtime metrics: %w", err)
	}
	t.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
	return t, nil
}

func (t *telemetry) close() { _ = t.provider.Shutdown(context.Background()) }

// Lag implements flusher.Observer.
func (t *telemetry) Lag(table string, lag time.Duration, rows int64) { t.lag.record(table, lag, rows) }

// observe registers everything that is counted elsewhere and only read here.
func (t *telemetry) observe(a *app) error {
	m := t.provider.Meter("github.com/headpond/headpond")
	o := &observer{meter: m}
	c := a.buffer.Counters()
	o.counter("headpond_accepted_rows", "Rows accepted by this process.", "{row}", c.Rows.Load)
	o.counter("headpond_accepted_bytes", "Bytes of rows accepted by this process.", "By", c.Bytes.Load)
	o.counter("headpond_append_calls", "Script calls that appended rows.", "{call}", c.Calls.Load)
	o.counter("headpond_append_repeats", "Script calls that Redis recognised as sent before.", "{call}", c.Repeats.Load)
	o.counter("headpond_append_retries", "Script calls that were not answered, and sent again.", "{call}", c.Retries.Load)
	o.refused(c)
	o.counter("headpond_unknown_rows", "Rows whose outcome stayed unknown.", "{row}", c.Unknown.Load)
	o.counter("headpond_script_errors", "Script calls that Redis answered as no script of ours may be: a bug, or keys that others wrote to.", "{call}", c.Broken.Load)
	o.counter("headpond_direct_rows", "Rows written to Postgres before their answer.", "{row}", c.DirectRows.Load)
	o.counter("headpond_direct_commits", "Transactions of those rows.", "{transaction}", c.DirectCommits.Load)
	o.counter("headpond_read_hits", "Reads answered from Redis.", "{read}", c.Hits.Load)
	o.counter("headpond_read_misses", "Reads that Redis could not answer.", "{read}", c.Misses.Load)
	o.counter("headpond_fills_refused", "Loaded rows that were not stored, because a write came in between.", "{row}", c.FillLost.Load)
	if a.role.api() {
		o.counter("headpond_returned_rows", "Rows that Redis had lost and this process gave back.", "{row}", c.Returned.Load)
		o.counter("headpond_late_rows", "Rows that this process held, and that the others did not wait for after Redis had lost them.", "{row}", c.Late.Load)
		_, err := o.meter.Int64ObservableGauge("headpond_memory_bytes", metric.WithDescription("Acknowledged rows that this process keeps until they are committed."), metric.WithUnit("By"),
			metric.WithInt64Callback(func(_ context.Context, r metric.Int64Observer) error { r.Observe(a.buffer.Held()); return nil }))
		o.keep(err)
		o.ledger(a)
		o.pressure(a)
		o.clients(a)
		o.cache(a)
	}
	if a.role.flusher() {
		o.flusher(a)
	}
	return o.err
}

// observer registers instruments, and remembers the first error.
type observer struct {
	meter metric.Meter
	err   error
}

func (o *observer) keep(err error) {
	if o.err == nil && err != nil {
		o.err = fmt.Errorf("register metric: %w", err)
	}
}

func (o *observer) counter(name, help, unit string, value func() int64) {
	_, err := o.meter.Int64ObservableCounter(name, metric.WithDescription(help), metric.WithUnit(unit),
		metric.WithInt64Callback(func(_ context.Context, r metric.Int64Observer) error { r.Observe(value()); return nil }))
	o.keep(err)
}

func (o *observer) gauge(name, help, unit string) metric.Float64ObservableGauge {
	g, err := o.meter.Float64ObservableGauge(name, metric.WithDescription(help), metric.WithUnit(unit))
	o.keep(err)
	return g
}

func (o *observer) total(name, help, unit string) metric.Float64ObservableCounter {
	g, err := o.meter.Float64ObservableCounter(name, metric.WithDescription(help), metric.WithUnit(unit))
	o.keep(err)
	return g
}

// ledger shows the books of all tables, as the API last read them.
func (o *observer) ledger(a *app) {
	rows := o.gauge("headpond_backlog_rows", "Rows accepted and not committed.", "{row}")
	size := o.gauge("headpond_backlog_bytes", "Bytes of rows accepted and not committed.", "By")
	oldest := o.gauge("headpond_oldest_unflushed_seconds", "Age of the oldest row that is not committed.", "s")
	accepted := o.total("headpond_ledger_accepted_rows", "Rows accepted, by all processes.", "{row}")
	committed := o.total("headpond_ledger_committed_rows", "Rows committed in Postgres.", "{row}")
	dead := o.total("headpond_ledger_dead_lettered_rows", "Rows that Postgres refused.", "{row}")
	coalesced := o.total("headpond_ledger_coalesced_rows", "Operations that were merged into another before they were written.", "{row}")
	lost := o.total("headpond_writes_lost", "Acknowledged rows that are lost.", "{row}")
	_, err := o.meter.RegisterCallback(func(_ context.Context, r metric.Observer) error {
		for name, b := range a.server.Books() {
			at := metric.WithAttributes(attribute.String("table", name))
			r.ObserveFloat64(rows, float64(b.Pending), at)
			r.ObserveFloat64(size, float64(b.Bytes), at)
			r.ObserveFloat64(oldest, b.Oldest.Seconds(), at)
			r.ObserveFloat64(accepted, float64(b.Accepted), at)
			r.ObserveFloat64(committed, float64(b.Committed), at)
			r.ObserveFloat64(dead, float64(b.Dead), at)
			r.ObserveFloat64(coalesced, float64(b.Coalesced), at)
			r.ObserveFloat64(lost, float64(b.Lost), at)
		}
		return nil
	}, rows, size, oldest, accepted, committed, dead, coalesced, lost)
	o.keep(err)
}

// cache shows what reads came to, in this process.
func (o *observer) cache(a *app) {
	type shown struct {
		in metric.Float64ObservableCounter
		of func(*api.CacheStats) float64
	}
	var all []shown
	add := func(name, help, unit string, of func(*api.CacheStats) float64) {
		all = append(all, shown{o.total(name, help, unit), of})
	}
	add("headpond_cache_hits", "Reads by key that were answered from Redis.", "{read}", func(c *api.CacheStats) float64 { return float64(c.Hits) })
	add("headpond_cache_misses", "Reads by key that were not.", "{read}", func(c *api.CacheStats) float64 { return float64(c.Misses) })
	add("headpond_cache_hit_seconds", "Time of the hits.", "s", func(c *api.CacheStats) float64 { return c.HitSeconds })
	add("headpond_cache_miss_seconds", "Time of the misses.", "s", func(c *api.CacheStats) float64 { return c.MissSeconds })
	add("headpond_cache_stale", "Hits of rows past their time.", "{read}", func(c *api.CacheStats) float64 { return float64(c.Stale) })
	add("headpond_cache_bypassed", "Misses because Redis could not be asked.", "{read}", func(c *api.CacheStats) float64 { return float64(c.Bypassed) })
	add("headpond_cache_refreshes", "Rows that were loaded again before or after their end.", "{row}", func(c *api.CacheStats) float64 { return float64(c.Refreshed) })
	add("headpond_cache_invalidated", "Rows that left the cache because somebody asked for it.", "{row}", func(c *api.CacheStats) float64 { return float64(c.Invalidated) })
	add("headpond_list_hits", "Lists that were answered from Redis.", "{read}", func(c *api.CacheStats) float64 { return float64(c.ListHits) })
	add("headpond_list_misses", "Lists that were not.", "{read}", func(c *api.CacheStats) float64 { return float64(c.ListMisses) })
	instruments := make([]metric.Observable, len(all))
	for i := range all {
		instruments[i] = all[i].in
	}
	_, err := o.meter.RegisterCallback(func(_ context.Context, r metric.Observer) error {
		for _, c := range a.server.CacheStats() {
			at := metric.WithAttributes(attribute.String("table", c.Table))
			for _, s := range all {
				r.ObserveFloat64(s.in, s.of(&c), at)
			}
		}
		return nil
	}, instruments...)
	o.keep(err)
}

// flusher shows the flushes of this process.
func (o *observer) flusher(a *app) {
	batches := o.total("headpond_flush_batches", "Batches committed by this process.", "{batch}")
	rows := o.total("headpond_flush_rows", "Rows committed by this process.", "{row}")
	coalesced := o.total("headpond_flush_coalesced_rows", "Of the rows committed by this process: merged into another before they were written.", "{row}")
	failures := o.total("headpond_flush_failures", "Batches that were not committed and are tried again.", "{batch}")
	dead := o.total("headpond_flush_dead_lettered_rows", "Rows that this process put into the dead letters.", "{row}")
	retries := o.total("headpond_flush_retries", "The same, by what was wrong.", "{batch}")
	breaker := o.gauge("headpond_flush_breaker", "0 closed, 1 half open, 2 open: nothing is flushed for a moment, since it would fail for every table.", "")
	halted := o.gauge("headpond_table_halted", "1 while a table waits for somebody to mend it.", "")
	changes := o.total("headpond_external_changes", "Rows that others changed in Postgres and that left the cache; a whole table counts once.", "{row}")
	conflicts := o.total("headpond_external_conflicts", "Of those, rows that had a change waiting (buffer-wins), and changes that were set aside for it (database-wins).", "{row}")
	_, err := o.meter.RegisterCallback(func(_ context.Context, r metric.Observer) error {
		o.external(a, r, changes, conflicts)
		stats := a.flusher.Stats()
		r.ObserveFloat64(breaker, map[string]float64{buffer.BreakerHalfOpen: 1, buffer.BreakerOpen: 2}[stats.Breaker.State])
		for name, s := range stats.Tables {
			if s.Retries["unreachable"] == 0 { // the metric is there before anything fails
				r.ObserveFloat64(retries, 0, metric.WithAttributes(attribute.String("table", name), attribute.String("class", "unreachable")))
			}
			for class, n := range s.Retries {
				r.ObserveFloat64(retries, float64(n), metric.WithAttributes(attribute.String("table", name), attribute.String("class", class)))
			}
			at := metric.WithAttributes(attribute.String("table", name))
			r.ObserveFloat64(batches, float64(s.Batches), at)
			r.ObserveFloat64(rows, float64(s.Rows), at)
			r.ObserveFloat64(coalesced, float64(s.Coalesced), at)
			r.ObserveFloat64(failures, float64(s.Failures), at)
			r.ObserveFloat64(dead, float64(s.Dead), at)
			h := 0.0
			if s.Halted {
				h = 1
			}
			r.ObserveFloat64(halted, h, at)
		}
		return nil
	}, batches, rows, coalesced, failures, retries, breaker, dead, halted, changes, conflicts)
	o.keep(err)
}

// external shows what others changed, as the watcher of this process found it.
func (o *observer) external(a *app, r metric.Observer, changes, conflicts metric.Float64Observable) {
	found := a.external.Changes()
	for name := range a.watches.tables() {
		policy, at := a.config.table(name).OnExternal, attribute.String("table", name)
		r.ObserveFloat64(changes, float64(found[name]), metric.WithAttributes(at))
		r.ObserveFloat64(conflicts, float64(a.external.Conflicts(name, policy)), metric.WithAttributes(at, attribute.String("policy", policy)))
	}
}

// lagBounds are the histogram's buckets, in seconds: from a commit that
// follows at once to an outage of an hour.
var lagBounds = []float64{
	.005, .01, .025, .05, .075, .1, .15, .2, .3, .5, .75, 1, 2, 5, 10, 30, 60, 300, 900, 3600,
}

// lagHistogram counts every row, thousands at a time, which no instrument of
// the SDK can: so it hands its counts to the reader itself.
type lagHistogram struct {
	mu     sync.Mutex // guards tables
	tables map[string]*lagCounts
	start  time.Time
}

type lagCounts struct {
	counts []uint64
	sum    float64
	total  uint64
}

func (h *lagHistogram) record(table string, lag time.Duration, rows int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.tables[table]
	if c == nil {
		c = &lagCounts{counts: make([]uint64, len(lagBounds)+1)}
		h.tables[table] = c
	}
	i := 0
	for i < len(lagBounds) && lag.Seconds() > lagBounds[i] {
		i++
	}
	n := uint64(max(rows, 0)) //nolint:gosec // not negative
	c.counts[i] += n
	c.total += n
	c.sum += lag.Seconds() * float64(n)
}

// Produce implements metric.Producer.
func (h *lagHistogram) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var points []metricdata.HistogramDataPoint[float64]
	now := time.Now()
	for name, c := range h.tables {
		points = append(points, metricdata.HistogramDataPoint[float64]{
			Attributes: attribute.NewSet(attribute.String("table", name)), StartTime: h.start, Time: now,
			Count: c.total, Sum: c.sum, Bounds: lagBounds, BucketCounts: append([]uint64(nil), c.counts...),
		})
	}
	if len(points) == 0 {
		return nil, nil
	}
	return []metricdata.ScopeMetrics{{Metrics: []metricdata.Metrics{{
		Name: "headpond_durability_lag", Unit: "s", Description: "From accepted to committed, for every row.",
		Data: metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality, DataPoints: points},
	}}}}, nil
}
