package postgres

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// TestRetyped: a row that waited while the type of its column was changed gets
// the value that ALTER TABLE gave those that were there, or becomes a dead
// letter. Where ALTER TABLE needs USING only a text is read, as it would be in a
// request.
func TestRetyped(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, "create type mood as enum ('sad', 'ok'); create domain positive as int check (value > 0)", 1)
	values := []struct{ kind, value string }{
		{"boolean", "true"}, {"int", "90"}, {"int", "20260102"}, {"bigint", "3000000000"}, {"real", "3"}, {"double precision", "2.5"},
		{"numeric(10,2)", "1.5"}, {"numeric", "12"}, {"text", "12"}, {"text", "ab "}, {"text", "{1,2}"}, {"varchar(10)", "2026-01-02"},
		{"char(5)", "ab"}, {"date", "2026-01-02"}, {"timestamptz", "2026-01-02 03:04:05.678+02"}, {"interval", "90 s"}, {"inet", "10.0.0.1"},
		{"json", `{"a": 1, "a": 2}`}, {"mood", "ok"}, {"positive", "5"}, {"int[]", "{1,2}"}, {"boolean[]", "{t,f}"}, {"bit(3)", "101"},
	}
	kinds := []string{
		"boolean", "int", "bigint", "double precision", "numeric(10,1)", "text", "varchar(3)", "char(4)",
		"date", "timestamp", "timestamptz", "interval", "jsonb", "mood", "positive", "bigint[]", "text[]",
	}
	same, dead := 0, 0
	for _, v := range values {
		for _, kind := range kinds {
			switch b.retype(v.kind, v.value, kind) {
			case "dead":
				dead++
			case "same":
				same++
			}
		}
	}
	t.Logf("%d values as ALTER TABLE has them, %d dead letters", same, dead)
	require.Greater(t, same, 80, "too few values were taken over for this to mean anything")
}

func (b *flushBundle) exec(sql string, args ...any) error {
	_, err := b.pool.Exec(b.t.Context(), sql, args...)
	return err
}

// retype says what became of a row: "same", or "dead".
func (b *flushBundle) retype(kind, value, to string) string {
	t := b.t
	what := fmt.Sprintf("%s %s -> %s", kind, value, to)
	require.NoError(t, b.exec(fmt.Sprintf("drop table if exists t; create table t (id int primary key, v %s); insert into t values (1, '%s')", kind, value)))
	before := b.text()
	header := loadTables(t, b.pool)["t"].Header()
	altered := b.exec("alter table t alter v type "+to) == nil
	after := b.text()
	require.NoError(t, b.exec("truncate t"))
	if !altered {
		require.NoError(t, b.exec(fmt.Sprintf("alter table t alter v type %s using null", to)), what)
	}
	report, err := b.Flush(t.Context(), flusher.Batch{
		Table: "t", Partitions: []int{0}, Orphan: func(context.Context, string) error { return nil },
		Load: func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
			f := &table.Frame{Columns: header, Last: table.ID{Epoch: 1, Seq: claims[0].Watermark.Seq + 2}}
			f.Add(table.OpInsert, 0, append(table.AppendEscaped([]byte("1\t"), []byte(before)), '\n'))
			f.Add(table.OpInsert, 0, []byte("2\t\\N\n"))
			return []flusher.Part{{Claim: claims[0], Frames: []*table.Frame{f}}}, nil
		},
	})
	require.NoError(t, err, what)
	require.Equal(t, 1, b.count("select count(*) from t where id = 2 and v is null"), "%s: NULL is of every type", what)
	if b.count("select count(*) from t where id = 1") == 0 {
		require.Len(t, report.Dead[report.Parts[0].Place], 1, what)
		require.Equal(t, 1, b.count("select count(*) from headpond.dead_letters where seq = $1", report.Parts[0].Frames[0].First().Seq), what)
		return "dead"
	}
	if altered {
		require.Equal(t, after, b.text(), what)
	} else {
		require.Contains(t, []string{"text", "varchar(10)"}, kind, "%s: only a text is read where ALTER TABLE needs USING", what)
	}
	return "same"
}

// text of the column as Postgres prints it.
func (b *flushBundle) text() string {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), "select v from t where id = 1", pgx.QueryResultFormats{pgx.TextFormatCode})
	require.NoError(b.t, err)
	defer rows.Close()
	require.True(b.t, rows.Next())
	return string(rows.RawValues()[0])
}
