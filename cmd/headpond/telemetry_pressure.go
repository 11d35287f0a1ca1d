package main

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/headpond/headpond/buffer"
)

// refused shows the rows that caps refused.
func (o *observer) refused(c *buffer.Counters) {
	rows := o.total("headpond_refused_rows", "Rows refused because a cap of the backlog was reached.", "{row}")
	_, err := o.meter.RegisterCallback(func(_ context.Context, r metric.Observer) error {
		for _, by := range buffer.EveryCap {
			r.ObserveFloat64(rows, float64(c.Refused(by)), metric.WithAttributes(attribute.String("reason", string(by))))
		}
		return nil
	}, rows)
	o.keep(err)
}

// pressure shows which tables are refused now, and the memory of Redis.
func (o *observer) pressure(a *app) {
	refusing := o.gauge("headpond_refusing", "1 while writes to a table are refused because a cap was reached.", "{table}")
	used := o.gauge("headpond_redis_memory_pinned_bytes", "Memory of Redis that no eviction can free.", "By")
	most := o.gauge("headpond_redis_memory_max_bytes", "Memory that Redis may use.", "By")
	_, err := o.meter.RegisterCallback(func(_ context.Context, r metric.Observer) error {
		for name := range a.server.Books() {
			is := 0.0
			if a.buffer.Refusing(name).Full != nil {
				is = 1
			}
			r.ObserveFloat64(refusing, is, metric.WithAttributes(attribute.String("table", name)))
		}
		m := a.server.Memory()
		r.ObserveFloat64(used, float64(m.Pinned))
		r.ObserveFloat64(most, float64(m.Max))
		return nil
	}, refusing, used, most)
	o.keep(err)
}

// clients shows what was refused before anybody looked at it.
func (o *observer) clients(a *app) {
	_, err := o.meter.Int64ObservableGauge("headpond_http_connections", metric.WithDescription("Connections of clients."), metric.WithUnit("{connection}"),
		metric.WithInt64Callback(func(_ context.Context, r metric.Int64Observer) error {
			if l := a.listener.Load(); l != nil {
				r.Observe(l.Open())
			}
			return nil
		}))
	o.keep(err)
	o.counter("headpond_http_connections_refused", "Connections that were one too many.", "{connection}", func() int64 {
		if l := a.listener.Load(); l != nil {
			return l.Refused()
		}
		return 0
	})
	o.counter("headpond_http_rate_limited", "Requests refused because their client was too fast.", "{request}", a.server.RateLimited)
}
