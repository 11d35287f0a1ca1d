package postgres

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
