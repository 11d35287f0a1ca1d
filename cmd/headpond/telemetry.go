package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	promclient "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/contrib/instrumentation/runtime"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/buffer"
)

// telemetry is the metrics and the spans of this process: OpenTelemetry instruments,
// read by an exporter that serves them as OpenMetrics, and by others as OTEL_*
// variables say. With OTEL_SDK_DISABLED there is nothing of it.
type telemetry struct {
	*tracing
	provider *sdkmetric.MeterProvider // nil: no metrics
	handler  http.Handler
	heard    api.Heard
	flushes  *flushes
	lag      lagHistogram
}

func newTelemetry(ctx context.Context, log *slog.Logger) (*telemetry, error) {
	t := &telemetry{tracing: &tracing{}, lag: lagHistogram{tables: make(map[string]*lagCounts), start: time.Now()}}
	if sdkDisabled() {
		return t, nil
	}
	sayTelemetryTrouble(log)
	of := newResource(ctx, log)
	var err error
	if t.tracing, err = newTracing(ctx, of); err != nil {
		return nil, err
	}
	registry := promclient.NewRegistry()
	exporter, err := prometheus.New(prometheus.WithRegisterer(registry), prometheus.WithoutScopeInfo(), prometheus.WithProducer(&t.lag))
	if err != nil {
		return nil, fmt.Errorf("start metrics: %w", err)
	}
	readers := []sdkmetric.Option{sdkmetric.WithResource(of), sdkmetric.WithReader(exporter)}
	if exports("METRICS") {
		autoexport.WithFallbackMetricProducer(func(context.Context) (sdkmetric.Producer, error) { return &t.lag, nil })
		pushed, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return nil, usage(fmt.Errorf("OTEL_METRICS_EXPORTER=%s, OTEL_EXPORTER_OTLP_PROTOCOL=%s: %w",
				os.Getenv("OTEL_METRICS_EXPORTER"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), err))
		}
		readers = append(readers, sdkmetric.WithReader(pushed))
	}
	t.provider = sdkmetric.NewMeterProvider(readers...)
	if err := runtime.Start(runtime.WithMeterProvider(t.provider)); err != nil {
		return nil, fmt.Errorf("start runtime metrics: %w", err)
	}
	t.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
	meter := t.provider.Meter(instrumentation)
	r, err := newRequests(meter)
	if err != nil {
		return nil, fmt.Errorf("register metric: %w", err)
	}
	t.heard = r.heard
	if t.flushes, err = newFlushes(meter); err != nil {
		return nil, fmt.Errorf("register metric: %w", err)
	}
	return t, nil
}

func (t *telemetry) close() {
	t.tracing.close()
	if t.provider != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		_ = t.provider.Shutdown(ctx) // an endpoint that is away was told of before
	}
}

// observe registers everything that is counted elsewhere and only read here.
func (t *telemetry) observe(a *app) error {
	if t.provider == nil {
		return nil
	}
	o := &observer{meter: t.provider.Meter(instrumentation)}
	o.process(a)
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
	sources := o.total("headpond_reads", "Reads by key, by where the row was.", "{read}")
	instruments = append(instruments, sources)
	_, err := o.meter.RegisterCallback(func(_ context.Context, r metric.Observer) error {
		for _, c := range a.server.CacheStats() {
			for source, n := range map[string]int64{"buffer": c.Pending, "cache": c.Hits - c.Pending, "postgres": c.Misses} {
				r.ObserveFloat64(sources, float64(n), metric.WithAttributes(attribute.String("table", c.Table), attribute.String("source", source)))
			}
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
