package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
)

const listTables = `
	create type mood as enum ('sad', 'ok'); create domain code as varchar(3) check (value <> 'no'); create type spot as (x int, y int);
	create table t (id int primary key, n numeric(5,2), v code, ch char(4), b bool, m mood, tz timestamptz, a int[], s spot, j json,
		"odd ""name; --" text, twice int generated always as (id * 2) stored);
	insert into t (id, n, v, ch, b, m, tz, a, s, j, "odd ""name; --") values
		(1, 1.50, 'abc', 'ab', true, 'sad', '2024-01-01Z', '{1}', '(1,2)', '{}', 'x''; drop table t; --'),
		(2, 2.50, 'ABC', 'cd', false, 'ok', '2024-02-01Z', '{1,2}', '(,)', '{}', '100%'),
		(3, 3.50, '', '', null, 'ok', '2024-03-01Z', '{}', null, null, 'a_b\c');
	insert into t (id) values (4);`

// list gives column 0 of what is listed.
func list(t *testing.T, pool *pgxpool.Pool, tbl *table.Table, q table.Query) (string, error) {
	t.Helper()
	if q.Limit == 0 {
		q.Limit = 100
	}
	var ids []string
	err := NewEdge(pool).List(t.Context(), tbl, &q, func(row table.Row) bool {
		ids = append(ids, string(row[0].Text))
		return true
	})
	return strings.Join(ids, " "), err
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	pool := open(t, listTables)
	tbl := loadTables(t, pool)["t"]
	odd := `odd "name; --`
	for _, c := range []struct {
		column   string
		operator table.Operator
		values   string // separated by |
		want     string
		not      string // the rows of the negation
	}{
		{"id", table.Eq, "2", "2", "1 3 4"},
		{"id", table.Gt, "2", "3 4", "1 2"},
		{"id", table.Gte, "2", "2 3 4", "1"},
		{"id", table.Lt, "2", "1", "2 3 4"},
		{"id", table.Lte, "2", "1 2", "3 4"},
		{"id", table.In, "1|4|9", "1 4", "2 3"},
		{"id", table.In, "1", "1", "2 3 4"},
		{"id", table.In, "", "", "1 2 3 4"},
		{"n", table.Eq, "1.5", "1", "2 3"},
		{"n", table.Eq, "1.504", "", "1 2 3"},
		{"n", table.Eq, "123456", "", "1 2 3"},
		{"v", table.Eq, "abc", "1", "2 3"},
		{"v", table.Eq, "", "3", "1 2"},
		{"v", table.Eq, "abcd", "", "1 2 3"},
		{"v", table.Eq, "no", "", "1 2 3"},
		{"v", table.Eq, "null", "", "1 2 3"},
		{"v", table.Like, "a%", "1", "2 3"},
		{"v", table.ILike, "a%", "1 2", "3"},
		{"ch", table.Eq, "ab", "1", "2 3"},
		{"ch", table.Like, "a%", "1", "2 3"},
		{"b", table.Is, "true", "1", "2 3 4"},
		{"b", table.Is, "false", "2", "1 3 4"},
		{"b", table.Is, "unknown", "3 4", "1 2"},
		{"b", table.Is, "null", "3 4", "1 2"},
		{"b", table.Eq, "yes", "1", "2"},
		{"m", table.Gt, "sad", "2 3", "1"},
		{"m", table.In, "ok|sad", "1 2 3", ""},
		{"tz", table.Gte, "2024-02-01 01:00+01", "2 3", "1"},
		{"tz", table.Lt, "2024-02-01", "1", "2 3"},
		{"a", table.Eq, "{1,2}", "2", "1 3"},
		{"a", table.In, "{1,2}|{}", "2 3", "1"},
		{"s", table.Is, "null", "3 4", "1 2"},
		{"s", table.Eq, "(1,2)", "1", "2"},
		{"j", table.Is, "null", "3 4", "1 2"},
		{odd, table.Eq, "x'; drop table t; --", "1", "2 3"},
		{odd, table.Like, `100\%`, "2", "1 3"},
		{odd, table.Like, `a\_b\\c`, "3", "1 2"},
		{"twice", table.Eq, "6", "3", "1 2 4"},
	} {
		column, ok := tbl.Column(c.column)
		require.True(t, ok, c.column)
		f := table.Filter{Column: column, Operator: c.operator, Values: strings.Split(c.values, "|")}
		if c.operator == table.In && c.values == "" {
			f.Values = nil
		}
		for not, want := range map[bool]string{false: c.want, true: c.not} {
			f.Not = not
			got, err := list(t, pool, tbl, table.Query{Where: []table.Filter{f}, Order: []table.Order{{Column: 0}}})
			require.NoError(t, err, "%s %s %q", c.column, c.operator, c.values)
			require.Equal(t, want, got, "not=%t %s %s %q", not, c.column, c.operator, c.values)
		}
	}
}

func TestListShape(t *testing.T) {
	t.Parallel()
	pool := open(t, listTables+`
		create table heap (v int); insert into heap values (2), (1);
		create table parent (id int primary key); create table child () inherits (parent); insert into parent values (1); insert into child values (2);
		create table parted (id int primary key) partition by hash (id); create table parted_0 partition of parted for values with (modulus 1, remainder 0);
		insert into parted values (5);`)
	tables := loadTables(t, pool)
	column := func(name string) int { c, _ := tables["t"].Column(name); return c }
	for want, q := range map[string]table.Query{
		"3 2 1 4": {Order: []table.Order{{Column: column("n"), Desc: true}}},
		"4 1 2 3": {Order: []table.Order{{Column: column("n"), NullsFirst: true}}},
		"4 3 2 1": {Order: []table.Order{{Column: column("m"), Desc: true, NullsFirst: true}, {Column: 0, Desc: true}}},
		"1 2":     {Order: []table.Order{{Column: 0}}, Limit: 2},
		"3 4":     {Order: []table.Order{{Column: 0}}, Limit: 2, Offset: 2},
		"":        {Offset: 9},
		"2": {Where: []table.Filter{
			{Column: 0, Operator: table.Gt, Values: []string{"1"}}, {Column: 0, Operator: table.Lt, Values: []string{"3"}},
		}},
	} {
		got, err := list(t, pool, tables["t"], q)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for name, want := range map[string]string{"parent": "1", "parted": "5", "heap": "2 1"} {
		got, err := list(t, pool, tables[name], table.Query{})
		require.NoError(t, err)
		require.Equal(t, want, got, name)
	}
	q := &table.Query{Select: []int{column("twice"), column("v")}, Where: []table.Filter{{Operator: table.Eq, Values: []string{"1"}}}, Limit: 1}
	require.NoError(t, NewEdge(pool).List(t.Context(), tables["t"], q, func(row table.Row) bool {
		require.Equal(t, "2", string(row[column("twice")].Text))
		require.Equal(t, "abc", string(row[column("v")].Text))
		require.Equal(t, table.Missing, row[0].State)
		return true
	}))
}

// A value or a comparison that the type does not have is the query's fault; the
// message names the column where it can.
func TestListRefuses(t *testing.T) {
	t.Parallel()
	pool := open(t, listTables+`create table kinds (id int primary key, d date, iv interval, r regclass, by bytea, x xml, p point, u uuid, jb jsonb, ip inet)`)
	tables := loadTables(t, pool)
	for _, c := range []struct{ tbl, column, value, code, detail string }{
		{"t", "id", "x", "invalid_value", `Invalid input syntax for type integer: "x".`},
		{"t", "id", "", "invalid_value", `Invalid input syntax for type integer: "".`},
		{"t", "id", "9999999999", "out_of_range", `Value "9999999999" is out of range for type integer.`},
		{"t", "m", "glad", "invalid_value", `Invalid input value for enum mood: "glad".`},
		{"t", "v", "\xff", "invalid_value", "Invalid byte sequence"},
		{"t", "v", "\x00", "invalid_value", "Invalid byte sequence"},
		{"t", "b", "$1", "invalid_value", `Invalid input syntax for type boolean: "$1".`},
		{"t", "a", "[1]", "invalid_value", "Malformed array literal"},
		{"kinds", "d", "2024-02-30", "invalid_datetime", "Date/time field value out of range"},
		{"kinds", "iv", "soon", "invalid_datetime", "Invalid input syntax for type interval"},
		{"kinds", "r", "nothing", "invalid_value", `Relation "nothing" does not exist.`},
		{"kinds", "u", "1", "invalid_value", "Invalid input syntax for type uuid"},
		{"kinds", "jb", "{\n$2", "invalid_value", "Invalid input syntax for type json."},
		{"kinds", "ip", strings.Repeat("9", 1000), "invalid_value", "Invalid input syntax for type inet"},
	} {
		column, _ := tables[c.tbl].Column(c.column)
		_, err := list(t, pool, tables[c.tbl], table.Query{Where: []table.Filter{
			{Operator: table.Is, Values: []string{"null"}}, {Operator: table.In, Values: []string{"1", "2"}},
			{Column: column, Operator: table.Eq, Values: []string{c.value}},
		}})
		var bad *table.FieldError
		require.ErrorAs(t, err, &bad, "%s %q", c.column, c.value)
		require.Equal(t, c.column, bad.Column, "%q", c.value)
		require.Equal(t, c.code, bad.Code, "%s %q", c.column, c.value)
		require.Contains(t, bad.Detail, c.detail)
		require.Less(t, len(bad.Detail), 300)
	}
	jb, _ := tables["t"].Column("j")
	x, _ := tables["kinds"].Column("x")
	v, _ := tables["t"].Column("v")
	for tbl, q := range map[*table.Table]table.Query{
		tables["kinds"]: {Order: []table.Order{{Column: x}}},
		tables["t"]:     {Where: []table.Filter{{Column: jb, Operator: table.Eq, Values: []string{"{}"}}}},
	} {
		_, err := list(t, pool, tbl, q)
		require.ErrorAs(t, err, new(*table.FieldError))
	}
	_, err := list(t, pool, tables["t"], table.Query{Where: []table.Filter{{Column: v, Operator: table.Like, Values: []string{`a\`}}}})
	require.ErrorAs(t, err, new(*table.FieldError), "a pattern that ends with its escape")
}

// The list ends where the caller has enough, and the rest of it is not read: it
// costs a connection, and no more.
func TestListEnds(t *testing.T) {
	t.Parallel()
	pool := open(t, `create table t (id int primary key, v text); insert into t select i, repeat('x', 1000) from generate_series(1, 20000) i`)
	tbl, rows := loadTables(t, pool)["t"], 0
	before := pool.Stat().NewConnsCount()
	for range 10 {
		require.NoError(t, NewEdge(pool).List(t.Context(), tbl, &table.Query{Limit: 20000}, func(table.Row) bool { rows++; return rows%3 > 0 }))
	}
	require.Equal(t, 3*10, rows)
	require.GreaterOrEqual(t, pool.Stat().NewConnsCount()-before, int64(9))
	require.NoError(t, NewEdge(pool).List(t.Context(), tbl, &table.Query{Limit: 20000}, func(table.Row) bool { rows++; return true }))
	require.Equal(t, 3*10+20000, rows)
}

// Connections that died in the pool are no reason to fail; a table that is gone
// and a server that is away are.
func TestListUnavailable(t *testing.T) {
	t.Parallel()
	pool := open(t, listTables)
	tbl := loadTables(t, pool)["t"]
	execute(t, pool, `select 1`)
	other := openURL(t, pool.Config().ConnString(), "")
	execute(t, other, fmt.Sprintf(`select pg_terminate_backend(pid) from pg_stat_activity where datname = '%s' and pid <> pg_backend_pid()`,
		pool.Config().ConnConfig.Database))
	got, err := list(t, pool, tbl, table.Query{Order: []table.Order{{Column: 0}}})
	require.NoError(t, err)
	require.Equal(t, "1 2 3 4", got)

	execute(t, pool, `alter table t drop column n`)
	_, err = list(t, pool, tbl, table.Query{})
	require.ErrorIs(t, err, ErrCatalogStale)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = NewEdge(pool).List(ctx, tbl, &table.Query{Limit: 1}, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrUnavailable)
	away, err := NewPool(t.Context(), "postgres://nobody@127.0.0.1:1/none", PoolOptions{})
	require.NoError(t, err)
	defer away.Close()
	_, err = list(t, away, tbl, table.Query{})
	require.ErrorIs(t, err, ErrUnavailable)
}
