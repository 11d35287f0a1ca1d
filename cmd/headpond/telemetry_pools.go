package main

import (
	"context"
	"runtime"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// process shows which build this is, and its connections.
func (o *observer) process(a *app) {
	info := o.gauge("headpond_build_info", "1; the version is a label.", "")
	redis := o.gauge("headpond_redis_connections", "Connections to Redis.", "{connection}")
	waits := o.total("headpond_redis_connection_timeouts", "Times that no connection to Redis was free in time.", "{time}")
	postgres := o.gauge("headpond_postgres_connections", "Connections to Postgres.", "{connection}")
	most := o.gauge("headpond_postgres_connections_max", "Connections to Postgres that a pool may have.", "{connection}")
	waited := o.total("headpond_postgres_connection_waits", "Times that all connections of a pool were busy.", "{time}")
	waitedFor := o.total("headpond_postgres_connection_wait_seconds", "Time that was waited for a connection of a pool.", "s")
	build := metric.WithAttributes(attribute.String("version", version()), attribute.String("go_version", runtime.Version()))
	idle, used := attribute.String("state", "idle"), attribute.String("state", "used")
	pools := map[string]*pgxpool.Pool{"api": a.pool, "flusher": a.flushPool, "direct": a.writePool}
	_, err := o.meter.RegisterCallback(func(_ context.Context, r metric.Observer) error {
		r.ObserveFloat64(info, 1, build)
		p := a.buffer.Pool()
		r.ObserveFloat64(redis, float64(p.Idle), metric.WithAttributes(idle))
		r.ObserveFloat64(redis, float64(p.Total-min(p.Idle, p.Total)), metric.WithAttributes(used))
		r.ObserveFloat64(waits, float64(p.Timeouts))
		for name, pool := range pools {
			s, of := pool.Stat(), attribute.String("pool", name)
			r.ObserveFloat64(postgres, float64(s.IdleConns()), metric.WithAttributes(of, idle))
			r.ObserveFloat64(postgres, float64(s.TotalConns()-s.IdleConns()), metric.WithAttributes(of, used))
			at := metric.WithAttributes(of)
			r.ObserveFloat64(most, float64(s.MaxConns()), at)
			r.ObserveFloat64(waited, float64(s.EmptyAcquireCount()), at)
			r.ObserveFloat64(waitedFor, s.EmptyAcquireWaitTime().Seconds(), at)
		}
		return nil
	}, info, redis, waits, postgres, most, waited, waitedFor)
	o.keep(err)
}
