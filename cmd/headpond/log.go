package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"github.com/mattn/go-isatty"
	"github.com/urfave/cli/v3"
	"go.opentelemetry.io/otel/trace"
)

// newLog writes to stderr: for people on a terminal, JSON otherwise.
func newLog(level string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo
	}
	if isatty.IsTerminal(os.Stderr.Fd()) {
		return slog.New(traceLog{tint.NewHandler(os.Stderr, &tint.Options{
			Level: l, TimeFormat: time.TimeOnly, NoColor: os.Getenv("NO_COLOR") != "",
		})})
	}
	return slog.New(traceLog{slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: l})})
}

// traceLog says of each line in which trace it was written, if in any.
type traceLog struct{ slog.Handler }

// Handle implements slog.Handler.
func (h traceLog) Handle(ctx context.Context, r slog.Record) error {
	if in := trace.SpanContextFromContext(ctx); in.HasTraceID() {
		r.AddAttrs(slog.String("trace_id", in.TraceID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h traceLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traceLog{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h traceLog) WithGroup(name string) slog.Handler { return traceLog{h.Handler.WithGroup(name)} }

// driverLog takes what go-redis says of its connections: what matters of it
// comes back as an error, and is said once by who made the call.
type driverLog struct{ log *slog.Logger }

// Printf implements the driver's logging interface.
func (d driverLog) Printf(ctx context.Context, format string, v ...any) {
	d.log.DebugContext(ctx, fmt.Sprintf(format, v...), "from", "go-redis")
}

func logFlag() cli.Flag {
	return &cli.StringFlag{Name: "log-level", Usage: "debug, info, warn or error", Value: "info", Sources: cli.EnvVars("HEADPOND_LOG_LEVEL")}
}
