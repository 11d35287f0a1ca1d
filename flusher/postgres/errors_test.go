package postgres

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/flusher"
)

//go:embed testdata/sqlstates.txt
var sqlStates string

// classOfEach reads testdata/sqlstates.txt.
func classOfEach(t *testing.T) map[string]flusher.Class {
	t.Helper()
	out := make(map[string]flusher.Class)
	for line := range strings.Lines(sqlStates) {
		if f := strings.Fields(line); f[0] != "#" {
			out[f[0]] = flusher.Class(f[1])
		}
	}
	require.Equal(t, 259, len(out)) //nolint:testifylint // Len prints them all
	return out
}

func TestClassifyEverySQLState(t *testing.T) {
	t.Parallel()
	for state, want := range classOfEach(t) {
		c, pg := classify(fmt.Errorf("copy: %w", &pgconn.PgError{Code: state, Severity: "ERROR"}))
		require.Equal(t, want, c, state)
		require.Equal(t, state, pg.Code)
		again, _ := classify(raised(state))
		require.Equal(t, want, again, state)
		fatal, _ := classify(&pgconn.PgError{Code: state, Severity: "TÖDLICH", SeverityUnlocalized: "FATAL"})
		require.Equal(t, unreachable, fatal, state)
	}
	for _, state := range []string{"", "99999", "ABCDE", "X"} { // unknown: the data is kept
		c, _ := classify(&pgconn.PgError{Code: state})
		require.Equal(t, environment, c, state)
	}
}

// raised is an error of RAISE in PL/pgSQL.
func raised(state string) *pgconn.PgError {
	return &pgconn.PgError{Code: state, Severity: "ERROR", Message: "custom", File: "pl_exec.c", Routine: "exec_stmt_raise"}
}

// A SQLSTATE that somebody made up is of the row that he meant.
func TestClassifyMadeUp(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"ZX001", "45000", "99999", "U0001", "ABCDE"} {
		c, _ := classify(raised(state))
		require.Equal(t, rowError, c, state)
		of := raised(state)
		of.Routine = "exec_stmt_fors" // whatever that would be
		c, _ = classify(of)
		require.Equal(t, environment, c, state)
	}
}

// The list is that of the servers that are installed here.
func TestSQLStatesAreComplete(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("/usr/share/postgresql/*/errcodes.txt")
	require.NoError(t, err)
	if len(files) == 0 {
		t.Skip("no errcodes.txt: it comes with the server's package of Debian")
	}
	known := classOfEach(t)
	state := regexp.MustCompile(`(?m)^([0-9A-Z]{5})\s`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range state.FindAllStringSubmatch(string(text), -1) {
			if m[1] != "00000" {
				require.Contains(t, known, m[1], file)
			}
		}
	}
}

// TestClassify: what the code alone does not tell.
func TestClassify(t *testing.T) {
	t.Parallel()
	cancelled := &pgconn.PgError{Code: "57014", Message: "canceling statement due to statement timeout"}
	brokenOff := &pgconn.PgError{Code: "57014", Message: "COPY from stdin failed: context canceled"}
	cached := &pgconn.PgError{Code: "0A000", Routine: "RevalidateCachedQuery"}
	for _, c := range []struct {
		err  error
		want flusher.Class
	}{
		{cancelled, environment},
		{brokenOff, environment},
		{cached, environment},
		{&pgconn.ConnectError{}, unreachable},
		{io.ErrUnexpectedEOF, unreachable},
		{fmt.Errorf("commit: %w", pgconn.ErrConnClosed), unreachable},
		{&net.OpError{Op: "read", Err: errors.New("connection reset by peer")}, unreachable},
		{context.DeadlineExceeded, unreachable},
		{context.Canceled, environment},
		{errors.New("something else"), environment},
		{flusher.ErrKeyChanged, schemaError},
		{errSchemaChanged, environment},
	} {
		got, _ := classify(c.err)
		require.Equal(t, c.want, got, "%v", c.err)
	}
}

// Only isolate may find that a row is to blame.
func TestFlushErrorsAreNeverOfARow(t *testing.T) {
	t.Parallel()
	require.NoError(t, flushError("t", nil))
	for state, c := range classOfEach(t) {
		err := flushError("t", &pgconn.PgError{Code: state, Severity: "ERROR", Message: "no"})
		want := c
		if c == rowError {
			want = environment
		}
		require.Equal(t, want, flusher.ClassOf(err), state)
		require.ErrorContains(t, err, "SQLSTATE "+state)
		require.Equal(t, err, flushError("t", err), "once")
	}
	fromRedis := fmt.Errorf("read log: %w", buffer.ErrUnavailable)
	require.Equal(t, flusher.BufferAway, flusher.ClassOf(flushError("t", fromRedis)))
	damaged := flushError("t", &pgconn.PgError{Code: "XX001", Message: "invalid page in block 7"})
	require.ErrorContains(t, damaged, "the database is damaged")
	var f *FlushError
	require.ErrorAs(t, damaged, &f)
	require.True(t, f.Halts())
}
