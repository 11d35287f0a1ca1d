package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/uuid"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// The OTEL_* variables of OpenTelemetry's specification decide what is exported and
// which requests are sampled. Without any of them nothing is: where they name an
// endpoint and no exporter, the exporter is otlp, as the specification has it.

// sdkDisabled is OTEL_SDK_DISABLED.
func sdkDisabled() bool { return strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") }

// exports reports whether a signal (TRACES, METRICS) is to be exported.
func exports(signal string) bool {
	exporter := os.Getenv("OTEL_" + signal + "_EXPORTER")
	if exporter == "" {
		return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
	}
	return exporter != "none"
}

// tracing makes spans and exports them. The zero value makes none.
type tracing struct {
	tracer    trace.Tracer // nil: no spans
	flushing  trace.Tracer // of the flusher
	providers []*sdktrace.TracerProvider
	ballast   []byte
}

// ballastSize makes the collector run at 64 MiB more of garbage. Spans are garbage at
// once, and on a heap of 15 MiB they would have it run all the time: without ballast
// every request traced costs 6 % more of the rate of single POSTs. Nobody touches it, so
// it takes no memory itself.
const ballastSize = 32 << 20

// instrumentation is the name of the scope of our spans and metrics.
const instrumentation = "github.com/headpond/headpond"

func newTracing(ctx context.Context, of *resource.Resource) (*tracing, error) {
	if sdkDisabled() || !exports("TRACES") {
		return &tracing{}, nil
	}
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return nil, usage(fmt.Errorf("OTEL_TRACES_EXPORTER=%s, OTEL_EXPORTER_OTLP_PROTOCOL=%s: %w",
			os.Getenv("OTEL_TRACES_EXPORTER"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), err))
	}
	spans := sdktrace.NewBatchSpanProcessor(exporter, batches()...) // drops what the endpoint does not take: nobody waits for it
	provider := func(o ...sdktrace.TracerProviderOption) *sdktrace.TracerProvider {
		return sdktrace.NewTracerProvider(append(o, sdktrace.WithSpanProcessor(spans), sdktrace.WithResource(of))...)
	}
	t := &tracing{providers: []*sdktrace.TracerProvider{provider()}, ballast: make([]byte, ballastSize)}
	t.tracer = t.providers[0].Tracer(instrumentation)
	t.flushing = t.tracer
	if !strings.HasSuffix(os.Getenv("OTEL_TRACES_SAMPLER"), "always_off") {
		t.providers = append(t.providers, provider(sdktrace.WithSampler(sdktrace.AlwaysSample())))
		t.flushing = linkTracer{chosen: t.tracer, always: t.providers[1].Tracer(instrumentation)}
	}
	return t, nil
}

// batches of spans are larger than the SDK's 512, where OTEL_BSP_* do not say how large
// they are: with every request traced that is 6 % of the rate of single POSTs.
func batches() []sdktrace.BatchSpanProcessorOption {
	if os.Getenv("OTEL_BSP_MAX_QUEUE_SIZE") != "" || os.Getenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") != "" {
		return nil
	}
	return []sdktrace.BatchSpanProcessorOption{sdktrace.WithMaxQueueSize(8192), sdktrace.WithMaxExportBatchSize(2048)}
}

// closeTime is how long the last spans and metrics may take to leave.
const closeTime = 2 * time.Second

func (t *tracing) close() {
	t.ballast = nil
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	for _, p := range t.providers {
		_ = p.Shutdown(ctx) // an endpoint that is away was told of before
	}
}

// linkTracer samples what the chosen sampler samples, and the flush of any sampled
// write: a flush begins a trace of its own, for which a sampler of roots would throw
// its dice again.
type linkTracer struct {
	embedded.Tracer
	chosen, always trace.Tracer
}

// Start implements trace.Tracer.
func (t linkTracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	switch parent := trace.SpanContextFromContext(ctx); {
	case parent.IsSampled() && !parent.IsRemote():
		return t.always.Start(ctx, name, options...)
	case parent.IsValid():
		return t.chosen.Start(ctx, name, options...)
	}
	cfg := trace.NewSpanStartConfig(options...)
	if slices.ContainsFunc(cfg.Links(), func(l trace.Link) bool { return l.SpanContext.IsSampled() }) {
		return t.always.Start(ctx, name, options...)
	}
	return t.chosen.Start(ctx, name, options...)
}

// newResource is what spans and metrics say of this process.
func newResource(ctx context.Context, log *slog.Logger) *resource.Resource {
	id, _ := uuid.NewRandom() // of zeros when there is no randomness
	of, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		semconv.ServiceName("headpond"), semconv.ServiceVersion(version()), semconv.ServiceInstanceID(id.String()),
	), resource.WithFromEnv())
	if err != nil {
		log.Warn("OTEL_RESOURCE_ATTRIBUTES cannot be read; it must be name=value,…")
	}
	return of
}

// telemetryTrouble says what goes wrong with telemetry, at most once a minute.
type telemetryTrouble struct {
	log  *slog.Logger
	mu   sync.Mutex // guards what follows
	told time.Time
	more int
}

// Handle implements otel.ErrorHandler.
func (t *telemetryTrouble) Handle(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if errors.Is(err, context.Canceled) {
		return
	}
	if t.more++; time.Since(t.told) < time.Minute {
		return
	}
	t.log.Warn("telemetry cannot be exported; nothing else is affected", "error", err, "times", t.more)
	t.told, t.more = time.Now(), 0
}

// sayTelemetryTrouble sends what OpenTelemetry says of itself to the log. Its own logger
// prints settings, which may hold secrets.
func sayTelemetryTrouble(log *slog.Logger) {
	otel.SetErrorHandler(&telemetryTrouble{log: log})
	otel.SetLogger(logr.Discard())
}
