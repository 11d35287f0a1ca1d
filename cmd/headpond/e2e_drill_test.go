package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// drilled is what the tests read of a report.
type drilled struct {
	Passed  bool
	Seed    uint64
	History struct {
		Acknowledged int64
		Operations   map[string]int64 `json:"acknowledged_by_operation"`
	}
	Verdict struct {
		Lost, Duplicated, Phantoms int64
		Problems                   []string
	}
	Ledger  books
	Traffic struct {
		Between int64 `json:"between_the_faults"`
	}
	Faults []struct {
		Fault string
	}
	Samples []struct{}
}

// TestDrill is a drill of a few seconds, with kills of everything.
func TestDrill(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "out")
	picture := filepath.Join(t.TempDir(), "drill.svg")
	require.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o755)) //nolint:gosec // the servers of root are another user
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))               //nolint:gosec // the same
	r := command(t, program, cleanEnvironment(), "drill", "--rate", "500", "--duration", "4s", "--output", "json", "--out", dir, "--picture", picture)
	var d drilled
	require.NoError(t, json.Unmarshal([]byte(r.out), &d), "%s%s", r.out, r.err)
	require.Zero(t, r.code, "%v\n%s", d.Verdict, r.err)
	require.True(t, d.Passed)
	require.Zero(t, d.Verdict.Lost+d.Verdict.Duplicated+d.Verdict.Phantoms)
	require.Len(t, d.History.Operations, 5)
	require.Positive(t, d.Traffic.Between)
	require.Len(t, d.Faults, 5)
	l := d.Ledger
	require.Equal(t, l.Accepted, l.Committed+l.Coalesced+l.Dead)
	require.NotEmpty(t, d.Samples)
	for _, f := range []string{"1 of 5", "5 of 5", "kill -9"} {
		require.Contains(t, r.err, f)
	}
	svg, err := os.ReadFile(picture)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(svg), "<svg"))
	history, err := os.ReadFile(filepath.Join(dir, "history.ndjson"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, int64(strings.Count(string(history), "\n")), d.History.Acknowledged)
}

// TestDrillOfYours writes to a stack that runs, and kills what `headpond up`
// starts again, only when that was asked for.
func TestDrillOfYours(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	h := startUp(t, program, "--split", "--ephemeral")
	env := cleanEnvironment("DATABASE_URL=" + h.database)
	refused := command(t, program, env, "drill", "--api", h.api, "--duration", "1s")
	require.Equal(t, 2, refused.code)
	require.Contains(t, refused.err, "--yes")
	before := h.status(t).Stack

	args := []string{"drill", "--api", h.api, "--yes", "--rate", "400", "--duration", "3s"}
	r := command(t, program, env, args...)
	require.Zero(t, r.code, "%s%s", r.out, r.err)
	require.Contains(t, r.out, "PASSED")
	require.Equal(t, before, h.status(t).Stack, "nothing is killed")

	r = command(t, program, env, append(args, "--yes-kill")...)
	require.Zero(t, r.code, "%s%s", r.out, r.err)
	require.Contains(t, r.out, "PASSED")
	after := h.status(t).Stack
	for name, pid := range before {
		require.NotEqual(t, pid, after[name], name)
	}
	require.Zero(t, value[int64](t, h.database, `select count(*) from pg_class where relname like 'headpond\_drill%'`), "the tables are dropped")
}

func TestDrillUsage(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	for _, args := range [][]string{
		{"--rate", "1"}, {"--duration", "1ms"}, {"--output", "xml"},
		{"--api", "http://127.0.0.1:1"}, {"--api", "http://example.org", "--database-url", "postgres://x", "--yes-kill"},
	} {
		r := command(t, program, cleanEnvironment(), append([]string{"drill"}, args...)...)
		require.Equal(t, 2, r.code, "%v: %s", args, r.err)
	}
}
