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

// judged is a type with JSON values that it takes, and others with the code
// that refuses them.
type judged struct {
	sql  string
	good []string
	bad  map[string]string
}

const judgedSchema = `
	create extension citext; create extension hstore; create schema app;
	create type app.mood as enum ('sad', 'HAPPY');
	create domain app.posint as int4 check (value > 0);
	create domain app.must as text not null;
	create domain app.code as varchar(3) check (value ~ '^[a-z]+$');
	create domain app.doc as json;
	create type app.pair as (a app.posint, "B c" text[], d numeric(4,1));
	create type app.holder as (n int, j json);
	create type app.span as range (subtype = float8);`

var judgeds = []judged{
	{"inet", []string{`"10.0.0.1"`, `"10.0.0.1/8"`, `"::1"`}, map[string]string{`"10.0.0.300"`: "invalid_value", `5`: "invalid_value"}},
	{"cidr", []string{`"10.0.0.0/8"`}, map[string]string{`"10.0.0.1/8"`: "invalid_value"}},
	{"macaddr", []string{`"08:00:2b:01:02:03"`, `"08002b-010203"`}, map[string]string{`"zz"`: "invalid_value"}},
	{"macaddr8", []string{`"08:00:2b:01:02:03:04:05"`}, map[string]string{`""`: "invalid_value"}},
	{"interval", []string{`"1 day"`, `"P1Y2M3DT4H5M6.7S"`, `"-1.5 hours"`, `"2 mons ago"`}, map[string]string{`"1 dayz"`: "invalid_datetime", `"999999999999 years"`: "invalid_datetime"}},
	{"interval(0)", []string{`"1.6 seconds"`}, nil},
	{"interval year to month", []string{`"1 year 2 mons 3 days"`}, nil},
	{"time", []string{`"12:34"`, `"24:00"`, `"12:34:56.123456789"`}, map[string]string{`"25:00"`: "invalid_datetime"}},
	{"time(0)", []string{`"12:34:56.5"`}, nil},
	{"timetz", []string{`"12:34+02"`, `"12:34:56 PST"`}, map[string]string{`"12:34+99"`: "invalid_datetime"}},
	{"timestamptz", []string{`"2024-01-01 12:00 America/New_York"`, `"infinity"`, `"epoch"`, `"0044-03-15 BC"`}, map[string]string{
		`"2026-02-30"`: "invalid_datetime", `"2024-01-01 12:00 Mars/Base"`: "invalid_datetime", `"294277-01-01"`: "invalid_datetime", `"soon"`: "invalid_datetime"}},
	{"date", []string{`"January 8, 1999"`, `"20240131"`}, map[string]string{`"2024-13-01"`: "invalid_datetime"}},
	{"int4range", []string{`"[1,5]"`, `"empty"`, `"(,3)"`}, map[string]string{`"[5,1]"`: "invalid_value", `"1,5"`: "invalid_value"}},
	{"tstzrange", []string{`"[2024-01-01,2024-02-01 00:00+05)"`}, map[string]string{`"[x,y]"`: "invalid_datetime"}},
	{"numrange", []string{`"[1.50,2]"`}, nil},
	{"app.span", []string{`"[0.1,0.30000000000000004)"`}, nil},
	{"int4multirange", []string{`"{[1,3),[2,9]}"`, `"{}"`}, map[string]string{`"[1,3)"`: "invalid_value"}},
	{"bit(3)", []string{`"101"`}, map[string]string{`"1011"`: "invalid_value", `"1"`: "invalid_value", `"102"`: "invalid_value"}},
	{"varbit(3)", []string{`"10"`, `""`}, map[string]string{`"1011"`: "too_long"}},
	{"bit", []string{`"1"`}, nil},
	{"money", []string{`"12.34"`, `"$1,000.00"`, `12.5`, `"-0.01"`}, map[string]string{`"abc"`: "invalid_value", `"99999999999999999999"`: "out_of_range"}},
	{"xml", []string{`"<a>b</a>"`, `"text <b/>"`}, map[string]string{`"<a>"`: "invalid_value"}},
	{"tsvector", []string{`"a fat cat:2B,3"`, `"'it''s'"`}, map[string]string{`"'open"`: "invalid_value"}},
	{"tsquery", []string{`"fat & (rat:* | cat)"`}, map[string]string{`"a &"`: "invalid_value"}},
	{"point", []string{`"(1.5,-2)"`, `"1,2"`}, map[string]string{`"(1)"`: "invalid_value"}},
	{"box", []string{`"(1,1),(0,0)"`}, nil},
	{"box[]", []string{`["(1,1),(0,0)", "(3,3),(2,2)"]`, `"{(1,1),(0,0);(3,3),(2,2)}"`}, nil},
	{"line", []string{`"{1,2,3}"`}, map[string]string{`"{0,0,1}"`: "invalid_value"}},
	{"path", []string{`"[(0,0),(1,1)]"`}, nil},
	{"polygon", []string{`"((0,0),(1,1),(1,0))"`}, nil},
	{"circle", []string{`"<(0,0),5>"`}, nil},
	{"name", []string{`"x"`}, nil},
	{`"char"`, []string{`"x"`, `""`}, nil},
	{"public.citext", []string{`"MixED"`}, nil},
	{"public.hstore", []string{`"a=>1, b=>NULL"`}, map[string]string{`"a=>"`: "invalid_value"}},
	{"regclass", []string{`"pg_class"`, `"0"`}, map[string]string{`"no_such_table"`: "invalid_value"}},
	{"regtype", []string{`"int8"`}, map[string]string{`"no_such_type"`: "invalid_value"}},
	{"jsonpath", []string{`"$.a[*] ? (@ > 1)"`}, map[string]string{`"$."`: "invalid_value"}},
	{"pg_lsn", []string{`"16/B374D848"`}, nil},
	{"txid_snapshot", []string{`"10:20:10,14"`}, nil},
	{"bool", []string{`true`, `"yes"`, `false`}, map[string]string{`"maybe"`: "invalid_value"}},
	{"int4", []string{`1e2`, `"7"`, `100`}, map[string]string{`2147483648`: "out_of_range", `1.5`: "invalid_value", `1e400`: "out_of_range"}},
	{"numeric(5,2)", []string{`1.005`, `"NaN"`, `123.45`}, map[string]string{`1000`: "out_of_range", `"Infinity"`: "out_of_range"}},
	{"numeric(3,-2)", []string{`12345`}, nil},
	{"numeric", []string{`0.10000000000000000001`, `9007199254740993`, `1e100`, `"Infinity"`, `1.500`}, map[string]string{`1e1000000`: "out_of_range"}},
	{"float4", []string{`0.1`, `"-0"`, `"NaN"`, `16777217`}, map[string]string{`1e39`: "out_of_range"}},
	{"float8", []string{`0.1`, `"-Infinity"`, `5e-324`}, map[string]string{`1e309`: "out_of_range"}},
	{"varchar(3)", []string{`"abc"`, `"äöü"`, `"ab   "`}, map[string]string{`"abcd"`: "too_long"}},
	{"char(5)", []string{`"ab"`, `"ab      "`}, map[string]string{`"abcdef"`: "too_long"}},
	{"text", []string{`"a\tb\nc\\d\r"`, `"\\N"`, `"\\."`, `""`, `"\u00e9\ud83d\ude00"`}, map[string]string{`"\u0000"`: "nul_not_allowed", `"\ud800"`: "invalid_value"}},
	{"bytea", []string{`"\\xDEADbeef"`, `"a\\\\b"`}, map[string]string{`"\\xabc"`: "invalid_value"}},
	{"uuid", []string{`"{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}"`}, map[string]string{`"x"`: "invalid_value"}},
	{"jsonb", []string{`{"b": 1, "a": [1.0, "x"]}`, `"s"`, `[]`}, map[string]string{`"\u0000"`: "nul_not_allowed"}},
	{"app.mood", []string{`"sad"`}, map[string]string{`"happy"`: "invalid_value"}},
	{"app.posint", []string{`5`}, map[string]string{`0`: "invalid_value", `3000000000`: "out_of_range"}},
	{"app.must", []string{`"x"`}, map[string]string{`null`: "null_not_allowed"}},
	{"app.code", []string{`"abc"`}, map[string]string{`"abcd"`: "too_long", `"a1"`: "invalid_value"}},
	{"app.posint[]", []string{`[1,null,2]`, `[]`, `[[1,2],[3,4]]`}, map[string]string{`[1,0]`: "invalid_value", `[[1],[2,3]]`: "invalid_value", `{"a":1}`: "invalid_value"}},
	{"varchar(2)[]", []string{`["a","b"]`, `["nu", null, "", ",", "\\"]`}, map[string]string{`["abc"]`: "too_long"}},
	{"app.pair", []string{`{"a":1,"B c":["x","y z"],"d":1.25}`, `{}`, `"(1,\"{a,b}\",2)"`, `{"a":null,"unknown":1}`}, map[string]string{
		`{"a":0}`: "invalid_value", `{"d":1000}`: "out_of_range", `5`: "invalid_value", `[1]`: "invalid_value"}},
	{"app.pair[]", []string{`[{"a":1},null]`}, nil},
	{"int2vector", []string{`"1 2 3"`}, nil},
	{"public.citext[]", []string{`["A","b"]`}, nil},
}

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
func copyBack(t *testing.T, pool *pgxpool.Pool, n int, r JudgeResult, source string) {
	t.Helper()
	tbl := (&table.Table{Columns: []table.Column{{Name: "v"}}}).Seal()
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
	items := make([]JudgeItem, 1000)
	for i := range items {
		items[i] = JudgeItem{typ, fmt.Appendf(nil, `"10.0.%d.%d"`, i/250, i%250)}
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
	items := make([]JudgeItem, 5000)
	for i := range items {
		items[i] = JudgeItem{typ, []byte(`"x"`)}
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
	var items []JudgeItem
	for _, s := range []string{`"a"},{"v":"b"`, ``, `"a`, `nul`, "\"a\xff\"", `"ok"`, ` "spaces" `} {
		items = append(items, JudgeItem{typ, []byte(s)})
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
	r, err := NewEdge(pool).Judge(t.Context(), []JudgeItem{
		{cols[0].Type, []byte(raw)}, {cols[1].Type, []byte(raw)}, {cols[2].Type, []byte(`[` + raw + `]`)}, {cols[3].Type, []byte(`{"n":1,"j":` + raw + `}`)},
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
	_, err := NewEdge(pool).Judge(t.Context(), []JudgeItem{{typ, []byte(`"a"`)}})
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
func judgeTables(t *testing.T, pool *pgxpool.Pool, pick func(judged) []string) (items []JudgeItem, at []int) {
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
			items = append(items, JudgeItem{tables[fmt.Sprintf("j%d", i)].Columns[0].Type, []byte(source)})
			at = append(at, i)
		}
	}
	return items, at
}
