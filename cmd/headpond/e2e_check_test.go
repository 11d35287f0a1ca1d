package main_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// arrived compares what the clients know with what Postgres has, row by row.
// Everything must have been committed.
func (l *load) arrived(t *testing.T, database string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var all, doubtful int64
	for _, table := range loadNames {
		outcomes := l.outcomes[table]
		rows := readLoad(t, database, table)
		var lost, twice, ghosts, altered, rekeyed []int64
		var inDoubt int64
		for n, o := range outcomes {
			_, there := rows[n]
			if o == acked && !there {
				lost = append(lost, n)
			}
			if o == unknown && there {
				inDoubt++
			}
		}
		for n, r := range rows {
			o, sent := outcomes[n]
			if !sent || o == refused {
				ghosts = append(ghosts, n)
			}
			if r.times != 1 {
				twice = append(twice, n)
			}
			if !r.asSent {
				altered = append(altered, n)
			}
			if key, told := l.keys[table][n]; told && key != r.key {
				rekeyed = append(rekeyed, n)
			}
		}
		require.Empty(t, few(lost), "%s: %d acknowledged rows are not in Postgres", table, len(lost))
		require.Empty(t, few(twice), "%s: %d rows are in Postgres more than once", table, len(twice))
		require.Empty(t, few(ghosts), "%s: %d rows are in Postgres that were refused", table, len(ghosts))
		require.Empty(t, few(altered), "%s: %d rows are not as they were sent", table, len(altered))
		require.Empty(t, few(rekeyed), "%s: %d rows have another key than the answer said", table, len(rekeyed))
		all += int64(len(rows))
		doubtful += inDoubt
		tallies(t, database, table, int64(len(rows)))
	}
	require.Equal(t, l.done.Load()+doubtful, all)
	require.Empty(t, column[string](t, database, `select table_name || ' ' || sqlstate || ' ' || message from headpond.dead_letters limit 3`))
}

// stored is one row of the load in Postgres.
type stored struct {
	times  int64
	key    string
	asSent bool
}

func readLoad(t *testing.T, database, table string) map[int64]stored {
	t.Helper()
	key, good := "min(id::text)", "true"
	switch table {
	case "load_keyed":
		key, good = "min(n::text)", "bool_and(doc = jsonb_build_object('n', n, 'deep', '[1,{\"é\":null}]'::jsonb))"
	case "load_loose":
		key = "''"
	}
	conn := connect(t, database)
	rows, err := conn.Query(t.Context(), `select n, count(*), `+key+`, `+good+` and bool_and(note = 'row ' || n) from `+table+` group by n`)
	require.NoError(t, err)
	out := make(map[int64]stored)
	var n int64
	var s stored
	_, err = pgx.ForEachRow(rows, []any{&n, &s.times, &s.key, &s.asSent}, func() error {
		out[n] = s
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
	return out
}

// tallies checks a table's watermarks: dense, and the same rows as the table.
func tallies(t *testing.T, database, table string, rows int64) {
	t.Helper()
	require.Zero(t, value[int64](t, database, `
		select count(*) from headpond.watermarks
		where table_name = $1 and (seq <> committed + coalesced + dead + lost or lost <> 0)`, table),
		"%s: seq is not what became of its rows", table)
	require.Equal(t, rows, value[int64](t, database,
		`select coalesce(sum(committed), 0)::bigint from headpond.watermarks where table_name = $1`, table),
		"%s: watermarks and table do not agree", table)
}

func few(n []int64) []int64 { return n[:min(len(n), 5)] }
