package main_test

import (
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// receiver takes spans and metrics over OTLP, by gRPC and by HTTP.
type receiver struct {
	collectortrace.UnimplementedTraceServiceServer

	http, grpc string // addresses, as URLs

	mu      sync.Mutex
	spans   []*span
	metrics map[string]*metricspb.Metric
	raw     [][]byte // all that came
}

// span is one that was received, with its ids in hex.
type span struct {
	*tracepb.Span
	service           string
	trace, id, parent string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{metrics: make(map[string]*metricspb.Metric)}
	web := httptest.NewServer(http.HandlerFunc(r.take))
	t.Cleanup(web.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(server, r)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	r.http, r.grpc = web.URL, "http://"+l.Addr().String()
	return r
}

func (r *receiver) take(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var sent collectortrace.ExportTraceServiceRequest
	var measured collectormetrics.ExportMetricsServiceRequest
	switch q.URL.Path {
	case "/v1/traces":
		if err = proto.Unmarshal(body, &sent); err == nil {
			_, err = r.Export(q.Context(), &sent)
		}
	case "/v1/metrics":
		if err = proto.Unmarshal(body, &measured); err == nil {
			r.measured(&measured)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// Export implements the gRPC service.
func (r *receiver) Export(_ context.Context, q *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	raw, err := proto.Marshal(q)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.raw = append(r.raw, raw)
	for _, of := range q.GetResourceSpans() {
		service := attributeOf(of.GetResource().GetAttributes(), "service.name").GetStringValue()
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				r.spans = append(r.spans, &span{
					Span: s, service: service,
					trace: hex.EncodeToString(s.GetTraceId()), id: hex.EncodeToString(s.GetSpanId()), parent: hex.EncodeToString(s.GetParentSpanId()),
				})
			}
		}
	}
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

func (r *receiver) measured(q *collectormetrics.ExportMetricsServiceRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range q.GetResourceMetrics() {
		for _, scope := range of.GetScopeMetrics() {
			for _, m := range scope.GetMetrics() {
				r.metrics[m.GetName()] = m
			}
		}
	}
}

// named gives the spans of a trace with a name; those of every trace for "".
func (r *receiver) named(trace, name string) (out []*span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if (trace == "" || s.trace == trace) && s.GetName() == name {
			out = append(out, s)
		}
	}
	return out
}

// one waits for the only span of a trace with a name.
func (r *receiver) one(t *testing.T, trace, name string) *span {
	t.Helper()
	await(t, "span "+name+" of "+trace, func() bool { return len(r.named(trace, name)) > 0 })
	all := r.named(trace, name)
	require.Len(t, all, 1, "%s of %s", name, trace)
	return all[0]
}

// children of a span, by their names.
func (r *receiver) children(of *span) (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if s.trace == of.trace && s.parent == of.id {
			names = append(names, s.GetName())
		}
	}
	slices.Sort(names)
	return names
}

// told reports whether something was in what was sent.
func (r *receiver) told(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.raw, func(raw []byte) bool { return strings.Contains(string(raw), text) })
}

func (s *span) ended() time.Time   { return time.Unix(0, int64(s.GetEndTimeUnixNano())) }   //nolint:gosec // of today
func (s *span) started() time.Time { return time.Unix(0, int64(s.GetStartTimeUnixNano())) } //nolint:gosec // of today

func (s *span) text(name string) string {
	return attributeOf(s.GetAttributes(), name).GetStringValue()
}

func (s *span) number(name string) int64 {
	return attributeOf(s.GetAttributes(), name).GetIntValue()
}

// linksTo reports whether the span has a link to another.
func (s *span) linksTo(other *span) bool {
	return slices.ContainsFunc(s.GetLinks(), func(l *tracepb.Span_Link) bool {
		return hex.EncodeToString(l.GetTraceId()) == other.trace && hex.EncodeToString(l.GetSpanId()) == other.id
	})
}

func (s *span) event(name string) *tracepb.Span_Event {
	for _, e := range s.GetEvents() {
		if e.GetName() == name {
			return e
		}
	}
	return nil
}

func attributeOf(all []*common.KeyValue, name string) *common.AnyValue {
	for _, a := range all {
		if a.GetKey() == name {
			return a.GetValue()
		}
	}
	return nil
}
