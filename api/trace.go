package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/headpond/headpond/buffer"
)

// Heard hears of each answer. ctx has the request's span, route is "" where no
// route was found. It must be quick and safe for concurrent use.
type Heard func(ctx context.Context, method, route string, status int, took time.Duration)

var traceContext propagation.TraceContext // W3C

// observed puts a request into the trace that its client names, or begins one, and
// tells how long it took. Probes, pages and streams are in no trace. Paths hold
// keys, so that a span has the route alone.
func (s *Server) observed(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		began := time.Now()
		r, route := c.Request(), c.Path()
		ctx := r.Context()
		if r.Header["Traceparent"] != nil {
			ctx = traceContext.Extract(ctx, propagation.HeaderCarrier(r.Header))
		}
		var span trace.Span
		if s.tracer != nil && !untraced(route) {
			var in context.Context
			if in, span = s.tracer.Start(ctx, strings.TrimSpace(method(r)+" "+route), serverSpan...); span.IsRecording() {
				ctx = in
			}
		}
		if ctx != r.Context() { // else nobody asks for it, and a copy of the request costs time
			c.SetRequest(r.WithContext(ctx))
		}
		if err := next(c); err != nil {
			c.Error(err)
		}
		status := c.Response().Status
		if span != nil {
			if span.IsRecording() {
				describe(span, method(r), route, status)
			}
			span.End()
		}
		if s.heard != nil {
			s.heard(ctx, method(r), route, status, time.Since(began))
		}
		return nil
	}
}

var serverSpan = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}

func describe(span trace.Span, method, route string, status int) {
	span.SetAttributes(semconv.HTTPRequestMethodKey.String(method), semconv.URLScheme("http"), semconv.HTTPResponseStatusCode(status))
	if route != "" {
		span.SetAttributes(semconv.HTTPRoute(route))
	}
	if status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, "")
	}
}

// method of a request, as OpenTelemetry's conventions bound it.
func method(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return r.Method
	}
	return "_OTHER"
}

func untraced(route string) bool {
	switch route {
	case "/livez", "/readyz", "/metrics", "/admin/v1/events":
		return true
	}
	return strings.HasPrefix(route, "/dashboard") || strings.HasPrefix(route, "/docs")
}

// traced says in which span the operations of a task are made.
func (t *task) traced(ctx context.Context) {
	if in := trace.SpanContextFromContext(ctx); in.IsSampled() {
		for _, o := range t.ops {
			o.span = in
		}
	}
}

// traceID is that of the request's trace, or a new one.
func traceID(r *http.Request) string {
	in := trace.SpanContextFromContext(r.Context())
	if !in.HasTraceID() { // it came to no handler
		in = trace.SpanContextFromContext(traceContext.Extract(context.Background(), propagation.HeaderCarrier(r.Header)))
	}
	if in.HasTraceID() {
		return in.TraceID().String()
	}
	var id [16]byte
	_, _ = rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// mostLinks of a span, as flushes have them: the SDK keeps 128.
const mostLinks = 64

// linkLetters leads from the trace of a request that replays dead letters to those
// of the writes that they were.
func linkLetters(ctx context.Context, all []*replay) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	links := 0
	for _, r := range all {
		if of := buffer.ContextOf(r.letter.Span); of.IsValid() && links < mostLinks {
			span.AddLink(trace.Link{SpanContext: of})
			links++
		}
	}
}
