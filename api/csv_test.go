package api_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
)

var csv = []string{"Content-Type", "text/csv"}

// csvStrict is csv with Prefer: handling=strict.
var csvStrict = append([]string{"Prefer", "handling=strict"}, csv...)

// TestCSV: what stands between commas, and what becomes of it.
func TestCSV(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v text default 'none', n numeric, at timestamptz)`)
	for _, c := range []struct{ name, body, want string }{
		{"bare", "id,v,n,at\n1,a b,1.50,2026-01-02T03:04:05+01:00\n", `{"id":1,"v":"a b","n":1.50,"at":"2026-01-02T02:04:05+00:00"}`},
		{"left out", "id,v,n,at\n2,,,\n", `{"id":2,"v":"none","n":null,"at":null}`},
		{"empty string", "id,v\n3,\"\"\n", `{"id":3,"v":"","n":null,"at":null}`},
		{"NULL", "id,v\n4,NULL\n", `{"id":4,"v":null,"n":null,"at":null}`},
		{"a text NULL", "id,v\n5,\"NULL\"\n", `{"id":5,"v":"NULL","n":null,"at":null}`},
		{"not quite NULL", "id,v\n6, NULL\n", `{"id":6,"v":" NULL","n":null,"at":null}`},
		{"null", "id,v\n7,null\n", `{"id":7,"v":"null","n":null,"at":null}`},
		{"backslash N", "id,v\n8,\\N\n", `{"id":8,"v":"\\N","n":null,"at":null}`},
		{"quoted", "id,v\n\"9\",\"a,b\r\n\"\"c\"\"\"\n", `{"id":9,"v":"a,b\r\n\"c\"","n":null,"at":null}`},
		{"spaces are kept", "id,v\n10,  x  \n", `{"id":10,"v":"  x  ","n":null,"at":null}`},
		{"CRLF", "v,id\r\nx,11\r\n", `{"id":11,"v":"x","n":null,"at":null}`},
		{"no end of line", "v,id\nx,12", `{"id":12,"v":"x","n":null,"at":null}`},
		{"empty at the end", "id,v\n13,", `{"id":13,"v":"none","n":null,"at":null}`},
		{"quoted at the end", "id,v\n14,\"x\"", `{"id":14,"v":"x","n":null,"at":null}`},
		{"empty lines", "\n\r\nid,v\n\n15,x\n\r\n\n", `{"id":15,"v":"x","n":null,"at":null}`},
		{"BOM", "\xef\xbb\xbfid,v\n16,x\n", `{"id":16,"v":"x","n":null,"at":null}`},
		{"quoted header", "\"id\",\"v\"\n17,x\n", `{"id":17,"v":"x","n":null,"at":null}`},
		{"beyond ASCII", "id,v\n18,é😀\n", `{"id":18,"v":"é😀","n":null,"at":null}`},
		{"an exact number", "id,n\n19,0.10000000000000000001\n", `{"id":19,"v":"none","n":0.10000000000000000001,"at":null}`},
		{"a number in quotes", "id,n\n20,\"1e2\"\n", `{"id":20,"v":"none","n":100,"at":null}`},
		{"control characters", "id,v\n21,a\tb\x01\n", `{"id":21,"v":"a\tb\u0001","n":null,"at":null}`},
		{"a quoted empty line", "id,v\n22,\"\n\n\"\n", `{"id":22,"v":"\n\n","n":null,"at":null}`},
	} {
		out := s.do("POST", s.path("t"), c.body, append([]string{"Prefer", "return=representation"}, csv...)...).accept(t, 202)
		require.Equal(t, 1, out.Accepted, c.name)
		require.Equal(t, c.want, string(out.Rows[0]), c.name)
	}
	// One column: an empty line is none, a quoted empty field is a row.
	s.exec(`create table names (name text)`)
	s.refresh()
	require.Equal(t, 2, s.post("names", "name\n\nx\n\n\"\"\n", csv...).accept(t, 202).Accepted)
	s.post("names", "name\ny\n", "Content-Type", "Text/CSV; charset=UTF-8; header=present")
	s.startFlusher()
	s.flushed()
	require.Equal(t, 22, s.count("t"))
	require.Equal(t, "x,y", s.text(`select string_agg(name, ',' order by name) from names where name <> ''`))
	require.Equal(t, "a,b\r\n\"c\"", s.text(`select v from t where id = 9`))
}

// TestCSVEqualsJSON: a field means what the JSON value means, for every kind of
// type.
func TestCSVEqualsJSON(t *testing.T) {
	t.Parallel()
	s := setup(t, badTables)
	id := 0
	for _, c := range [][3]string{
		{"i2", `-32768`, `-32768`}, {"i4", `+7`, `7`}, {"i8", `9223372036854775807`, `9223372036854775807`},
		{"f4", `1.1`, `1.1`}, {"f8", `-0`, `-0.0`}, {"f8", `NaN`, `"NaN"`}, {"n", `1.005`, `1.005`}, {"n52", `1.005`, `1.005`}, {"n", `Infinity`, `"Infinity"`},
		{"b", `true`, `true`}, {"b", `f`, `false`}, {"tx", `5`, `"5"`}, {"tx", `true`, `"true"`}, {"vc", `äöü`, `"äöü"`}, {"ch", `a`, `"a"`},
		{"u", `6F9619FF8B86D011B42D00CF4FC964FF`, `"6f9619ff-8b86-d011-b42d-00cf4fc964ff"`}, {"d", `2026-02-28`, `"2026-02-28"`}, {"d", `Jan 5 2026`, `"Jan 5 2026"`},
		{"ts", `2026-01-02 03:04:05.5`, `"2026-01-02T03:04:05.5"`}, {"tz", `2026-01-02T03:04:05+01`, `"2026-01-02T03:04:05+01:00"`}, {"tm", `03:04`, `"03:04"`},
		{"iv", `1 day`, `"1 day"`}, {"by", `\x00ff`, `"\\x00ff"`}, {"ip", `10.0.0.1`, `"10.0.0.1"`}, {"en", `sad`, `"sad"`},
		{"j", `"{""b"": 1,  ""a"":[1]}"`, `{"b": 1,  "a":[1]}`}, {"jb", `"{""b"": 1,  ""a"":[1]}"`, `{"b":1,"a":[1]}`}, {"jb", `5.0`, `5.0`}, {"jb", `"""x"""`, `"x"`},
		{"ia", `"{1,NULL,3}"`, `[1,null,3]`}, {"ta", `"{a,""b,c"",NULL}"`, `["a","b,c",null]`}, {"ta", `{}`, `[]`}, {"r", `"[1,5)"`, `"[1,5)"`},
		{"dm", `5`, `5`}, {"co", `abc`, `"abc"`}, {"sp", `"(1,""a,b"")"`, `{"x":1,"label":"a,b"}`},
	} {
		one := func(body string, headers ...string) string {
			t.Helper()
			out := s.post("bad", body, append([]string{"Prefer", "return=representation"}, headers...)...).accept(t, 202)
			require.Len(t, out.Rows, 1, "%s %s: %v", c[0], c[1], out.Errors)
			return string((&answer{body: out.Rows[0]}).fields(t)[c[0]])
		}
		id += 2
		fromJSON := one(row(`[{"id":%d,"must":"m","%s":%s}]`, id, c[0], c[2]))
		require.NotEqual(t, "null", fromJSON)
		require.Equal(t, fromJSON, one(row("id,must,%s\n%d,m,%s\n", c[0], id+1, c[1]), csv...), "%s %s", c[0], c[1])
	}
	s.startFlusher()
	s.flushed()
	require.Equal(t, id, s.count("bad"))
	require.Zero(t, s.count(`bad x join bad y on y.id = x.id + 1 where x.id % 2 = 0 and to_jsonb(x) - 'id' <> to_jsonb(y) - 'id'`))
}

// TestCSVBadRows: a row is bad by itself, and told by its index, unless strict.
func TestCSVBadRows(t *testing.T) {
	t.Parallel()
	s := setup(t, badTables)
	body := strings.Join([]string{
		"must,i4,id,tx,jb,dm,ip,b",
		`m,1,100,"two`, `lines",1,1,10.0.0.1,t`,
		"m,x,101,,,,,", "m,1.5,102,,,,,", "m,,103,,,,", "m,,104,,,,,,", "NULL,,105,,,,,", ",,106,,,,,", "m,,107,a\xff,,,,", "m,,108,a\x00,,,,", "m,,109,,{,,,",
		"m,,110,,,-1,,", "m,,111,,,,10.0.0.300,", "m,,112,,,,,yes", "m,,x,,,,,maybe", "m,,114,,,abc,,", "m,,115,," + strings.Repeat("[", 40) + strings.Repeat("]", 40) + ",,,",
		`m,"",116,,,,,`, "m,,117,,,,,",
	}, "\n")
	want := []string{
		"1 /1/i4 type_mismatch", "2 /2/i4 type_mismatch", "3 /3 invalid_csv", "4 /4 invalid_csv", "5 /5/must null_not_allowed", "6 /6/must required",
		"7 /7/tx invalid_utf8", "8 /8/tx nul_not_allowed", "9 /9/jb invalid_json", "10 /10/dm invalid_value", "11 /11/ip invalid_value", "12 /12/b type_mismatch",
		"13 /13/id type_mismatch", "13 /13/b type_mismatch", "14 /14/dm type_mismatch", "15 /15/jb too_deep", "16 /16/i4 type_mismatch",
	}
	listed := func(items []item) (out []string) {
		for _, e := range items {
			out = append(out, row("%d %s %s", *e.Index, e.Pointer, e.Code))
		}
		return out
	}
	p := s.do("POST", s.path("bad"), body, csvStrict...).problem(t, 422, "invalid_rows")
	require.Equal(t, want, listed(p.Errors))
	require.Zero(t, s.accepted("bad"))
	require.Equal(t, "Line 6 has 7 fields, and the header has 8.", p.Errors[2].Detail, "lines in quotes are counted")

	out := s.do("POST", s.path("bad"), body, csv...).accept(t, 207)
	require.Equal(t, want, listed(out.Errors))
	require.Equal(t, 2, out.Accepted)
	require.Equal(t, 16, out.Rejected)
	require.EqualValues(t, 2, s.accepted("bad"))
	s.startFlusher()
	s.flushed()
	require.Equal(t, "100,117", s.text(`select string_agg(id::text, ',' order by id) from bad`))
	require.Equal(t, "two\nlines", s.text(`select tx from bad where id = 100`))

	s.do("POST", s.path("bad"), "id,must\nx,m\ny,m\n", csv...).problem(t, 422, "invalid_rows")
	p = s.do("POST", s.path("bad"), "id,must\n"+strings.Repeat("x,m\n", 3000), csv...).problem(t, 422, "invalid_rows")
	require.Len(t, p.Errors, 1000)
	require.Contains(t, p.Detail, "3000 rows of 3000 rows")
}

// TestCSVRefused: bodies that are refused as such, whatever is asked for.
func TestCSVRefused(t *testing.T) {
	t.Parallel()
	s := setupWith(t, badTables, options{limits: api.Limits{Body: 64 << 10, Rows: 100}})
	for _, c := range []struct {
		name, body string
		status     int
		code, says string
		pointers   []string
	}{
		{"empty", "", 400, "empty_body", "", nil},
		{"blank", "\r\n\n", 400, "empty_batch", "", nil},
		{"header only", "id,must\n\n", 400, "empty_batch", "", nil},
		{"unknown column", "id,mus\n1,m\n", 422, "unknown_column", `Did you mean "must"?`, []string{"/mus"}},
		{"several", "id,nope,twice,\n1,m,2,\n", 422, "unknown_column", `"nope"`, []string{"/nope", "/twice", ""}},
		{"generated column", "id,must,twice\n1,m,\n", 422, "read_only_column", "", []string{"/twice"}},
		{"space in a name", "id, must\n1,m\n", 422, "unknown_column", `" must"`, []string{"/ must"}},
		{"pointer is escaped", "id,x/y~z\n1,m\n", 422, "unknown_column", "", []string{"/x~1y~0z"}},
		{"semicolons", "id;must\n1;m\n", 422, "unknown_column", "", []string{"/id;must"}},
		{"column twice", "id,must,id\n1,m,1\n", 400, "duplicate_field", `"id"`, nil},
		{"more names than columns", strings.Repeat("id,", 5000) + "\n", 400, "duplicate_field", "", nil},
		{"open quote", "id,must\n1,m\n2,\"m\n3,m\n", 400, "invalid_csv", "line 3", nil},
		{"open quote after lines in quotes", "id,must\n1,\"m\n\n\"\n2,\"m\"\"", 400, "invalid_csv", "line 5", nil},
		{"open quote in the header", "id,\"must\n1,m\n", 400, "invalid_csv", "line 1", nil},
		{"one quote", "id,must\n\"", 400, "invalid_csv", "line 2", nil},
		{"text after a quote", "id,must\n1,\"m\"x\n", 400, "invalid_csv", `line 2 a field is followed by 'x'`, nil},
		{"space before a quote", "id,must\n1, \"m\"\n", 400, "invalid_csv", `'"'`, nil},
		{"bare quote", "id,must\n1,5\"\n2,\"6\"\n", 400, "invalid_csv", "line 2", nil},
		{"bare carriage return", "id,must\n1,a\rb\n", 400, "invalid_csv", `'\r'`, nil},
		{"carriage returns alone", "id,must\r1,m\r", 400, "invalid_csv", "line 1", nil},
		{"UTF-16", "\xff\xfei\x00d\x00\n", 400, "invalid_utf8", "header", nil},
		{"NUL in the header", "id,mu\x00st\n", 422, "unknown_column", "", nil},
		{"too many rows", "id,must\n" + strings.Repeat("1,m\n", 101), 413, "batch_too_large", "100", nil},
		{"too many bytes", "id,must\n" + strings.Repeat("1,m\n", 20_000), 413, "body_too_large", "", nil},
	} {
		for _, headers := range [][]string{csv, csvStrict} {
			p := s.do("POST", s.path("bad"), c.body, headers...).problem(t, c.status, c.code)
			require.Contains(t, p.Detail, c.says, c.name)
			require.Equal(t, "no", p.Applied, c.name)
			if c.pointers != nil {
				require.Equal(t, c.pointers, p.pointers(), c.name)
			}
		}
	}
	s.do("POST", s.path("bad"), "1,m\n", "Content-Type", "text/csv; header=absent").problem(t, 415, "unsupported_media_type")
	s.do("POST", s.path("bad"), "id,must\n1,m\n", "Content-Type", "text/csv; charset=latin1").problem(t, 415, "unsupported_media_type")
	require.Zero(t, s.accepted("bad"))
	s.do("POST", s.path("bad"), "id,must\n"+strings.Repeat("1,m\n", 100), csv...).accept(t, 207) // one key: one row
	require.EqualValues(t, 1, s.accepted("bad"))
}
