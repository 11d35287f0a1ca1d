package postgres

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
)

// The answer must be what an INSERT of jsonb_populate_record stores, and COPY
// of the answer must store the very same bytes.
func TestJudgeEqualsPopulateRecord(t *testing.T) {
	t.Parallel()
	pool := open(t, judgedSchema)
	items, at := judgeTables(t, pool, func(j judged) []string { return append(j.good, "null") })
	results, err := NewEdge(pool).Judge(t.Context(), items)
	require.NoError(t, err)

	var script []question
	for i, r := range results {
		n, sql := at[i], judgeds[at[i]].sql
		if sql == "app.must" && string(items[i].JSON) == "null" {
			require.NotNil(t, r.Err)
			continue
		}
		require.Nil(t, r.Err, "%s %s: %v", sql, items[i].JSON, r.Err)
		script = append(script,
			question{sql: fmt.Sprintf("truncate j%d", n)},
			question{sql: fmt.Sprintf("insert into j%d select (jsonb_populate_record(null::j%d, $1)).*", n, n), params: [][]byte{[]byte(`{"v":` + string(items[i].JSON) + `}`)}, oids: []uint32{oidJSONB}},
			question{sql: fmt.Sprintf("select v from j%d", n)})
	}
	answers, err := NewEdge(pool).ask(t.Context(), script)
	require.NoError(t, err)
	k := 0
	for i, r := range results {
		if r.Err != nil {
			continue
		}
		require.Nil(t, answers[k+1].err, "%s %s", judgeds[at[i]].sql, items[i].JSON)
		require.Equal(t, answers[k+2].rows[0][0], r.Text, "%s %s", judgeds[at[i]].sql, items[i].JSON)
		require.Equal(t, string(items[i].JSON) == "null", r.Null)
		copyBack(t, pool, at[i], r, string(items[i].JSON))
		k += 3
	}
}

// copyBack stores a verdict with COPY and compares images, not values.
func copyBack(t *testing.T, pool *pgxpool.Pool, n int, r table.JudgeResult, source string) {
	t.Helper()
	tbl := (&table.Table{Columns: []table.Column{{Name: "v", Type: &table.Type{}}}}).Seal()
	line := tbl.AppendLine(nil, table.Row{cellOf(r.Text)})
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	run := func(sql string) [][][]byte {
		all, err := conn.Conn().PgConn().Exec(t.Context(), sql).ReadAll()
		require.NoError(t, err)
		return all[len(all)-1].Rows
	}
	run(fmt.Sprintf("truncate j%d; truncate k%d", n, n))
	_, err = conn.Exec(t.Context(), fmt.Sprintf("insert into j%d select (jsonb_populate_record(null::j%d, $1::text::jsonb)).*", n, n), `{"v":`+source+`}`)
	require.NoError(t, err)
	_, err = conn.Conn().PgConn().CopyFrom(t.Context(), strings.NewReader(string(line)), fmt.Sprintf("copy k%d from stdin", n))
	require.NoError(t, err, "%s %s", judgeds[n].sql, line)
	require.Equal(t, "t", string(run(fmt.Sprintf("select j.* *= k.* from j%d j, k%d k", n, n))[0][0]), "%s %s → %s", judgeds[n].sql, source, r.Text)
}

// Good and bad values of all types in one call: each gets its own verdict.
func TestJudgeFindsBadValues(t *testing.T) {
	t.Parallel()
	pool := open(t, judgedSchema)
	items, at := judgeTables(t, pool, func(j judged) []string {
		all := append([]string{}, j.good...)
		for bad := range j.bad {
			all = append(all, bad)
		}
		return all
	})
	results, err := NewEdge(pool).Judge(t.Context(), items)
	require.NoError(t, err)
	for i, r := range results {
		code, bad := judgeds[at[i]].bad[string(items[i].JSON)]
		if !bad {
			require.Nil(t, r.Err, "%s %s", judgeds[at[i]].sql, items[i].JSON)
			continue
		}
		require.NotNil(t, r.Err, "%s %s → %s", judgeds[at[i]].sql, items[i].JSON, r.Text)
		require.Equal(t, code, r.Err.Code, "%s %s: %s", judgeds[at[i]].sql, items[i].JSON, r.Err.Detail)
		require.LessOrEqual(t, len(r.Err.Detail), 2*maxSentence+10)
		require.NotContains(t, r.Err.Detail, "recordset")
	}
}

func TestJudgeThreeBadInAThousand(t *testing.T) {
	t.Parallel()
	pool := open(t, `create table t (v inet)`)
	typ := loadTables(t, pool)["t"].Columns[0].Type
	bad := map[int]bool{0: true, 500: true, 999: true}
	items := make([]table.JudgeItem, 1000)
	for i := range items {
		items[i] = table.JudgeItem{Type: typ, JSON: fmt.Appendf(nil, `"10.0.%d.%d"`, i/250, i%250)}
		if bad[i] {
			items[i].JSON = []byte(`"nonsense"`)
		}
	}
	results, err := NewEdge(pool).Judge(t.Context(), items)
	require.NoError(t, err)
	for i, r := range results {
		require.Equal(t, bad[i], r.Err != nil, i)
		if !bad[i] {
			require.Equal(t, fmt.Sprintf("10.0.%d.%d", i/250, i%250), string(r.Text))
		}
	}
}

func TestJudgeAllBad(t *testing.T) {
	t.Parallel()
	pool := open(t, `create table t (v inet)`)
	typ := loadTables(t, pool)["t"].Columns[0].Type
	items := make([]table.JudgeItem, 5000)
	for i := range items {
		items[i] = table.JudgeItem{Type: typ, JSON: []byte(`"x"`)}
	}
	results, err := NewEdge(pool).Judge(t.Context(), items)
	require.NoError(t, err)
	for _, r := range results {
		require.NotNil(t, r.Err)
	}
}

// Values are packed into one document; none may break out of its place in it.
func TestJudgeRefusesWhatIsNotJSON(t *testing.T) {
	t.Parallel()
	pool := open(t, `create table t (v text)`)
	typ := loadTables(t, pool)["t"].Columns[0].Type
	var items []table.JudgeItem
	for _, s := range []string{`"a"},{"v":"b"`, ``, `"a`, `nul`, "\"a\xff\"", `"ok"`, ` "spaces" `} {
		items = append(items, table.JudgeItem{Type: typ, JSON: []byte(s)})
	}
	r, err := NewEdge(pool).Judge(t.Context(), items)
	require.NoError(t, err)
	for i := range 5 {
		require.NotNil(t, r[i].Err, "%s", items[i].JSON)
	}
	require.Equal(t, "ok", string(r[5].Text))
	require.Equal(t, "spaces", string(r[6].Text))
}

func TestJudgeKeepsJSONAsWritten(t *testing.T) {
	t.Parallel()
	pool := open(t, judgedSchema+`create table t (j json, d app.doc, js json[], h app.holder)`)
	cols := loadTables(t, pool)["t"].Columns
	const raw = `{"b":1e2,  "a":1.0, "a":[ ]}`
	r, err := NewEdge(pool).Judge(t.Context(), []table.JudgeItem{
		{Type: cols[0].Type, JSON: []byte(raw)}, {Type: cols[1].Type, JSON: []byte(raw)}, {Type: cols[2].Type, JSON: []byte(`[` + raw + `]`)}, {Type: cols[3].Type, JSON: []byte(`{"n":1,"j":` + raw + `}`)},
	})
	require.NoError(t, err)
	quoted := strings.ReplaceAll(raw, `"`, `\"`)
	require.Equal(t, raw, string(r[0].Text))
	require.Equal(t, raw, string(r[1].Text))
	require.Equal(t, `{"`+quoted+`"}`, string(r[2].Text))
	require.Equal(t, `(1,"`+strings.ReplaceAll(raw, `"`, `""`)+`")`, string(r[3].Text))
}

func TestJudgeWhenTheTypeIsGone(t *testing.T) {
	t.Parallel()
	pool := open(t, `create type mood as enum ('a'); create table t (v mood)`)
	typ := loadTables(t, pool)["t"].Columns[0].Type
	execute(t, pool, `drop type mood cascade`)
	_, err := NewEdge(pool).Judge(t.Context(), []table.JudgeItem{{Type: typ, JSON: []byte(`"a"`)}})
	require.ErrorIs(t, err, ErrCatalogStale)
	require.NotErrorIs(t, err, ErrUnavailable)
}

func TestSentence(t *testing.T) {
	t.Parallel()
	require.Equal(t, `Invalid input "x".`, sentence(`invalid input "x"`))
	require.Equal(t, "A b.", sentence("a\nb."))
	long := sentence(strings.Repeat("ä", 500))
	require.LessOrEqual(t, len(long), maxSentence+4)
	require.True(t, strings.HasPrefix(long, "Ää"))
	require.True(t, json.Valid([]byte(`"`+long+`"`)))
}

// judgeTables makes tables j0 and k0 … with a column v of each type, and items
// of the values that pick chooses; at tells of which type each item is.
func judgeTables(t *testing.T, pool *pgxpool.Pool, pick func(judged) []string) (items []table.JudgeItem, at []int) {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	for i, j := range judgeds {
		_, err := conn.Exec(t.Context(), fmt.Sprintf("create table j%d (v %s)", i, j.sql))
		require.NoError(t, err, j.sql)
		_, err = conn.Exec(t.Context(), fmt.Sprintf("create table k%d (v %s)", i, j.sql))
		require.NoError(t, err, j.sql)
	}
	conn.Release()
	tables := loadTables(t, pool)
	for i, j := range judgeds {
		for _, source := range pick(j) {
			items = append(items, table.JudgeItem{Type: tables[fmt.Sprintf("j%d", i)].Columns[0].Type, JSON: []byte(source)})
			at = append(at, i)
		}
	}
	return items, at
}
