package main_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// dead is what a dead letter says.
type dead struct {
	Key, SQLState, Constraint string
	Row                       string
	Receipt                   string
}

// TestPoisonUnderLoad: among 50,000 rows are some that only Postgres can find
// bad. They become dead letters, each with its reason, and all others arrive; they
// follow once what refused them is gone.
func TestPoisonUnderLoad(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	h := startUp(t, program, "--ephemeral")
	const rows, poison, taken = 50_000, 5000, 1250
	h.create(t, `
		create table spans (id int primary key, low int not null, high int not null, note text,
			constraint low_is_low check (low <= high));
		insert into spans select i, 0, 0, 'was here' from generate_series(1250, 50000, 1250) i where i % 5000 <> 0`, "spans")
	var batches [][2]int
	for from := 1; from <= rows; {
		n := []int{1, 40, 700, 2500}[from%4]
		batches = append(batches, [2]int{from, min(from+n-1, rows)})
		from += n
	}
	postAll(t, h, batches, func(i int) string {
		if i%poison == 0 {
			return fmt.Sprintf(`{"id":%d,"low":2,"high":1,"note":"bad"}`, i)
		}
		return fmt.Sprintf(`{"id":%d,"low":1,"high":2,"note":"row %d"}`, i, i)
	})
	h.settled(t)

	want := make(map[string]dead)
	for i := taken; i <= rows; i += taken {
		d := dead{Key: fmt.Sprint(i), SQLState: "23505", Constraint: "spans_pkey", Row: fmt.Sprintf(`{"id": %d, "low": 1, "high": 2, "note": "row %d"}`, i, i)}
		if i%poison == 0 {
			d.SQLState, d.Constraint, d.Row = "23514", "low_is_low", fmt.Sprintf(`{"id": %d, "low": 2, "high": 1, "note": "bad"}`, i)
		}
		want[d.Key] = d
	}
	got := deadLetters(t, h.database, "spans")
	require.Len(t, got, len(want))
	for key, d := range got {
		w := want[key]
		require.JSONEq(t, w.Row, d.Row)
		w.Row, w.Receipt = d.Row, d.Receipt
		require.Equal(t, w, d)
		a := h.get(t, "/v1/receipts/"+d.Receipt)
		require.Equal(t, "dead-lettered", a.field("state"), "%s", a.body)
		require.Equal(t, d.SQLState, a.field("sqlstate"))
	}
	const bad = rows / taken
	l := h.status(t).Tables["spans"].Ledger
	require.Equal(t, books{Accepted: rows, Committed: rows - bad, Dead: bad}, l)
	require.EqualValues(t, rows-bad, value[int64](t, h.database, `select count(*) from spans where note = 'row ' || id and low = 1 and high = 2`))
	require.EqualValues(t, bad-rows/poison, value[int64](t, h.database, `select count(*) from spans where note = 'was here' and high = 0`))
	require.EqualValues(t, rows-rows/poison, value[int64](t, h.database, `select count(*) from spans`))
	require.Zero(t, value[int64](t, h.database, `select count(*) from headpond.watermarks where seq <> committed + coalesced + dead + lost`))

	execute(t, h.database, `alter table spans drop constraint low_is_low`)
	replay := command(t, program, cleanEnvironment("HEADPOND_API="+h.api), "dead-letters", "replay", "--table", "spans", "--group", "23514:low_is_low", "--yes")
	require.Zero(t, replay.code, replay.err)
	require.Contains(t, replay.out, fmt.Sprintf("replayed %d ", rows/poison))
	require.EqualValues(t, rows/poison, value[int64](t, h.database, `select count(*) from spans where note = 'bad' and id % 5000 = 0`))
	require.EqualValues(t, rows, value[int64](t, h.database, `select count(*) from spans`))
	require.Len(t, deadLetters(t, h.database, "spans"), bad-rows/poison)
}

// postAll posts batches of rows from several clients; all must be accepted.
func postAll(t *testing.T, h *headpond, batches [][2]int, row func(i int) string) {
	t.Helper()
	next := make(chan [2]int)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for b := range next {
				var lines strings.Builder
				for i := b[0]; i <= b[1]; i++ {
					lines.WriteString(row(i) + "\n")
				}
				a, err := h.post("spans", typeNDJSON, lines.String())
				if err != nil || a.code != http.StatusAccepted {
					t.Errorf("rows %v: %d %.500s %v", b, a.code, a.body, err)
				}
			}
		})
	}
	for _, b := range batches {
		next <- b
	}
	close(next)
	workers.Wait()
}

func deadLetters(t *testing.T, database, table string) map[string]dead {
	t.Helper()
	conn := connect(t, database)
	rows, err := conn.Query(t.Context(), `
		select key, sqlstate, constraint_name, row::text, concat_ws('.', table_name, partition, epoch, seq)
		from headpond.dead_letters where table_name = $1`, table)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[dead])
	require.NoError(t, err)
	out := make(map[string]dead)
	for _, d := range all {
		out[d.Key] = d
	}
	require.Len(t, out, len(all), "one dead letter per key")
	return out
}
