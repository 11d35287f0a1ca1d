package main_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDeadLettersCommand: what Postgres refused is listed, shown, corrected,
// replayed as a group once its reason is gone, and discarded; many only after a
// question, which nobody can be asked here.
func TestDeadLettersCommand(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	h := startUp(t, program, "--ephemeral")
	h.create(t, `create table bills (id int primary key, total int not null constraint small check (total < 100)); insert into bills values (1, 1)`, "bills")
	var rows strings.Builder
	for i := 1; i <= 40; i++ {
		fmt.Fprintf(&rows, "{\"id\":%d,\"total\":%d}\n", i, 90+i)
	}
	a, err := h.post("bills", typeNDJSON, rows.String())
	require.NoError(t, err)
	require.Equal(t, 202, a.code, string(a.body))
	h.settled(t)
	env := cleanEnvironment("HEADPOND_API=" + h.api)
	run := func(code int, args ...string) result {
		t.Helper()
		got := command(t, program, env, append([]string{"dead-letters"}, args...)...)
		require.Equal(t, code, got.code, "%v\n%s%s", args, got.out, got.err)
		return got
	}
	out := run(0, "ls").out
	require.Regexp(t, `(?m)^31 +bills +23514:small +The row breaks the constraint small\.$`, out)
	require.Regexp(t, `(?m)^1 +bills +23505:bills_pkey `, out)
	require.Contains(t, out, "more than --limit 20")
	var page struct {
		Letters []struct {
			ID  int64
			Key string
		} `json:"dead_letters"`
	}
	require.NoError(t, json.Unmarshal([]byte(run(0, "ls", "--table", "bills", "--group", "23514", "--limit", "500", "--output", "json").out), &page))
	require.Len(t, page.Letters, 31)
	id := fmt.Sprint(page.Letters[0].ID)
	out = run(0, "show", id).out
	require.Contains(t, out, "Replay it with a corrected row")
	require.Regexp(t, `total +"1\d\d"`, out)
	require.True(t, json.Valid([]byte(run(0, "show", "--output", "json", id).out)))

	require.Contains(t, run(1, "replay", id).err, "dead_lettered")
	require.NoError(t, json.Unmarshal([]byte(run(0, "ls", "--group", "23514", "--output", "json", "--limit", "1").out), &page))
	id = fmt.Sprint(page.Letters[0].ID) // the one that took its place
	require.Contains(t, run(1, "replay", "--row", `{"total":"x"}`, id).err, "/total")
	require.Contains(t, run(0, "replay", "--row", `{"total":5}`, id).out, "replayed 1 (0 were on their way before), failed 0: committed")
	require.Contains(t, run(1, "show", id).err, "dead_letter_not_found")

	require.Contains(t, run(2, "replay", "--table", "bills").err, "--yes")
	require.Contains(t, run(2, "rm", "--table", "bills").err, "--yes")
	execute(t, h.database, `alter table bills drop constraint small`)
	got := run(0, "replay", "--table", "bills", "--group", "23514:small", "--yes", "--output", "json")
	var sum struct {
		Replayed, Failed int
		Committed        bool
	}
	require.NoError(t, json.Unmarshal([]byte(got.out), &sum))
	require.Equal(t, 30, sum.Replayed)
	require.True(t, sum.Committed)
	require.EqualValues(t, 40, value[int64](t, h.database, `select count(*) from bills`))
	require.Equal(t, "discarded 1\n", run(0, "rm", "--table", "bills", "--yes").out)
	require.Equal(t, "there are no dead letters\n", run(0, "ls").out)
	require.Zero(t, h.status(t).Letters)
	require.EqualValues(t, 33, h.status(t).Tables["bills"].Ledger.Dead)

	for _, args := range [][]string{
		{"show"}, {"show", "x"}, {"replay"}, {"replay", "x"}, {"replay", "1", "2"}, {"replay", "--table", "bills", "1"}, {"rm"}, {"rm", "-1"},
		{"replay", "--row", "{", "1"}, {"replay", "--row", "{}", "--table", "bills"}, {"ls", "--limit", "0"}, {"ls", "bills"}, {"bury"},
	} {
		run(2, args...)
	}
	require.Contains(t, run(1, "rm", "1000").err, "dead_letter_not_found")
	require.Contains(t, run(1, "ls", "--api", "http://127.0.0.1:1").err, "cannot be reached")
}
