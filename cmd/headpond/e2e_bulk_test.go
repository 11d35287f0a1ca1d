package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// bulkLine is a line of _bulk, and what it leaves of its key.
type bulkLine struct {
	key  int
	text string
	row  string // the row as it came; empty for a delete
}

// TestBulkOfRealRows: real webhooks are put, twice each and in random order,
// and a third of them is deleted in between, over two API processes. Each answer
// tells which deletes found nothing, and in the end Postgres has, value by
// value, what its own casts make of the last line of each key.
func TestBulkOfRealRows(t *testing.T) {
	lines := realLines(t, "github-webhooks.ndjson")
	if len(lines) == 0 {
		t.Skip("the real data is not on this machine: HEADPOND_TEST_DATA names its directory")
	}
	program := buildProgram(t)
	t.Parallel()
	r, _ := seeded(t)
	s := startServers(t, program)
	config := writeConfig(t, "tables_default: { linger: 10ms, ttl: 1s, retain: 1s }")
	execute(t, s.postgres.URL(), `create table webhooks (id int primary key, event text not null, action text, payload jsonb)`)
	var apis [2]*headpond
	for i := range apis {
		apis[i] = s.serve(t, "--role", "api", "--config", config)
		apis[i].serves(t, "webhooks")
	}
	start(t, program, s.env(), "serve", "--role", "flusher", "--config", config)

	var all []bulkLine
	for key := range lines {
		for _, row := range []string{lines[key], lines[r.IntN(len(lines))]} {
			all = append(all, bulkLine{key, fmt.Sprintf(`{"op":"put","table":"webhooks","key":"%d","row":%s}`, key, row), row})
		}
		if r.IntN(3) == 0 {
			all = append(all, bulkLine{key: key, text: fmt.Sprintf(`{"op":"delete","table":"webhooks","key":"%d"}`, key)})
		}
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	model := make(map[int]string)
	for rest := all; len(rest) > 0; {
		n := min(1+r.IntN(120), len(rest))
		sendBulk(t, apis[r.IntN(2)], rest[:n], model)
		rest = rest[n:]
	}
	t.Logf("%d lines, %d rows", len(all), len(model))
	for _, h := range apis {
		h.settled(t)
	}
	require.Zero(t, value[int64](t, s.postgres.URL(), `select count(*) from headpond.dead_letters`))
	equalsCasts(t, s.postgres.URL(), model)
}

// sendBulk sends lines; the answer must be what the model says.
func sendBulk(t *testing.T, h *headpond, lines []bulkLine, model map[int]string) {
	t.Helper()
	var texts []string
	var want []lineError
	for i, l := range lines {
		texts = append(texts, l.text)
		_, there := model[l.key]
		switch {
		case l.row != "":
			model[l.key] = l.row
		case !there:
			want = append(want, lineError{i, "row_not_found"})
		}
		if l.row == "" {
			delete(model, l.key)
		}
	}
	a, err := h.post("_bulk", typeNDJSON, strings.Join(texts, "\n"))
	require.NoError(t, err)
	status := http.StatusAccepted
	switch len(want) {
	case 0:
	case len(lines):
		status = http.StatusUnprocessableEntity
	default:
		status = http.StatusMultiStatus
	}
	var got struct{ Errors []lineError }
	require.NoError(t, json.Unmarshal(a.body, &got), "%s", a.body)
	slices.SortFunc(got.Errors, func(a, b lineError) int { return a.Index - b.Index })
	require.Equal(t, status, a.code, "%.2000s", a.body)
	require.True(t, slices.Equal(want, got.Errors), "the errors must be %v, not %v", want, got.Errors)
}

// equalsCasts compares the table with Postgres' own casts, as text.
func equalsCasts(t *testing.T, database string, model map[int]string) {
	t.Helper()
	conn := connect(t, database)
	_, err := conn.Exec(t.Context(), `create temp table lines (id int, l json)`)
	require.NoError(t, err)
	var rows [][]any
	for key, row := range model {
		rows = append(rows, []any{key, row})
	}
	_, err = conn.CopyFrom(t.Context(), pgx.Identifier{"lines"}, []string{"id", "l"}, pgx.CopyFromRows(rows))
	require.NoError(t, err)
	differences, err := conn.Query(t.Context(), `
		with want as (select w::text from (select id, l->>'event', l->>'action', (l->'payload')::text::jsonb from lines) w),
			have as (select h::text from (select id, event, action, payload from webhooks) h)
		(select 'missing: ' || left(x.w, 300) from (select w from want except all select h from have) x limit 3) union all
		(select 'too much: ' || left(x.h, 300) from (select h from have except all select w from want) x limit 3)`)
	require.NoError(t, err)
	found, err := pgx.CollectRows(differences, pgx.RowTo[string])
	require.NoError(t, err)
	require.Empty(t, found)
	require.EqualValues(t, len(model), value[int64](t, database, `select count(*) from webhooks`))
}
