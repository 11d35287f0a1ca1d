package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
)

func column(t *testing.T, tbl *table.Table, name string) *table.Column {
	t.Helper()
	i, ok := tbl.Column(name)
	require.True(t, ok, "%s.%s", tbl.Name, name)
	return &tbl.Columns[i]
}

func TestBuiltInTypes(t *testing.T) {
	t.Parallel()
	type want struct {
		sql                             string
		kind                            table.Kind
		precision, scale, length, digit int
	}
	wants := []want{
		{sql: "boolean", kind: table.KindBool, digit: -1},
		{sql: "smallint", kind: table.KindInt2, digit: -1},
		{sql: "integer", kind: table.KindInt4, digit: -1},
		{sql: "bigint", kind: table.KindInt8, digit: -1},
		{sql: "real", kind: table.KindFloat4, digit: -1},
		{sql: "double precision", kind: table.KindFloat8, digit: -1},
		{sql: "numeric", kind: table.KindNumeric, digit: -1},
		{sql: "numeric(12,2)", kind: table.KindNumeric, precision: 12, scale: 2, digit: -1},
		{sql: "numeric(5,0)", kind: table.KindNumeric, precision: 5, digit: -1},
		{sql: "numeric(3,-2)", kind: table.KindNumeric, precision: 3, scale: -2, digit: -1},
		{sql: "numeric(1000,-1000)", kind: table.KindNumeric, precision: 1000, scale: -1000, digit: -1},
		{sql: "numeric(3,5)", kind: table.KindNumeric, precision: 3, scale: 5, digit: -1},
		{sql: "text", kind: table.KindText, digit: -1},
		{sql: "character varying", kind: table.KindVarchar, digit: -1},
		{sql: "character varying(3)", kind: table.KindVarchar, length: 3, digit: -1},
		{sql: "character(5)", kind: table.KindBpchar, length: 5, digit: -1},
		{sql: "bpchar", kind: table.KindBpchar, digit: -1},
		{sql: "uuid", kind: table.KindUUID, digit: -1},
		{sql: "date", kind: table.KindDate, digit: -1},
		{sql: "timestamp without time zone", kind: table.KindTimestamp, digit: -1},
		{sql: "timestamp(0) without time zone", kind: table.KindTimestamp, digit: 0},
		{sql: "timestamp with time zone", kind: table.KindTimestamptz, digit: -1},
		{sql: "timestamp(3) with time zone", kind: table.KindTimestamptz, digit: 3},
		{sql: "json", kind: table.KindJSON, digit: -1},
		{sql: "jsonb", kind: table.KindJSONB, digit: -1},
		{sql: "bytea", kind: table.KindBytea, digit: -1},
	}
	others := []string{
		"name", `"char"`, "xml", "inet", "cidr", "macaddr", "macaddr8", "interval", "interval(3)", "interval day to second",
		"time without time zone", "time(3) with time zone", "money", "bit(3)", "bit varying(5)", "point", "line", "lseg", "box",
		"path", "polygon", "circle", "tsvector", "tsquery", "jsonpath", "oid", "regclass", "regtype", "pg_lsn", "xid", "xid8", "tid",
		"txid_snapshot", "pg_snapshot", "int4range", "numrange", "tstzrange", "int8multirange", "datemultirange", "int2vector", "oidvector",
		"public.citext", "public.hstore", "aclitem",
	}
	for _, o := range others {
		wants = append(wants, want{sql: o, kind: table.KindOther, digit: -1})
	}
	var cols []string
	for i, w := range wants {
		cols = append(cols, fmt.Sprintf("c%d %s", i, w.sql), fmt.Sprintf("a%d %s[]", i, w.sql))
	}
	pool := open(t, `create extension citext; create extension hstore; create table every (`+strings.Join(cols, ", ")+`)`)
	every := loadTables(t, pool)["every"]
	require.Empty(t, every.Unusable)
	for i, w := range wants {
		typ := column(t, every, fmt.Sprintf("c%d", i)).Type
		require.Equal(t, w.sql, typ.Name)
		require.Equal(t, w, want{typ.Name, typ.Kind, typ.Precision, typ.Scale, typ.Length, typ.Digits})

		arr := column(t, every, fmt.Sprintf("a%d", i)).Type
		require.Equal(t, w.sql+"[]", arr.Name)
		require.Equal(t, table.KindArray, arr.Kind, arr.Name)
		require.Equal(t, w, want{arr.Elem.Name, arr.Elem.Kind, arr.Elem.Precision, arr.Elem.Scale, arr.Elem.Length, arr.Elem.Digits})
		require.Equal(t, w.sql == "box", arr.Delim == ';', arr.Name)
	}
}

func TestUserTypes(t *testing.T) {
	t.Parallel()
	pool := open(t, `
		create schema "Odd ""Schema""";
		create type "Odd ""Schema""".mood as enum ('sad', 'it''s ok', 'HAPPY');
		alter type "Odd ""Schema""".mood add value 'so so' before 'HAPPY';
		create domain posint as int4 check (value > 0);
		create domain small as posint not null check (value < 100);
		create domain code as varchar(3);
		create type pair as (a small, "B c" "Odd ""Schema""".mood[], d numeric(5,1));
		create type nest as (p pair, q pair[]);
		create type span as range (subtype = posint);
		create table t (m "Odd ""Schema""".mood, ms "Odd ""Schema""".mood[][], s small, p posint, c code[], pr pair, n nest, prs nest[], r span);
		create table rowtype (x t);`)
	tables := loadTables(t, pool)
	tbl := tables["t"]
	require.Empty(t, tbl.Unusable)

	m := column(t, tbl, "m").Type
	require.Equal(t, table.KindEnum, m.Kind)
	require.Equal(t, `"Odd ""Schema""".mood`, m.Name)
	require.Equal(t, []string{"sad", "it's ok", "so so", "HAPPY"}, m.Labels)
	require.Equal(t, m, column(t, tbl, "ms").Type.Elem)

	s := column(t, tbl, "s")
	require.True(t, s.NotNull, "a domain's NOT NULL counts")
	require.Equal(t, table.KindDomain, s.Type.Kind)
	require.Equal(t, "public.posint", s.Type.Base.Name)
	require.Equal(t, table.KindInt4, s.Type.Base.Base.Kind)
	require.False(t, column(t, tbl, "p").NotNull)

	c := column(t, tbl, "c").Type
	require.Equal(t, 3, c.Elem.Base.Length)

	pr := column(t, tbl, "pr").Type
	require.Equal(t, table.KindComposite, pr.Kind)
	require.Equal(t, "B c", pr.Fields[1].Name)
	require.Equal(t, table.KindEnum, pr.Fields[1].Type.Elem.Kind)
	require.Equal(t, 5, pr.Fields[2].Type.Precision)
	require.Equal(t, pr, column(t, tbl, "n").Type.Fields[1].Type.Elem)

	require.Equal(t, table.KindOther, column(t, tbl, "r").Type.Kind)
	require.Equal(t, "public.span", column(t, tbl, "r").Type.Name)
	require.Equal(t, table.KindComposite, column(t, tables["rowtype"], "x").Type.Kind)
}

// Postgres forbids it; if it did not, nobody may walk in circles.
func TestTypesThatHoldThemselves(t *testing.T) {
	t.Parallel()
	s := newTypeSet()
	self, arr := typeKey{1, -1}, typeKey{2, -1}
	s.rows[self] = &typeRow{key: self, name: "self", typtype: "c", fieldNames: []string{"x"}, fieldTypes: []uint32{2}, fieldMods: []int32{-1}}
	s.rows[arr] = &typeRow{key: arr, name: "self[]", typtype: "b", elem: 1, delim: ","}
	typ := s.get(self)
	require.Equal(t, table.KindComposite, typ.Kind)
	inner := typ.Fields[0].Type.Elem
	require.Equal(t, table.KindOther, inner.Kind)
	require.Equal(t, "self", inner.Name)
	require.Len(t, s.parts(self), 2)
}
