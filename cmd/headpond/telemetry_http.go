package main

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// requests measures the answers of the API.
type requests struct {
	took metric.Float64Histogram
	sets sync.Map // of requestOf: metric.MeasurementOption
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
	return &requests{took: took}, err
}

// heard implements api.Heard.
func (r *requests) heard(ctx context.Context, method, route string, status int, took time.Duration) {
	of := requestOf{method, route, status}
	set, known := r.sets.Load(of)
	if !known {
		set, _ = r.sets.LoadOrStore(of, metric.WithAttributeSet(attribute.NewSet(
			semconv.HTTPRequestMethodKey.String(method), semconv.HTTPRoute(route), semconv.HTTPResponseStatusCode(status))))
	}
	r.took.Record(ctx, took.Seconds(), set.(metric.MeasurementOption)) //nolint:forcetypeassert // nothing else is stored
}
