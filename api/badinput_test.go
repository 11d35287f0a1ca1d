package api_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
)

// badTables has a column of every kind that can be given badly. Nothing is ever
// accepted into them.
const badTables = `
	create type mood as enum ('sad', 'ok');
	create domain posint as int check (value > 0);
	create domain code as varchar(3) check (value ~ '^[a-z]+$');
	create domain filled as text not null;
	create type spot as (x int, label text);
	create table bad (
		id bigint primary key, must text not null,
		i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision, n numeric, n52 numeric(5,2), b boolean,
		tx text, vc varchar(3), ch char(3), u uuid, d date, ts timestamp, tz timestamptz, tm time, iv interval,
		j json, jb jsonb, by bytea, ip inet, cd cidr, mc macaddr, en mood, ia int[], ta text[], r int4range,
		dm posint, co code, sp spot, "a/b~c" int, twice int generated always as (i4 * 2) stored
	);
	create table ident (id bigint generated always as identity primary key, v text);
	create table lacks (id int primary key, v filled);
	create table nulls (id int primary key, v text not null default current_setting('headpond.unset', true));
	create table keyless (v int);
	create table byuuid (id uuid primary key);
	create table bytext (id text primary key);
	create table pair (a int, b text, primary key (a, b));
	create view looks as select 1 as x;
	create table guarded (id int primary key); alter table guarded enable row level security;
	create unlogged table fleeting (id int primary key);`

// badCase is one request that must be refused whole.
type badCase struct {
	name     string
	method   string // POST when empty
	table    string // bad when empty
	path     string // instead of the table's
	body     string
	headers  []string
	status   int
	code     string
	pointers []string
}

// column is a row of bad with one more member, which is refused.
func column(name, value, code string) badCase {
	return badCase{
		name: name + "=" + value[:min(len(value), 30)], body: `{"id":1,"must":"m","` + name + `":` + value + `}`,
		status: 422, code: code, pointers: []string{"/" + name},
	}
}

// whole is a body that is refused as such.
func whole(name, body, code string) badCase {
	return badCase{name: name, body: body, status: 400, code: code}
}

// TestBadInput: rows of the bad-input matrix (research/reliability.md, G), as
// far as the endpoints reach.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := setupWith(t, badTables, options{limits: api.Limits{Body: 64 << 10, Rows: 100}})
	t.Run("case", func(t *testing.T) { // returns when all cases have
		for _, cases := range [][]badCase{badPaths(), badHeaders(), badJSON(), badRows(), badValues(), badBatches()} {
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					s.refuses(t, c)
				})
			}
		}
	})
	s.startFlusher()
	s.flushed()
	for _, tbl := range []string{"bad", "ident", "lacks", "nulls", "keyless", "byuuid", "bytext", "pair", "guarded", "fleeting", "headpond.dead_letters"} {
		require.Zero(t, s.count(tbl), tbl)
	}
}

func (s *stack) refuses(t *testing.T, c badCase) {
	if c.method == "" {
		c.method = http.MethodPost
	}
	if c.table == "" {
		c.table = "bad"
	}
	if c.path == "" {
		c.path = s.path(c.table)
	}
	a := s.ask(t, c.method, strings.ReplaceAll(c.path, "{s}", s.schema), c.body, c.headers...)
	p := a.problem(t, c.status, c.code)
	require.Equal(t, "no", p.Applied)
	if c.pointers != nil {
		require.Equal(t, c.pointers, p.pointers(), string(a.body))
	}
	for name := range s.targets {
		tails, err := s.buf.Tails(context.Background(), s.places(name))
		require.NoError(t, err)
		for _, tail := range tails {
			require.Zero(t, tail.Last.Seq, "%s: something was applied", name)
		}
	}
}

func badPaths() []badCase {
	post := func(name, path string, status int, code string) badCase {
		return badCase{name: name, path: path, body: `{"id":1}`, status: status, code: code}
	}
	get := func(name, path string, status int, code string) badCase {
		return badCase{name: name, method: http.MethodGet, path: path, status: status, code: code}
	}
	method := func(method, path string) badCase {
		return badCase{name: method + " " + path, method: method, path: path, status: 405, code: "method_not_allowed"}
	}
	return []badCase{
		post("unknown table", "/v1/nothing", 404, "table_not_found"),
		post("system table", "/v1/pg_catalog.pg_user", 404, "table_not_found"),
		post("system table 2", "/v1/pg_user", 404, "table_not_found"),
		post("table of Headpond", "/v1/headpond.watermarks", 404, "table_not_found"),
		post("injection", "/v1/%22a%22;%20drop%20table%20x", 404, "table_not_found"),
		post("up", "/v1/..%2Fx", 404, "table_not_found"),
		post("up 2", "/v1/%2E%2E", 404, "table_not_found"),
		post("NUL table", "/v1/%00", 404, "table_not_found"),
		post("invalid UTF-8 table", "/v1/%ff", 404, "table_not_found"),
		post("long table", "/v1/"+strings.Repeat("x", 5000), 404, "table_not_found"),
		post("no table", "/v1/", 404, "not_found"),
		get("unknown path", "/v2/x", 404, "not_found"),
		get("unknown path 2", "/admin/v1/nothing", 404, "not_found"),
		get("row of an unknown table", "/v1/nothing/1", 404, "table_not_found"),
		get("schema of an unknown table", "/v1/nothing/_schema", 404, "table_not_found"),

		post("view", "/v1/{s}.looks", 409, "table_not_usable"),
		post("row-level security", "/v1/{s}.guarded", 409, "table_not_usable"),
		post("unlogged", "/v1/{s}.fleeting", 409, "table_not_usable"),
		get("row of a view", "/v1/{s}.looks/1", 409, "table_not_usable"),
		get("schema of a view", "/v1/{s}.looks/_schema", 409, "table_not_usable"),
		get("no primary key", "/v1/{s}.keyless/1", 409, "no_primary_key"),

		method("DELETE", "/v1/{s}.bad"), method("PUT", "/v1/{s}.bad"), method("PATCH", "/v1"), method("POST", "/livez"),
		method("POST", "/v1/{s}.bad/1"), method("DELETE", "/v1/{s}.bad/_schema"), method("PUT", "/v1/receipts/x.0.1.1"),
		method("POST", "/admin/v1/status"),

		get("key of a wrong type", "/v1/{s}.bad/x", 422, "invalid_key"),
		get("key out of range", "/v1/{s}.bad/9223372036854775808", 422, "invalid_key"),
		get("key with a fraction", "/v1/{s}.bad/1.5", 422, "invalid_key"),
		get("uuid key", "/v1/{s}.byuuid/x", 422, "invalid_key"),
		get("too few parts", "/v1/{s}.pair/1", 400, "bad_key"),
		get("too many parts", "/v1/{s}.pair/1,2,3", 400, "bad_key"),
		get("part of a wrong type", "/v1/{s}.pair/x,y", 422, "invalid_key"),
		get("NUL key", "/v1/{s}.bytext/a%00b", 400, "bad_key"),
		get("control character", "/v1/{s}.bytext/a%0Ab", 400, "bad_key"),
		get("DEL", "/v1/{s}.bytext/a%7Fb", 400, "bad_key"),
		get("invalid UTF-8 key", "/v1/{s}.bytext/a%ffb", 400, "bad_key"),
		get("overlong UTF-8 key", "/v1/{s}.bytext/%c0%af", 400, "bad_key"),
		get("surrogate in a key", "/v1/{s}.bytext/%ed%a0%80", 400, "bad_key"),
		get("long key", "/v1/{s}.bytext/"+strings.Repeat("k", 1025), 422, "invalid_key"),
		get("unknown column selected", "/v1/{s}.bad/1?select=id,nope", 400, "bad_filter"),

		get("receipt that is none", "/v1/receipts/x", 404, "receipt_not_found"),
		get("receipt of no table", "/v1/receipts/nothing.0.1.1", 404, "receipt_not_found"),
		get("receipt of no partition", "/v1/receipts/{s}.bad.99.1.1", 404, "receipt_not_found"),
		get("receipt of a giant partition", "/v1/receipts/{s}.bad.99999999999.1.1", 404, "receipt_not_found"),
		get("receipt of no epoch", "/v1/receipts/{s}.bad.0.7.1", 404, "receipt_not_found"),
		get("receipt of epoch 0", "/v1/receipts/{s}.bad.0.0.1", 404, "receipt_not_found"),
		get("receipt of no seq", "/v1/receipts/{s}.bad.0.1.1", 404, "receipt_not_found"),
		get("receipt of seq 0", "/v1/receipts/{s}.bad.0.1.0", 404, "receipt_not_found"),
		get("receipt of a negative seq", "/v1/receipts/{s}.bad.0.1.-1", 404, "receipt_not_found"),
		get("receipt of a giant seq", "/v1/receipts/{s}.bad.0.1.99999999999999999999", 404, "receipt_not_found"),
		get("receipt of a view", "/v1/receipts/{s}.looks.0.1.1", 404, "receipt_not_found"),
		get("wait that is no time", "/v1/receipts/{s}.bad.0.1.1?wait=soon", 400, "bad_filter"),
		get("negative wait", "/v1/receipts/{s}.bad.0.1.1?wait=-1s", 400, "bad_filter"),
	}
}

func badHeaders() []badCase {
	with := func(name string, status int, code string, headers ...string) badCase {
		return badCase{name: name, body: `{"id":1,"must":"m"}`, headers: headers, status: status, code: code}
	}
	return []badCase{
		with("no content type", 415, "unsupported_media_type", "Content-Type", "-"),
		with("form", 415, "unsupported_media_type", "Content-Type", "application/x-www-form-urlencoded"),
		with("text", 415, "unsupported_media_type", "Content-Type", "text/plain"),
		with("csv without a header", 415, "unsupported_media_type", "Content-Type", "text/csv; header=absent"),
		with("merge patch", 415, "unsupported_media_type", "Content-Type", "application/merge-patch+json"),
		with("latin-1", 415, "unsupported_media_type", "Content-Type", "application/json; charset=iso-8859-1"),
		with("utf-16", 415, "unsupported_media_type", "Content-Type", "application/json; charset=utf-16"),
		with("broken content type", 415, "unsupported_media_type", "Content-Type", "application/json; charset"),
		with("deflate", 415, "unsupported_encoding", "Content-Encoding", "deflate"),
		with("br", 415, "unsupported_encoding", "Content-Encoding", "br"),
		with("two encodings", 415, "unsupported_encoding", "Content-Encoding", "identity, gzip"),
		with("two encoding fields", 415, "unsupported_encoding", "Content-Encoding", "identity", "Content-Encoding", "gzip"),
		with("unknown preference", 400, "bad_preference", "Prefer", "handling=strict, respond-async"),
		with("unknown preference first", 400, "bad_preference", "Prefer", "respond-async", "Prefer", "handling=strict"),
		with("bad return", 400, "bad_preference", "Prefer", "handling=strict, return=everything"),
		with("bad wait", 400, "bad_preference", "Prefer", "handling=strict, wait=soon"),
		with("negative wait", 400, "bad_preference", "Prefer", "handling=strict, wait=-1"),
		with("wait=NaN", 400, "bad_preference", "Prefer", "handling=strict, wait=NaN"),
	}
}

func badJSON() []badCase {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	return []badCase{
		whole("empty", "", "empty_body"), whole("blank", " \r\n\t", "empty_body"),
		whole("not JSON", "id=1", "invalid_json"), whole("html", "<a/>", "invalid_json"),
		whole("truncated", `{"id":1,"must":"m"`, "invalid_json"), whole("truncated string", `{"id":1,"must":"m`, "invalid_json"),
		whole("truncated array", `[{"id":1,"must":"m"},`, "invalid_json"), whole("open array", `[{"id":1,"must":"m"}`, "invalid_json"),
		whole("trailing", `{"id":1,"must":"m"}x`, "invalid_json"), whole("trailing bracket", `{"id":1,"must":"m"}]`, "invalid_json"),
		whole("two documents", `{"id":1,"must":"m"}{"id":2,"must":"m"}`, "invalid_json"),
		whole("two documents, two lines", "{\"id\":1,\"must\":\"m\"}\n{\"id\":2,\"must\":\"m\"}", "invalid_json"),
		whole("two arrays", `[{"id":1,"must":"m"}][]`, "invalid_json"), whole("no comma", `[{"id":1,"must":"m"}{"id":2,"must":"m"}]`, "invalid_json"),
		whole("BOM", "\xef\xbb\xbf{\"id\":1,\"must\":\"m\"}", "invalid_json"), whole("BOM, array", "\xef\xbb\xbf[]", "invalid_json"),
		whole("UTF-16LE", "\xff\xfe{\x00}\x00", "invalid_json"), whole("UTF-16BE", "\xfe\xff\x00{\x00}", "invalid_json"),
		whole("UTF-16LE without BOM", "{\x00\"\x00i\x00", "invalid_json"), whole("NUL bytes", "\x00\x00", "invalid_json"),
		whole("trailing comma", `{"id":1,}`, "invalid_json"), whole("comment", `{"id":1/*x*/}`, "invalid_json"),
		whole("single quotes", `{'id':1}`, "invalid_json"), whole("bare name", `{id:1}`, "invalid_json"),
		whole("bare NaN", `{"id":1,"must":"m","f8":NaN}`, "invalid_json"), whole("bare Infinity", `{"id":1,"must":"m","f8":-Infinity}`, "invalid_json"),
		whole("leading zero", `{"id":01}`, "invalid_json"), whole("plus", `{"id":+1}`, "invalid_json"), whole("hex", `{"id":0x1}`, "invalid_json"),
		whole("bare point", `{"id":.5}`, "invalid_json"), whole("raw newline", "{\"id\":1,\"must\":\"a\nb\"}", "invalid_json"),
		whole("bad escape", `{"id":1,"must":"\x41"}`, "invalid_json"), whole("True", `{"id":1,"b":True}`, "invalid_json"),

		whole("null", `null`, "invalid_json_shape"), whole("number", `1`, "invalid_json_shape"), whole("string", `"x"`, "invalid_json_shape"),
		whole("true", `true`, "invalid_json_shape"), whole("array of numbers", `[1]`, "invalid_json_shape"),
		whole("array of null", `[null]`, "invalid_json_shape"), whole("array of arrays", `[[]]`, "invalid_json_shape"),

		whole("invalid UTF-8", "{\"id\":1,\"must\":\"a\xffb\"}", "invalid_utf8"), whole("invalid UTF-8 name", "{\"id\":1,\"m\xff\":1}", "invalid_utf8"),
		whole("overlong UTF-8", "{\"id\":1,\"must\":\"\xc0\xaf\"}", "invalid_utf8"), whole("CESU surrogate", "{\"id\":1,\"must\":\"\xed\xa0\x80\"}", "invalid_utf8"),
		whole("truncated UTF-8", "{\"id\":1,\"must\":\"\xe2\x82\"}", "invalid_utf8"), whole("invalid UTF-8 nested", "{\"id\":1,\"jb\":{\"a\":[\"\xff\"]}}", "invalid_utf8"),
		whole("invalid UTF-8 in an array's row", "[{\"id\":1,\"must\":\"a\"},{\"id\":2,\"must\":\"\xff\"}]", "invalid_utf8"),
		whole("high surrogate", `{"id":1,"must":"\ud800"}`, "invalid_unicode"), whole("low surrogate", `{"id":1,"must":"\udc00"}`, "invalid_unicode"),
		whole("surrogates reversed", `{"id":1,"must":"\udc00\ud800"}`, "invalid_unicode"), whole("high surrogate and text", `{"id":1,"must":"\ud800A"}`, "invalid_unicode"),
		whole("surrogate nested", `{"id":1,"must":"m","jb":{"a":["\ud800"]}}`, "invalid_unicode"), whole("surrogate in a name", `{"id":1,"\ud800":1}`, "invalid_unicode"),

		whole("name twice", `{"id":1,"id":1,"must":"m"}`, "duplicate_field"), whole("name twice, escaped", `{"id":1,"\u0069d":2,"must":"m"}`, "duplicate_field"),
		whole("name twice, nested", `{"id":1,"must":"m","jb":{"a":{"b":1,"b":2}}}`, "duplicate_field"),
		whole("name twice, in json", `{"id":1,"must":"m","j":{"a":1,"a":1}}`, "duplicate_field"),
		whole("unknown name twice", `{"id":1,"must":"m","x":1,"x":1}`, "duplicate_field"),
		whole("name twice in an array's row", `[{"id":1,"must":"m"},{"id":2,"id":3,"must":"m"}]`, "duplicate_field"),

		whole("too deep", `{"id":1,"must":"m","jb":`+deep(33)+`}`, "too_deep"), whole("far too deep", `{"id":1,"must":"m","jb":`+deep(20_000)+`}`, "too_deep"),
		whole("too deep, never closed", `{"id":1,"must":"m","jb":`+strings.Repeat("[", 20_000), "too_deep"),
		whole("too deep, objects", `{"id":1,"must":"m","jb":`+strings.Repeat(`{"a":`, 40)+"1"+strings.Repeat("}", 40)+`}`, "too_deep"),
		whole("too deep in an unknown column", `{"id":1,"must":"m","nope":`+deep(40)+`}`, "too_deep"),
	}
}

func badRows() []badCase {
	one := func(name, tbl, body, code string, pointers ...string) badCase {
		return badCase{name: name, table: tbl, body: body, status: 422, code: code, pointers: pointers}
	}
	return []badCase{
		one("unknown column", "bad", `{"id":1,"must":"m","nope":1}`, "unknown_column", "/nope"),
		one("another case", "bad", `{"ID":1,"id":1,"must":"m"}`, "unknown_column", "/ID"),
		one("pointer is escaped", "bad", `{"id":1,"must":"m","x/y~z":1}`, "unknown_column", "/x~1y~0z"),
		one("pointer of a column is escaped", "bad", `{"id":1,"must":"m","a/b~c":"x"}`, "type_mismatch", "/a~1b~0c"),
		one("empty name", "bad", `{"id":1,"must":"m","":1}`, "unknown_column"),
		one("system column", "bad", `{"id":1,"must":"m","ctid":"(0,1)"}`, "unknown_column", "/ctid"),
		one("long name", "bad", `{"id":1,"must":"m","`+strings.Repeat("n", 2000)+`":1}`, "unknown_column"),
		one("generated column", "bad", `{"id":1,"must":"m","twice":2}`, "read_only_column", "/twice"),
		one("generated column, null", "bad", `{"id":1,"must":"m","twice":null}`, "read_only_column", "/twice"),
		one("identity always", "ident", `{"id":1,"v":"x"}`, "read_only_column", "/id"),
		one("required", "bad", `{"id":1}`, "required", "/must"),
		one("required, several", "bad", `{}`, "required", "/id", "/must"),
		one("null", "bad", `{"id":1,"must":null}`, "null_not_allowed", "/must"),
		one("null key", "bad", `{"id":null,"must":"m"}`, "null_not_allowed", "/id"),
		one("domain that is NOT NULL", "lacks", `{"id":1,"v":null}`, "null_not_allowed", "/v"),
		one("domain that is NOT NULL, left out", "lacks", `{"id":1}`, "required", "/v"),
		one("default that is null", "nulls", `{"id":1}`, "null_not_allowed", "/v"),
		one("several at once", "bad", `{"id":"x","must":null,"nope":1,"i4":"x"}`, "type_mismatch", "/id", "/must", "/nope", "/i4"),
		one("long key", "bytext", `{"id":"`+strings.Repeat("k", 1025)+`"}`, "invalid_key", ""),
		one("NUL in a key", "bytext", `{"id":"a\u0000"}`, "nul_not_allowed", "/id"),
		one("NUL in a name", "bad", `{"id":1,"must":"m","a\u0000":1}`, "unknown_column"),
	}
}

// badValues: wrong kinds, ranges, lengths and forms for every type.
func badValues() (out []badCase) {
	for _, name := range []string{"i2", "i4", "i8", "f4", "f8", "n", "n52", "dm"} {
		for _, value := range []string{`"x"`, `true`, `{}`, `[]`, `[1]`, `""`} {
			out = append(out, column(name, value, "type_mismatch"))
		}
	}
	for _, name := range []string{"i2", "i4", "i8"} {
		out = append(out, column(name, `1.5`, "type_mismatch"), column(name, `1e-1`, "type_mismatch"), column(name, `1e400`, "out_of_range"),
			column(name, `-1e400`, "out_of_range"), column(name, `9223372036854775808`, "out_of_range"), column(name, `-9223372036854775809`, "out_of_range"))
	}
	for _, name := range []string{"tx", "vc", "ch", "u", "d", "ts", "tz", "by", "en", "co"} {
		for _, value := range []string{`5`, `true`, `{}`, `[]`, `["x"]`} {
			out = append(out, column(name, value, "type_mismatch"))
		}
	}
	for _, name := range []string{"tm", "iv", "ip", "cd", "mc", "r"} {
		for _, value := range []string{`true`, `{}`, `[]`} {
			out = append(out, column(name, value, "type_mismatch"))
		}
	}
	for _, name := range []string{"tx", "vc", "ch", "u", "d", "tz", "by", "en", "co", "j", "jb", "ip", "r"} {
		out = append(out, column(name, `"a\u0000"`, "nul_not_allowed"))
	}
	for _, c := range [][3]string{
		{"b", `1`, "type_mismatch"}, {"b", `"true"`, "type_mismatch"}, {"b", `[]`, "type_mismatch"},
		{"i4", `"5"`, "type_mismatch"}, {"i2", `32768`, "out_of_range"}, {"i2", `-32769`, "out_of_range"}, {"i4", `2147483648`, "out_of_range"},
		{"i8", `"9223372036854775808"`, "out_of_range"}, {"f8", `1e400`, "out_of_range"}, {"f8", `-1e400`, "out_of_range"}, {"f4", `1e39`, "out_of_range"},
		{"n", `1e131072`, "out_of_range"}, {"n", `1e999999999999`, "out_of_range"}, {"n52", `1000`, "out_of_range"}, {"n52", `999.995`, "out_of_range"},
		{"n52", `"-1000"`, "out_of_range"}, {"n52", `"Infinity"`, "out_of_range"}, {"dm", `2147483648`, "out_of_range"},
		{"vc", `"abcd"`, "too_long"}, {"vc", `"äöüß"`, "too_long"}, {"ch", `"abcd"`, "too_long"}, {"co", `"abcd"`, "too_long"},
		{"d", `"2026-02-30"`, "invalid_datetime"}, {"d", `"2026-13-01"`, "invalid_datetime"}, {"d", `"tomorrow-ish"`, "invalid_datetime"}, {"d", `""`, "invalid_datetime"},
		{"d", `"2025-02-29"`, "invalid_datetime"}, {"d", `"1900-02-29"`, "invalid_datetime"},
		{"ts", `"2026-02-30T00:00:00"`, "invalid_datetime"}, {"ts", `"2026-01-01T25:00:00"`, "invalid_datetime"}, {"ts", `"2026-01-01T00:00:00+05:00"`, "invalid_datetime"},
		{"tz", `"2026-01-01T00:00:00"`, "invalid_datetime"}, {"tz", `"2026-01-01"`, "invalid_datetime"}, {"tz", `"294277-01-01T00:00:00Z"`, "invalid_datetime"},
		{"tz", `"2026-01-01T00:60:00Z"`, "invalid_datetime"}, {"tz", `"2026-01-01T00:00:61Z"`, "invalid_datetime"}, {"tz", `"2026-01-01T00:00:00+99:00"`, "invalid_datetime"},
		{"tz", `"2026-01-01 00:00 Mars/Base"`, "invalid_datetime"}, {"tm", `"25:00"`, "invalid_datetime"}, {"iv", `"1 dayz"`, "invalid_datetime"},
		{"u", `"x"`, "invalid_value"}, {"u", `""`, "invalid_value"}, {"u", `"{"`, "invalid_value"}, {"u", `"00000000-0000-0000-0000-00000000000"`, "invalid_value"},
		{"u", `"g0000000-0000-0000-0000-000000000000"`, "invalid_value"},
		{"ip", `"10.0.0.300"`, "invalid_value"}, {"ip", `5`, "invalid_value"}, {"ip", `""`, "invalid_value"}, {"cd", `"10.0.0.1/8"`, "invalid_value"}, {"mc", `"zz"`, "invalid_value"},
		{"by", `"\\xabc"`, "invalid_value"}, {"by", `"\\xzz"`, "invalid_value"}, {"by", `"\\9"`, "invalid_value"},
		{"en", `"happy"`, "invalid_value"}, {"en", `"SAD"`, "invalid_value"}, {"en", `""`, "invalid_value"},
		{"ia", `5`, "type_mismatch"}, {"ia", `{"a":1}`, "type_mismatch"}, {"ia", `["x"]`, "type_mismatch"}, {"ia", `[1.5]`, "type_mismatch"},
		{"ia", `[2147483648]`, "out_of_range"}, {"ia", `[[1],[2,3]]`, "invalid_value"}, {"ia", `[1,[2]]`, "invalid_value"}, {"ia", `[[[[[[[1]]]]]]]`, "invalid_value"},
		{"ia", `"x"`, "invalid_value"}, {"ta", `[5]`, "type_mismatch"}, {"ta", `["a\u0000"]`, "nul_not_allowed"},
		{"r", `"[5,1]"`, "invalid_value"}, {"r", `"1,5"`, "invalid_value"}, {"r", `5`, "invalid_value"},
		{"dm", `0`, "invalid_value"}, {"dm", `-5`, "invalid_value"}, {"co", `"AB"`, "invalid_value"},
		{"sp", `5`, "type_mismatch"}, {"sp", `{"z":1}`, "invalid_value"}, {"sp", `{"x":"a"}`, "type_mismatch"}, {"sp", `{"label":"\u0000"}`, "nul_not_allowed"},
		{"j", `{"a":"\u0000"}`, "nul_not_allowed"}, {"jb", `{"a":["\u0000"]}`, "nul_not_allowed"}, {"jb", `{"\u0000":1}`, "nul_not_allowed"},
		{"jb", `1e1000000`, "out_of_range"}, {"jb", `{"a":[1e-20000]}`, "out_of_range"},
	} {
		out = append(out, column(c[0], c[1], c[2]))
	}
	return out
}

func badBatches() []badCase {
	good := func(i int) string { return row(`{"id":%d,"must":"m"}`, i) }
	bad57 := func(i int) string {
		if i == 57 {
			return row(`{"id":%d,"must":"m","i4":"x","nope":1}`, i)
		}
		return good(i)
	}
	nd := []string{"Content-Type", "application/x-ndjson"}
	strictND := append([]string{"Prefer", "handling=strict"}, nd...)
	return []badCase{
		{name: "empty array", body: `[]`, status: 400, code: "empty_batch"},
		{name: "empty NDJSON", body: "\n \n\r\n", headers: nd, status: 400, code: "empty_batch"},
		{name: "no NDJSON", body: "", headers: nd, status: 400, code: "empty_body"},
		{name: "101 rows", body: array(101, good), status: 413, code: "batch_too_large"},
		{name: "101 lines", body: lines(101, good), headers: nd, status: 413, code: "batch_too_large"},
		{name: "1 bad of 100", body: array(100, bad57), status: 422, code: "invalid_rows", pointers: []string{"/57/i4", "/57/nope"}},
		{name: "1 bad line of 100, strict", body: lines(100, bad57), headers: strictND, status: 422, code: "invalid_rows", pointers: []string{"/57/i4", "/57/nope"}},
		{name: "all bad, lenient", body: `[{"id":"x","must":"m"},{}]`, headers: []string{"Prefer", "handling=lenient"}, status: 422, code: "invalid_rows", pointers: []string{"/0/id", "/1/id", "/1/must"}},
		{name: "all lines bad", body: "{\n[1]\n{}x\n\xff\n{\"id\":1,\"id\":2}\n", headers: nd, status: 422, code: "invalid_rows", pointers: []string{"/0", "/1", "/2", "/3", "/4"}},
		{name: "a line that is no JSON, strict", body: good(1) + "\n{\"id\":2\n", headers: strictND, status: 422, code: "invalid_rows", pointers: []string{"/1"}},
		{name: "same key twice", body: `[{"id":1,"must":"m"},{"id":2,"must":"m"},{"id":1,"must":"n"}]`, status: 422, code: "invalid_rows", pointers: []string{"/2/id"}},
		{name: "only Postgres sees it", body: `[{"id":1,"must":"m","ip":"10.0.0.1"},{"id":2,"must":"m","ip":"10.0.0.300"}]`, status: 422, code: "invalid_rows", pointers: []string{"/1/ip"}},
		{name: "BOM on the first line", body: "\xef\xbb\xbf" + good(1), headers: nd, status: 422, code: "invalid_rows", pointers: []string{"/0"}},
	}
}

// TestMethodsAreNamed: 405 says what would be allowed, and CORS is not offered.
func TestMethodsAreNamed(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key)`)
	for path, allowed := range map[string]string{s.path("t"): "POST", s.path("t", "1"): "GET", "/v1": "GET", "/livez": "GET", s.path("t", "_schema"): "GET"} {
		a := s.do("TRACE", path, "")
		a.problem(t, 405, "method_not_allowed")
		require.Contains(t, a.header.Get("Allow"), allowed, path)
		a = s.do(http.MethodOptions, path, "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST")
		require.Equal(t, 204, a.status)
		require.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
	}
	require.Equal(t, 200, s.do(http.MethodHead, s.path("t", "_schema"), "").status)
	require.Equal(t, 200, s.do(http.MethodHead, "/v1/receipts/"+s.post("t", `{"id":1}`).header.Get("Headpond-Receipt"), "").status)
}

// TestHelpIsGiven: what a client needs to mend a request is in the headers.
func TestHelpIsGiven(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key)`)
	a := s.do("POST", s.path("t"), "{}", "Content-Type", "text/plain")
	require.NotEmpty(t, a.header.Get("Accept-Post"))
	a = s.do("POST", s.path("t"), "{}", "Content-Encoding", "br")
	require.Equal(t, "gzip, zstd, identity", a.header.Get("Accept-Encoding"))
	trace := "0af7651916cd43dd8448eb211c80319c"
	a = s.do("POST", s.path("t"), "", "traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	require.Equal(t, trace, a.problem(t, 400, "empty_body").TraceID)
	a = s.do("POST", s.path("t"), "", "traceparent", "00-"+strings.Repeat("0", 32)+"-b7ad6b7169203331-01")
	require.NotEqual(t, strings.Repeat("0", 32), a.problem(t, 400, "empty_body").TraceID)
	p := s.do("POST", s.path("t"), `{"id":1} {"id":2}`).problem(t, 400, "invalid_json")
	require.Regexp(t, `\b(8|9|10)\b`, p.Detail, "the offset is told")
}

// TestExact: numbers come back digit for digit, before the flush and after it.
func TestExact(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id bigint primary key, n numeric, i bigint, j json, jb jsonb, tz timestamptz, tx text)`)
	s.post("t", `{"id":9007199254740993,"n":0.10000000000000000001,"i":"9223372036854775807","j":{"a": 9007199254740993 },"jb":{"a":0.10000000000000000001,"b":1.0},
		"tz":"2016-12-31T23:59:60Z","tx":"\ud83d\ude00\u2028<&>"}`)
	check := func() {
		t.Helper()
		f := s.get(s.path("t", "9007199254740993")).fields(t)
		for name, want := range map[string]string{
			"id": `9007199254740993`, "n": `0.10000000000000000001`, "i": `9223372036854775807`, "j": `{"a": 9007199254740993}`,
			"jb": `{"a": 0.10000000000000000001, "b": 1.0}`, "tz": `"2017-01-01T00:00:00+00:00"`, "tx": "\"😀\u2028<&>\"",
		} {
			require.Equal(t, want, string(f[name]), name)
		}
	}
	check()
	s.startFlusher()
	s.flushed()
	check()
	require.Equal(t, "9007199254740993 0.10000000000000000001", s.text(`select id || ' ' || n from t`))
}

// TestStrictAppliesNothing and the same rows under lenient, where the good ones go in.
func TestStrictAppliesNothing(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v int)`)
	bad := func(i int) string {
		if i == 57 {
			return `{"id":57,"v":"x"}`
		}
		return row(`{"id":%d,"v":%d}`, i, i)
	}
	p := s.do("POST", s.path("t"), array(100, bad)).problem(t, 422, "invalid_rows")
	require.Equal(t, []string{"/57/v"}, p.pointers())
	require.Equal(t, 57, *p.Errors[0].Index)
	require.Zero(t, s.accepted("t"))

	out := s.do("POST", s.path("t"), array(100, bad), "Prefer", "handling=lenient").accept(t, 207)
	require.Equal(t, 99, out.Accepted)
	require.Equal(t, 1, out.Rejected)
	require.Len(t, out.Errors, 1)
	require.Equal(t, "/57/v", out.Errors[0].Pointer)
	require.Equal(t, "type_mismatch", out.Errors[0].Code)
	require.EqualValues(t, 99, s.accepted("t"))
	s.startFlusher()
	s.flushed()
	require.Equal(t, 99, s.count("t"))
}
