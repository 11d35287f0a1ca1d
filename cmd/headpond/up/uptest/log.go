package uptest

import (
	"io"
	"log/slog"
	"testing"
)

// logTo writes to the test's own log, without the time. A server is stopped in
// a cleanup, so nothing is written after the test's end.
func logTo(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func silent() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }
