package postgres

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
)

func texts(row table.Row) string {
	out := make([]string, len(row))
	for i, c := range row {
		out[i] = string(c.Text)
		if c.State == table.Null {
			out[i] = "NULL"
		}
	}
	return strings.Join(out, "|")
}

func TestLoadRow(t *testing.T) {
	t.Parallel()
	pool := open(t, `
		create schema app; create type app.mood as enum ('sad', 'ok'); create domain app.code as char(4);
		create table t (a app.code, m app.mood, n numeric(10,2), v varchar(3), b bool, i inet, f float8, x text,
			twice numeric generated always as (n * 2) stored, ts timestamptz, by bytea, primary key (n, m, a, v));
		insert into t values ('ab', 'ok', 1.5, 'abc', true, '10.0.0.1', 0.1, null, default, '2024-01-01 00:00+02', '\xff');
		create table parent (id int primary key, v text); create table child () inherits (parent); insert into child values (1, 'child');
		create table parted (id int primary key, v text) partition by hash (id); create table parted_0 partition of parted for values with (modulus 1, remainder 0);
		insert into parted values (1, 'in a partition');
		create table loose (k numeric primary key); insert into loose values (1.0);`)
	e, tables := NewEdge(pool), loadTables(t, pool)
	load := func(name string, key ...string) (string, bool) {
		row, found, err := e.LoadRow(t.Context(), tables[name], cells(key...))
		require.NoError(t, err)
		return texts(row), found
	}
	row, found := load("t", "1.50", "ok", "ab  ", "abc")
	require.True(t, found)
	require.Equal(t, `ab  |ok|1.50|abc|t|10.0.0.1|0.1|NULL|3.00|2023-12-31 22:00:00+00|\xff`, row)
	_, found = load("t", "1.5", "ok", "ab", "abc")
	require.True(t, found, "equal is what the index says")
	_, found = load("t", "1.50", "ok", "ab  ", "abcd")
	require.False(t, found, "a key that is too long is not cut to one that exists")
	_, found = load("t", "1.504", "ok", "ab  ", "abc")
	require.False(t, found, "nor rounded")
	_, found = load("parent", "1")
	require.False(t, found, "rows of tables that inherit are not under this key")
	row, found = load("parted", "1")
	require.True(t, found)
	require.Equal(t, "1|in a partition", row)
	row, found = load("loose", "1.000")
	require.True(t, found)
	require.Equal(t, "1.0", row)

	var field *table.FieldError
	_, _, err := e.LoadRow(t.Context(), tables["parent"], cells("x"))
	require.ErrorAs(t, err, &field)
	require.Equal(t, "invalid_key", field.Code)
	_, _, err = e.LoadRow(t.Context(), tables["parent"], cells("1", "2"))
	require.Error(t, err)

	execute(t, pool, `alter table parent drop column v`)
	_, _, err = e.LoadRow(t.Context(), tables["parent"], cells("1"))
	require.ErrorIs(t, err, ErrCatalogStale)
}

// The operator comes from the index, so that one of a schema that is not on
// the search_path is found, and is not another type's.
func TestLoadRowUsesTheIndex(t *testing.T) {
	t.Parallel()
	pool := open(t, `
		create schema ext; create extension citext schema ext; create schema app; create type app.mood as enum ('sad', 'ok'); create domain app.code as char(4);
		create table t1 (k bigint primary key); insert into t1 select generate_series(1, 5000);
		create table t2 (k ext.citext primary key); insert into t2 select 'K' || generate_series(1, 5000);
		create table t3 (k varchar(9) primary key); insert into t3 select 'k' || generate_series(1, 5000);
		create table t4 (k app.code, m app.mood, primary key (k, m)); insert into t4 select i::text, 'ok' from generate_series(1, 5000) i;
		create table t5 (k numeric(9,2) primary key); insert into t5 select generate_series(1, 5000);
		create table t6 (k text[] primary key); insert into t6 select array[i::text] from generate_series(1, 5000) i;
		create table t7 (k tstzrange primary key); insert into t7 select tstzrange(now() + i * interval '1s', null) from generate_series(1, 5000) i;
		create table t8 (k name primary key); insert into t8 select 'k' || generate_series(1, 5000);
		analyze;`)
	tables := loadTables(t, pool)
	for name, key := range map[string][]string{
		"t1": {"77"}, "t2": {"k77"}, "t3": {"k77"}, "t4": {"77  ", "ok"}, "t5": {"77.00"}, "t6": {"{77}"}, "t7": {"[2024-01-01,)"}, "t8": {"k77"},
	} {
		q := loadRow(tables[name], cells(key...))
		q.sql = "explain " + q.sql
		answers, err := NewEdge(pool).ask(t.Context(), []question{q})
		require.NoError(t, err)
		require.Nil(t, answers[0].err, name)
		require.Contains(t, string(answers[0].rows[0][0]), "Index", name)
		if name != "t7" {
			_, found, err := NewEdge(pool).LoadRow(t.Context(), tables[name], cells(key...))
			require.NoError(t, err)
			require.True(t, found, name)
		}
	}
	require.Equal(t, []string{"operator(ext.=)"}, tables["t2"].KeyEquals)
}
