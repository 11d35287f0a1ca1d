package main

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// requests measures the answers of the API.
type requests struct {
	took metric.Float64Histogram
	mu   sync.Mutex // held by who changes known
	// known grows by copies: to read it costs no lock.
	known atomic.Pointer[map[requestOf][]metric.RecordOption]
}

// requestOf is what is told apart: methods, routes and statuses are few.
type requestOf struct {
	method, route string
	status        int
}

// newRequests: the buckets are those of OpenTelemetry's conventions.
func newRequests(m metric.Meter) (*requests, error) {
	took, err := m.Float64Histogram("http.server.request.duration", metric.WithUnit("s"), metric.WithDescription("Time of the API's answers."),
		metric.WithExplicitBucketBoundaries(.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10))
	r := &requests{took: took}
	r.known.Store(&map[requestOf][]metric.RecordOption{})
	return r, err
}

// heard implements api.Heard.
func (r *requests) heard(ctx context.Context, method, route string, status int, took time.Duration) {
	of := requestOf{method, route, status}
	set, known := (*r.known.Load())[of]
	if !known {
		set = r.learn(of)
	}
	r.took.Record(ctx, took.Seconds(), set...)
}

func (r *requests) learn(of requestOf) []metric.RecordOption {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := maps.Clone(*r.known.Load())
	all[of] = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(
		semconv.HTTPRequestMethodKey.String(of.method), semconv.HTTPRoute(of.route), semconv.HTTPResponseStatusCode(of.status)))}
	r.known.Store(&all)
	return all[of]
}
