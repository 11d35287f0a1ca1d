package api_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
)

// badRow is one row of the bad-input matrix (research/reliability.md, G), under
// its number there. Where it differs from http-api.md, that page decides.
type badRow struct {
	n     int
	what  string
	cases []badCase // requests that are refused whole
	also  string    // tests that show what one request cannot
	open  string    // what is not built yet: see TestNotBuiltYet
}

// badInput is the matrix. To find the row 25: go test ./api -run 'TestBadInput/matrix/25'.
var badInput = []badRow{
	{n: 1, what: "no credentials or bad ones", also: "TestNotBuiltYet", open: "authentication"},
	{n: 2, what: "table or verb not granted", also: "TestNotBuiltYet", open: "authentication"},
	{n: 3, what: "unknown path or table", cases: badNames()},
	{n: 4, what: "wrong method", cases: badMethods(), also: "TestMethodsAreNamed"},
	{n: 5, what: "bad key in the path", cases: badKeys(), also: "TestBrokenRequests TestEmptyPartOfAKey"},
	{n: 6, what: "media type", cases: badMedia(), also: "TestHelpIsGiven"},
	{n: 7, what: "content encoding", cases: badEncodings(), also: "TestBadEncodings"},
	{n: 8, what: "broken encoding", cases: brokenEncodings(), also: "TestBadEncodings"},
	{n: 9, what: "bomb", also: "TestBombs TestEncodedBodyLimit"},
	{n: 10, what: "body over the limit", cases: badSizes(), also: "TestBodyLimit TestEncodedBodyLimit TestDigitsLimit TestExpectContinue"},
	{n: 11, what: "broken framing or huge header", also: "TestBrokenRequests TestRefusedBodyIsNoRequest"},
	{n: 12, what: "slow header or body", also: "TestSlowBody"},
	{n: 13, what: "empty body", cases: badEmpties()},
	{n: 14, what: "not JSON", cases: badSyntax(), also: "TestBadLineAmongGood"},
	{n: 15, what: "top level is no object", cases: badShapes()},
	{n: 16, what: "invalid UTF-8", cases: badUTF8(), also: "TestBadLineAmongGood"},
	{n: 17, what: "duplicate names", cases: badDuplicates(), also: "TestBadLineAmongGood"},
	{n: 18, what: "too deep or too many or too long names", cases: badDepths(), also: "TestManyNames"},
	{n: 19, what: "unknown column", cases: badColumns(), also: "TestBadRowAmongGood"},
	{n: 20, what: "read-only column", cases: badReadOnly(), also: "TestBadRowAmongGood"},
	{n: 21, what: "missing or null", cases: badNulls(), also: "TestBadRowAmongGood"},
	{n: 22, what: "NUL in text or json", cases: badNULs(), also: "TestBadRowAmongGood"},
	{n: 23, what: "lone surrogate", cases: badSurrogates(), also: "TestBadLineAmongGood"},
	{n: 24, what: "wrong JSON type", cases: badTypes(), also: "TestBadRowAmongGood"},
	{n: 25, what: "int out of range", cases: badInts(), also: "TestExact TestBadRowAmongGood"},
	{n: 26, what: "numeric overflow and NaN", cases: badNumerics(), also: "TestExact TestBadRowAmongGood"},
	{n: 27, what: "too long", cases: badLengths(), also: "TestBlanksAreCutAsByPostgres TestBadRowAmongGood"},
	{n: 28, what: "bad date or time", cases: badTimes(), also: "TestExact TestBadRowAmongGood"},
	{n: 29, what: "bad uuid, inet, bytea, enum, array, range, domain", cases: badForms(), also: "TestBadRowAmongGood"},
	{n: 30, what: "what only Postgres can refuse", also: "TestOnlyPostgresKnows TestPreferWait"},
	{n: 31, what: "empty or giant batch", cases: badBatches()},
	{n: 32, what: "some bad rows of many", cases: badAmongMany(), also: "TestStrictAppliesNothing TestBadRowAmongGood TestManyRows"},
	{n: 33, what: "one key twice in a batch", cases: badTwice(), also: "TestOneKeyTwice"},
	{n: 34, what: "bad Idempotency-Key", cases: badIdempotencyKeys()},
	{n: 35, what: "same Idempotency-Key, same payload", also: "TestIdempotencyKey TestIdempotencyKeyOfNothing"},
	{n: 36, what: "same Idempotency-Key, other payload", also: "TestIdempotencyKeyReused"},
	{n: 37, what: "same Idempotency-Key while the first is in flight", also: "TestSameIdempotencyKeyAtOnce"},
	{n: 38, what: "If-Match does not hold", cases: badConditions(), also: "TestChangeOnCondition"},
	{n: 39, what: "change of a missing row", cases: badChanges(), also: "TestPatchAndDeleteAtOnce TestChange"},
	{n: 40, what: "rate limit", also: "TestRateLimit TestRateLimitTrustsNobody"},
	{n: 41, what: "backlog full, Redis refuses or is down", also: "TestBacklogFull TestBacklogResumes TestRedisNearlyFull TestRedisRefuses TestRedisDown TestClassifyOfReplies"},
	{n: 42, what: "Redis does not answer", also: "TestRedisHangs"},
	{n: 43, what: "too few replicas", also: "TestNotBuiltYet TestRedisRefuses", open: "replication as a level of durability"},
	{n: 44, what: "halted table", also: "TestHaltedTable"},
	{n: 45, what: "table that is not usable", cases: badTargets(), also: "TestUnusable"},
	{n: 46, what: "missing row", cases: badMisses(), also: "TestMissesDieOnWrite"},
	{n: 47, what: "uncached row while Postgres is down", also: "TestPostgresDown"},
	{n: 48, what: "changed row whose rest is in Postgres alone", also: "TestChange TestPostgresDown"},
	{n: 49, what: "HEAD, OPTIONS, CORS", also: "TestMethodsAreNamed"},
	{n: 50, what: "cross-site request", also: "TestCrossSite", open: "the dashboard"},
	{n: 51, what: "markup in names and values", cases: badMarkup(), also: "TestDocsPage TestMarkupIsText", open: "the dashboard"},
	{n: 52, what: "client goes away", also: "TestClientGoesAway TestBrokenRequests"},
	{n: 53, what: "handler panics", also: "TestPanics"},
	{n: 54, what: "shutdown", also: "TestDraining TestDrain"},
}

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
	tells    []string // headers of the answer
}

// TestBadInput: each row of the matrix, as far as one request shows it: status,
// code, pointers or byte offset, the form of a problem, and that nothing was
// applied.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := setupWith(t, badTables, options{limits: api.Limits{Body: 64 << 10, Rows: 100}})
	t.Run("matrix", func(t *testing.T) { // returns when all cases have
		for _, row := range badInput {
			t.Run(fmt.Sprintf("%d %s", row.n, row.what), func(t *testing.T) {
				t.Parallel()
				for _, c := range row.cases {
					t.Run(c.name, func(t *testing.T) { s.refuses(t, c) })
				}
			})
		}
	})
	s.startFlusher()
	s.flushed()
	for _, tbl := range []string{"bad", "ident", "lacks", "nulls", "keyless", "byuuid", "bytext", "pair", "guarded", "fleeting", "headpond.dead_letters"} {
		require.Zero(t, s.count(tbl), tbl)
	}
}

// pathOf a case is its table's unless it has one.
func (c *badCase) pathOf(s *stack) string {
	if c.path != "" {
		return strings.ReplaceAll(c.path, "{s}", s.schema)
	}
	return s.path(c.tableOf())
}

func (c *badCase) tableOf() string {
	if c.table == "" {
		return "bad"
	}
	return c.table
}

// offset must be told of what is wrong with a text.
var (
	offset      = regexp.MustCompile(`byte offset \d+`)
	offsetCodes = []string{"invalid_json", "invalid_utf8", "invalid_unicode", "duplicate_field", "too_deep"}
)

func (s *stack) refuses(t *testing.T, c badCase) {
	if c.method == "" {
		c.method = http.MethodPost
	}
	a := s.ask(t, c.method, c.pathOf(s), strings.ReplaceAll(c.body, "{s}", s.schema), c.headers...)
	if c.method == http.MethodHead {
		require.Equal(t, c.status, a.status)
		require.Equal(t, "application/problem+json", a.header.Get("Content-Type"))
		require.Empty(t, a.body)
		return
	}
	p := a.problem(t, c.status, c.code)
	require.Equal(t, "no", p.Applied)
	if c.pointers != nil {
		require.Equal(t, c.pointers, p.pointers(), string(a.body))
	}
	if slices.Contains(offsetCodes, c.code) && !slices.Contains(c.headers, "text/csv") {
		require.Regexp(t, offset, p.Detail)
	}
	for i := 0; i < len(c.tells); i += 2 {
		require.Equal(t, c.tells[i+1], a.header.Get(c.tells[i]), c.tells[i])
	}
	for name := range s.targets {
		tails, err := s.buf.Tails(context.Background(), s.places(name))
		require.NoError(t, err)
		for _, tail := range tails {
			require.Zero(t, tail.Last.Seq, "%s: something was applied", name)
		}
	}
}

// TestBadInputIsWhole: every row of the matrix is shown by something that is
// there.
func TestBadInputIsWhole(t *testing.T) {
	t.Parallel()
	tests := make(map[string]bool)
	files, err := filepath.Glob("../*/*_test.go")
	require.NoError(t, err)
	deeper, err := filepath.Glob("../*/*/*_test.go")
	require.NoError(t, err)
	for _, file := range append(files, deeper...) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(text, -1) {
			tests[string(m[1])] = true
		}
	}
	for i, row := range badInput {
		require.Equal(t, i+1, row.n)
		require.NotEmpty(t, append(strings.Fields(row.also), make([]string, len(row.cases))...), row.what)
		if row.open != "" {
			t.Logf("%d %s: %s: not built yet", row.n, row.what, row.open)
		}
		for _, name := range strings.Fields(row.also) {
			require.True(t, tests[name], "%d: there is no %s", row.n, name)
		}
	}
	require.Len(t, badInput, 54)
}

// good rows of the tables into which rows are inserted.
var good = map[string]string{
	"bad": `{"id":%d,"must":"m"}`, "ident": `{"v":"%d"}`, "lacks": `{"id":%d,"v":"x"}`, "nulls": `{"id":%d,"v":"x"}`, "bytext": `{"id":"%d"}`,
}

// TestBadRowAmongGood: a row that is refused by itself is refused for the same
// reason among others: a strict request is refused whole, of a lenient one the
// other rows are taken. So too as a line of _bulk, and as a PUT or PATCH.
func TestBadRowAmongGood(t *testing.T) {
	t.Parallel()
	s := setupWith(t, badTables, options{limits: api.Limits{Rows: 100}})
	id, taken, tried := 1000, make(map[string]int), 0
	for _, row := range badInput {
		for _, c := range row.cases {
			if c.status != http.StatusUnprocessableEntity || c.method != "" || c.path != "" || c.headers != nil || !strings.HasPrefix(c.body, "{") {
				continue
			}
			tried++
			tbl := c.tableOf()
			next := func() string { id++; return fmt.Sprintf(good[tbl], id) }
			pointers := make([]string, len(c.pointers))
			for i, p := range c.pointers {
				pointers[i] = "/1" + p
			}
			agrees := func(out accept) {
				require.Equal(t, 2, out.Accepted, c.name)
				require.Equal(t, 1, out.Rejected, c.name)
				require.Equal(t, c.code, out.Errors[0].Code, c.name)
				for i := range pointers {
					require.Equal(t, 1, *out.Errors[i].Index)
					require.Equal(t, pointers[i], strings.Replace(out.Errors[i].Pointer, "/1/row", "/1", 1), c.name)
				}
				taken[tbl] += 2
				require.EqualValues(t, taken[tbl], s.accepted(tbl), c.name)
			}
			p := s.do("POST", s.path(tbl), "["+next()+","+c.body+","+next()+"]").problem(t, 422, "invalid_rows")
			require.Equal(t, c.code, p.Errors[0].Code, c.name)
			require.Equal(t, pointers, p.pointers()[:len(pointers)], c.name)
			require.EqualValues(t, taken[tbl], s.accepted(tbl), c.name)
			agrees(s.do("POST", s.path(tbl), next()+"\n"+c.body+"\n"+next(), "Content-Type", "application/x-ndjson").accept(t, 207))
			line := `{"op":"insert","table":"` + s.schema + "." + tbl + `","row":`
			agrees(s.do("POST", "/v1/_bulk", line+next()+"}\n"+line+c.body+"}\n"+line+next()+"}", "Content-Type", "application/x-ndjson").accept(t, 207))
			if strings.HasPrefix(c.body, `{"id":1,"must":"m",`) {
				for _, method := range []string{http.MethodPut, http.MethodPatch} {
					p := s.do(method, s.path(tbl, "1"), c.body).problem(t, 422, c.code)
					require.Equal(t, "no", p.Applied)
					if c.pointers != nil {
						require.Equal(t, c.pointers, p.pointers(), method+" "+c.name)
					}
				}
				require.EqualValues(t, taken[tbl], s.accepted(tbl), c.name)
			}
		}
	}
	require.Greater(t, tried, 200)
	s.startFlusher()
	s.flushed()
	for tbl, n := range taken {
		require.Equal(t, n, s.count(tbl))
	}
	require.Zero(t, s.count("headpond.dead_letters"))
}

// TestBadLineAmongGood: what is no JSON stays in its line, and the lines around
// it are taken.
func TestBadLineAmongGood(t *testing.T) {
	t.Parallel()
	s := setup(t, badTables)
	id, tried := 1000, 0
	for _, row := range badInput {
		for _, c := range row.cases {
			if c.status != http.StatusBadRequest || c.path != "" || c.headers != nil || !strings.HasPrefix(c.body, "{") || strings.Contains(c.body, "\n") {
				continue
			}
			tried++
			id += 2
			body := fmt.Sprintf(good["bad"]+"\n%s\n"+good["bad"], id, c.body, id+1)
			out := s.do("POST", s.path("bad"), body, "Content-Type", "application/x-ndjson").accept(t, 207)
			require.Equal(t, 2, out.Accepted, c.name)
			require.Equal(t, []string{"/1 " + c.code}, []string{out.Errors[0].Pointer + " " + out.Errors[0].Code}, c.name)
			require.Len(t, out.Errors, 1, c.name)
			if slices.Contains(offsetCodes, c.code) {
				require.Regexp(t, offset, out.Errors[0].Detail)
			}
			require.EqualValues(t, 2*tried, s.accepted("bad"), c.name)
			s.do("POST", s.path("bad"), body, "Content-Type", "application/x-ndjson", "Prefer", "handling=strict").problem(t, 422, "invalid_rows")
			require.EqualValues(t, 2*tried, s.accepted("bad"), c.name)
		}
	}
	require.Greater(t, tried, 30)
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

// TestBlanksAreCutAsByPostgres: the one thing that is cut, because an INSERT
// cuts it too (PostgreSQL documentation, "Character Types"). What is read is
// what is stored.
func TestBlanksAreCutAsByPostgres(t *testing.T) {
	t.Parallel()
	const columns = `(id int primary key, vc varchar(3), ch char(3), tx text, co code)`
	s := setup(t, `create domain code as varchar(3); create table t `+columns+`; create table plain `+columns)
	for i, text := range []string{"ab     ", "abc ", "    ", "a", "ä ß   "} {
		s.exec(`insert into plain values ($1, $2, $3, $4, $5)`, i, text, text, text, text)
		want := s.text(`select to_jsonb(plain)::text from plain where id = $1`, i)
		s.post("t", row(`{"id":%d,"vc":%[2]q,"ch":%[2]q,"tx":%[2]q,"co":%[2]q}`, i, text))
		s.row(want, "t", fmt.Sprint(i))
	}
	s.do("POST", s.path("t"), `{"id":9,"vc":"ab  c"}`).problem(t, 422, "too_long")
	s.startFlusher()
	s.flushed()
	require.Zero(t, s.count("(table t except table plain) x"))
	require.Equal(t, 5, s.count("t"))
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
