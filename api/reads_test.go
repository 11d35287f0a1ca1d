package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// everyType is a table with a column of every built-in type that a client can
// give, and of every kind of type.
const everyType = `
	create type mood as enum ('sad', 'so so', 'happy, "very"');
	create domain posint as int check (value > 0);
	create domain tags as text[];
	create type spot as (x int, label text, "a b" numeric(5,1));
	create type span as range (subtype = float8);
	create table every (
		id bigint primary key,
		i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision, n numeric, n52 numeric(5,2), mo money, o oid,
		b boolean, tx text, vc varchar(5), ch char(5), na name, by bytea, u uuid, x xml, en mood,
		d date, tm time, tm3 time(3), tmz timetz, ts timestamp, ts0 timestamp(0), tz timestamptz, iv interval,
		ip inet, cd cidr, mc macaddr, mc8 macaddr8, bi bit(3), vb varbit(5),
		j json, jb jsonb, jp jsonpath, tv tsvector, tq tsquery,
		pt point, ln line, ls lseg, bx box, pa path, pg polygon, ci circle, lsn pg_lsn,
		r4 int4range, r8 int8range, rn numrange, rt tsrange, rz tstzrange, rd daterange, rs span, mr int4multirange,
		dm posint, dt tags, sp spot,
		ai int[], ai2 int[][], at text[], an numeric[], ab boolean[], au uuid[], az timestamptz[], aj jsonb[], ae mood[], asp spot[], abx box[], ar int4range[], aby bytea[],
		twice bigint generated always as (i4::bigint * 2) stored, shout text generated always as (upper(tx)) stored
	);`

var everyRow = map[string]string{
	"i2": `-32768`, "i4": `2147483647`, "i8": `-9223372036854775808`, "f4": `0.1`, "f8": `-1.7976931348623157e308`, "n": `123456789012345678901234567890.10`,
	"n52": `1.005`, "mo": `"$1,234.50"`, "o": `4294967295`, "b": `true`, "tx": `"a\tb\nc\\d\r\u0001\u2028é😀 \\N"`, "vc": `"äöüß "`, "ch": `"ab"`, "na": `"name"`,
	"by": `"\\xDEADbeef"`, "u": `"{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}"`, "x": `"<a>b &amp; c</a>"`, "en": `"happy, \"very\""`,
	"d": `"2024-02-29"`, "tm": `"24:00"`, "tm3": `"12:34:56.123456"`, "tmz": `"12:34+02"`, "ts": `"2024-01-01T12:00:00.123456"`, "ts0": `"2024-01-01T12:00:00.5"`,
	"tz": `"2024-06-30T23:59:59.999999+05:30"`, "iv": `"P1Y2M3DT4H5M6.7S"`, "ip": `"10.0.0.1/8"`, "cd": `"10.0.0.0/8"`, "mc": `"08002b:010203"`, "mc8": `"08:00:2b:01:02:03:04:05"`,
	"bi": `"101"`, "vb": `"10"`, "j": `{"b": 1.10,  "a":[ null ]}`, "jb": `{"bb":1.10,"a":{"c":1e3,"b":"\u0041"}}`, "jp": `"$.a[*] ? (@ > 1)"`,
	"tv": `"a fat cat:2B,3"`, "tq": `"fat & (rat:* | cat)"`, "pt": `"(1.5,-2)"`, "ln": `"{1,2,3}"`, "ls": `"[(0,0),(1,1)]"`, "bx": `"(1,1),(0,0)"`, "pa": `"[(0,0),(1,1)]"`,
	"pg": `"((0,0),(1,1),(1,0))"`, "ci": `"<(0,0),5>"`, "lsn": `"16/B374D848"`, "r4": `"[1,5]"`, "r8": `"empty"`, "rn": `"[1.50,2]"`, "rt": `"[2024-01-01,2024-02-01)"`,
	"rz": `"[2024-01-01 00:00+02,)"`, "rd": `"[2024-01-01,2024-01-31]"`, "rs": `"[0.1,0.30000000000000004)"`, "mr": `"{[1,3),[2,9]}"`,
	"dm": `7`, "dt": `["a","b c",null,"NULL"]`, "sp": `{"x":1,"label":"a \"quoted\", text","a b":2.25}`,
	"ai": `[1,null,-3]`, "ai2": `[[1,2],[3,4]]`, "at": `["a","","NULL","x,y","{}","\"q\"","\\"]`, "an": `[0.10,"NaN"]`, "ab": `[true,false]`,
	"au": `["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]`, "az": `["2024-01-01T00:00:00Z",null]`, "aj": `[{"b":1,"a":2},3]`, "ae": `["sad","so so"]`,
	"asp": `[{"x":1,"label":"l"},null]`, "abx": `["(1,1),(0,0)","(3,3),(2,2)"]`, "ar": `["[1,2]"]`, "aby": `["\\x00ff"]`,
}

// odd are values at the edges of their types, each for a row of its own.
var odd = []map[string]string{
	{"f4": `"NaN"`, "f8": `"-Infinity"`, "n": `"NaN"`, "d": `"infinity"`, "ts": `"-infinity"`, "tz": `"infinity"`, "ai": `[]`, "at": `[]`, "tx": `""`, "jb": `null`, "by": `"\\x"`},
	{"f4": `1e-45`, "f8": `5e-324`, "n": `0e-5`, "n52": `-0.001`, "i4": `1e3`, "i8": `"42"`, "tz": `"0044-03-15 12:00:00 BC +00"`, "d": `"0001-01-01"`, "iv": `"-1 mons +2 days -00:00:00.000001"`},
	{"f8": `-0`, "n": `1e30`, "ts": `"294276-12-31 23:59:59.999999"`, "tz": `"2016-12-31T23:59:60Z"`, "jb": `"text"`, "j": `[]`, "ch": `"ab   "`, "vc": `"ab      "`},
	{"tx": `"` + strings.Repeat("1 MB é ", 1<<17) + `"`, "jb": deep("{\"a\":[", 15, "1", "]}"), "j": deep("[", 31, "1", "]"),
		"n": strings.Repeat("9", 131072) + "." + strings.Repeat("1", 16383)},
	{}, // all null
}

func deep(open string, levels int, inner, end string) string {
	return strings.Repeat(open, levels) + inner + strings.Repeat(end, levels)
}

func object(id int, fields map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"id":%d`, id)
	for name, value := range fields {
		if value != "" {
			fmt.Fprintf(&b, `,%q:%s`, name, value)
		}
	}
	return b.String() + "}"
}

// TestReadYourWrites: a GET before the flush equals the GET after it, byte for
// byte, and both are what to_jsonb(row) prints.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	s := setup(t, everyType)
	rows := append([]map[string]string{everyRow}, odd...)
	before, posted := make([]*answer, len(rows)), make([]*answer, len(rows))
	for i, r := range rows {
		posted[i] = s.post("every", object(i+1, r), "Prefer", "return=representation")
		before[i] = s.get(s.path("every", fmt.Sprint(i+1)))
		require.Equal(t, 200, before[i].status, string(before[i].body))
		require.Equal(t, "pending", before[i].header.Get("Headpond-Durability"))
		require.Equal(t, "headpond; hit; detail=pending", before[i].header.Get("Cache-Status"))
		require.Equal(t, posted[i].header.Get("ETag"), before[i].header.Get("ETag"))
		require.Equal(t, strings.TrimSpace(string(before[i].body)), string(posted[i].accept(t, 202).Row), "the representation is the row as GET has it")
	}
	s.startFlusher()
	s.flushed()
	require.Equal(t, len(rows), s.count("every"), s.text(`select coalesce(string_agg(message, '; '), '') from headpond.dead_letters`))
	for i := range rows {
		id := fmt.Sprint(i + 1)
		loaded := s.get(s.path("every", id))
		require.Equal(t, "headpond; fwd=miss; stored", loaded.header.Get("Cache-Status"))
		kept := s.get(s.path("every", id))
		require.Regexp(t, `^headpond; hit; ttl=\d+$`, kept.header.Get("Cache-Status"))
		for _, after := range []*answer{loaded, kept} {
			require.Equal(t, 200, after.status)
			require.Equal(t, "committed", after.header.Get("Headpond-Durability"))
			require.Equal(t, string(before[i].body), string(after.body))
			require.Equal(t, before[i].header.Get("ETag"), after.header.Get("ETag"))
		}
		got := loaded.fields(t)
		for name, value := range got {
			var want string
			require.NoError(t, s.pool.QueryRow(t.Context(), `select (to_jsonb(e)->$1)::text from every e where id = $2`, name, i+1).Scan(&want))
			if name == "j" { // json keeps its text; to_jsonb does not
				require.JSONEq(t, want, string(value))
				continue
			}
			require.Equal(t, want, string(value), "row %s column %s", id, name)
		}
		require.Len(t, got, len(everyRow)+3) // and id and two generated ones
	}
}

// TestReadHeaders: validators, selections and the client's own cache rules.
func TestReadHeaders(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v text, w int, "a,b" int); insert into t values (100, 'old', 1)`)
	tag := s.post("t", `{"id":1,"v":"x","w":2}`).header.Get("ETag")
	path := s.path("t", "1")
	check := func() {
		t.Helper()
		for _, match := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
			a := s.get(path, "If-None-Match", match)
			require.Equal(t, http.StatusNotModified, a.status, match)
			require.Empty(t, a.body)
			require.Equal(t, tag, a.header.Get("ETag"))
		}
		require.Equal(t, 200, s.get(path, "If-None-Match", `"other"`).status)
		full := s.get(path)
		head := s.do(http.MethodHead, path, "")
		require.Equal(t, 200, head.status)
		require.Empty(t, head.body)
		for _, name := range []string{"Content-Length", "Content-Type", "ETag", "Headpond-Durability"} {
			require.Equal(t, full.header.Get(name), head.header.Get(name), name)
		}
		require.Equal(t, `{"w":2,"id":1}`, strings.TrimSpace(string(s.get(path+"?select=w,id").body)))
		require.Equal(t, `{"v":"x"}`, strings.TrimSpace(string(s.get(path+"?select=v,v").body)), "a name twice would be no JSON")
		require.Equal(t, string(full.body), string(s.get(path+"?select=*").body))
		require.Equal(t, tag, s.get(path+"?select=w").header.Get("ETag"))
		require.Equal(t, 200, s.get(path, "Cache-Control", "only-if-cached").status)
	}
	check()
	a := s.get(s.path("t", "100"), "Cache-Control", "only-if-cached")
	a.problem(t, 504, "not_cached")
	require.Equal(t, "headpond; fwd=miss", a.header.Get("Cache-Status"))
	require.Zero(t, s.edge.loads.Load())
	a = s.get(s.path("t", "2"))
	a.problem(t, 404, "row_not_found")
	require.Equal(t, "headpond; fwd=miss", a.header.Get("Cache-Status"))
	require.Equal(t, 404, s.do(http.MethodHead, s.path("t", "2"), "").status)
	s.startFlusher()
	s.flushed()
	require.Equal(t, 200, s.get(path).status) // loads it
	check()
}

// TestMissesDieOnWrite: a 404 says nothing about the moment after a write.
func TestMissesDieOnWrite(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key)`)
	for i := range 20 {
		path := s.path("t", fmt.Sprint(i))
		s.get(path).problem(t, 404, "row_not_found")
		s.post("t", row(`{"id":%d}`, i))
		require.Equal(t, 200, s.get(path).status)
	}
}

// TestKeysInPaths: the Location of a write leads to the row, whatever its key
// is made of, before the flush and after it.
func TestKeysInPaths(t *testing.T) {
	t.Parallel()
	s := setup(t, `
		create table words (k text primary key);
		create table receipts (k text primary key);
		create table pairs (a text, n numeric(6,2), primary key (n, a));
		create table chars (k char(5) primary key);
		create table times (k timestamptz primary key);
		create table nets (k cidr primary key);
		create table flags (k boolean primary key);
		create table bytes (k bytea primary key);
		create table "odd Name/%" (k int primary key)`)
	type sent struct{ tbl, body string }
	var all []sent
	for _, k := range []string{
		"plain", "a b", "a,b", "a%b", "%2C", "a/b", "a?b#c", "ключ", "鍵", "😀", "a+b", "a&b=c", `a"b`, `a\b`, "%", ",", "//", "_schema", "receipts", "'; drop", "é", "e\u0301", " ", "a;b", "~", "0", "null", "...", "|<>^`{}",
	} {
		text, err := json.Marshal(k)
		require.NoError(t, err)
		all = append(all, sent{"words", `{"k":` + string(text) + `}`}, sent{"pairs", `{"n":1.5,"a":` + string(text) + `}`})
	}
	all = append(all, sent{"chars", `{"k":"ab"}`}, sent{"times", `{"k":"2024-01-01T00:00:00+05:30"}`}, sent{"nets", `{"k":"10.0.0.0/8"}`},
		sent{"flags", `{"k":true}`}, sent{"bytes", `{"k":"\\x00ff2c"}`}, sent{"receipts", `{"k":"x"}`}, sent{url.PathEscape("odd Name/%"), `{"k":7}`})
	tags := make(map[string]string)
	for _, x := range all {
		a := s.post(x.tbl, x.body, "Prefer", "return=representation")
		got := s.get(a.location(t))
		require.Equal(t, 200, got.status, "%s %s: %s", x.tbl, x.body, a.location(t))
		require.Equal(t, string(a.accept(t, 202).Row), strings.TrimSpace(string(got.body)))
		tags[a.location(t)] = got.header.Get("ETag")
		s.do("POST", s.path(x.tbl), x.body).problem(t, 409, "row_exists")
	}
	require.Len(t, tags, len(all), "no two keys have one path")
	require.Equal(t, 200, s.get(s.path("pairs", "1.50,a%2Cb")).status, "equal is what Postgres says is equal")
	require.Equal(t, 200, s.get(s.path("chars", "ab%20%20")).status)
	require.Equal(t, 200, s.get(s.path("times", "2023-12-31T18:30:00Z")).status)
	s.startFlusher()
	s.flushed()
	require.Zero(t, s.count("headpond.dead_letters"))
	for location, tag := range tags {
		a := s.get(location)
		require.Equal(t, 200, a.status, location)
		require.Equal(t, tag, a.header.Get("ETag"))
	}
}

// TestEmptyPartOfAKey: the empty text is a value, and not NULL.
func TestEmptyPartOfAKey(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table pairs (a text, n int, primary key (n, a))`)
	location := s.post("pairs", `{"n":2,"a":""}`).location(t)
	require.Equal(t, 200, s.get(location).status)
	s.startFlusher()
	s.flushed()
	require.Equal(t, 200, s.get(location).status)
}

// TestTableNamedLikeAWord: a table called receipts is reached by its Location
// and by its link, though the path means something else.
func TestTableNamedLikeAWord(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key)`, options{redis: uptest.Redis(t).URL()}) // its name is not its own
	s.rename("t", "receipts")
	a := s.do("POST", "/v1/receipts", `{"id":1}`)
	require.Equal(t, 202, a.status, string(a.body))
	require.Equal(t, 200, s.get(a.location(t)).status, a.location(t))
	var list struct {
		Tables []struct{ Table, Schema string }
	}
	s.get("/v1").into(t, &list)
	require.Equal(t, "receipts", list.Tables[0].Table)
	require.Equal(t, 200, s.get(list.Tables[0].Schema).status)
}

// TestColumnsChange: rows of the log are read through the catalog of the day.
func TestColumnsChange(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, old int, keep int)`)
	s.post("t", `{"id":1,"old":1,"keep":2}`)
	s.exec(`alter table t drop column old, add column fresh text default 'f', add column twice int generated always as (keep * 2) stored`)
	s.refresh()
	require.JSONEq(t, `{"id":1,"keep":2,"fresh":"f","twice":4}`, string(s.get(s.path("t", "1")).body))
	s.post("t", `{"id":2,"keep":3}`)
	require.JSONEq(t, `{"id":2,"keep":3,"fresh":"f","twice":6}`, string(s.get(s.path("t", "2")).body))
	s.do("POST", s.path("t"), `{"id":3,"old":1}`).problem(t, 422, "unknown_column")
}

// TestTables: the lists tell what is there, and why not.
func TestTables(t *testing.T) {
	t.Parallel()
	s := setup(t, `create type mood as enum ('sad', 'ok'); create view looks as select 1 as x;
		create table t (b text default 'x', id bigint generated always as identity, e mood not null, g int generated always as (1) stored, primary key (e, id))`)
	var list struct {
		Tables []struct {
			Table, Reason, Strategy, Schema string
			Usable                          bool
		}
	}
	s.get("/v1").into(t, &list)
	require.Len(t, list.Tables, 2)
	require.Equal(t, s.schema+".looks", list.Tables[0].Table)
	require.False(t, list.Tables[0].Usable)
	require.Contains(t, list.Tables[0].Reason, "view")
	require.True(t, list.Tables[1].Usable)
	var schema struct {
		Table, Strategy, TTL string
		Partitions           int
		Key                  []string
		Columns              []struct {
			Name, Type, Default string
			Nullable            bool
			ReadOnly            bool `json:"read_only"`
			Labels              []string
		}
	}
	s.get(list.Tables[1].Schema).into(t, &schema)
	require.Equal(t, []string{"e", "id"}, schema.Key)
	require.Equal(t, 4, schema.Partitions)
	require.Len(t, schema.Columns, 4)
	require.Equal(t, "b", schema.Columns[0].Name)
	require.Contains(t, schema.Columns[0].Default, "'x'")
	require.True(t, schema.Columns[1].ReadOnly)
	require.Equal(t, []string{"sad", "ok"}, schema.Columns[2].Labels)
	require.False(t, schema.Columns[2].Nullable)
	require.True(t, schema.Columns[3].ReadOnly)
	require.Equal(t, time.Minute.String(), schema.TTL)
}
