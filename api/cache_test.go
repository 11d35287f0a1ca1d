package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/buffer"
)

type invalidatedJSON struct {
	Invalidated int  `json:"invalidated"`
	KeptDirty   int  `json:"kept_dirty"`
	Scanned     int  `json:"scanned"`
	Done        bool `json:"done"`
}

func (s *stack) invalidate(path string) (out invalidatedJSON) {
	s.t.Helper()
	a := s.do(http.MethodDelete, "/admin/v1/cache"+path, "")
	require.Equal(s.t, http.StatusOK, a.status, string(a.body))
	require.NoError(s.t, json.Unmarshal(a.body, &out))
	return out
}

const shelfDDL = `
	create table a (id int primary key, v int);
	create table "a.b" (id int primary key, v int);
	create table "a*" (id text primary key, v int);
	create table pair (a int, b text, v int, primary key (a, b));
	insert into a select i, 0 from generate_series(1, 50) i; insert into "a.b" select i, 0 from generate_series(1, 50) i;
	insert into "a*" values ('x', 0), ('x*', 0), ('[x]', 0); insert into pair values (1, 'k,1', 0), (2, 'k', 0);`

// TestInvalidate: what was asked for leaves the cache, and nothing else.
func TestInvalidate(t *testing.T) {
	s := setup(t, shelfDDL)
	foreign := map[string]string{"a:1": "x", "hp:other": "y", "hp:{" + s.schema + ".a.0}:row": "z", "hp:{" + s.schema + ".none.0}:row:1": "C", s.schema + ".a:1": "w"}
	for k, v := range foreign {
		require.NoError(t, s.rdb.Set(t.Context(), k, v, 0).Err())
		t.Cleanup(func() { s.rdb.Del(t.Context(), k) })
	}
	fill := func() {
		for i := 1; i <= 50; i++ {
			s.get(s.path("a", strconv.Itoa(i)))
			s.get(s.path("a.b", strconv.Itoa(i)))
		}
		for _, k := range []string{"x", "x*", "%5Bx%5D"} {
			require.Equal(t, 200, s.get(s.path("a*", k)).status)
		}
		s.get(s.path("pair", "1,k%2C1"))
		s.get(s.path("pair", "2,k"))
	}
	name := "/" + s.schema + "."
	glob := func(p string) string { return "?pattern=" + strings.ReplaceAll(p, "S", s.schema) }
	for path, want := range map[string]int{
		name + "a/7": 1, name + "a/99": 0, name + "a": 50, name + "pair/1,k%252C1": 0, name + "pair/1,k%2C1": 1,
		glob("S.a:7"): 1, glob("S.a:*"): 50, glob("S.a:%3F"): 9, glob("S.a:1*"): 11, glob("S.a:[12]"): 2,
		glob("S.a.b:*"): 50, glob("S.a*:*"): 103, glob(`S.a%5C*:*`): 3, glob(`S.a%5C*:x*`): 2, glob(`S.a%5C*:%5C[*`): 1, glob(`S.a%5C*:x%5C*`): 1,
		glob("S.pair:1,k%252C1"): 1, glob("S.nothing:*"): 0, glob("nothing:*"): 0, glob("hp:*"): 0, glob("S.a:nothing"): 0, glob("S.[ap]*:*"): 105,
	} {
		fill()
		got := s.invalidate(path)
		require.Equal(t, want, got.Invalidated, path)
		require.Zero(t, got.KeptDirty, path)
	}
	for k, v := range foreign {
		require.Equal(t, v, s.rdb.Get(t.Context(), k).Val(), k)
	}
	fill()
	require.Equal(t, 105, s.invalidate(glob("S.*:*")).Invalidated)
	require.False(t, s.cached("a", "7"))

	for _, bad := range []string{"", "?pattern=", "?pattern=a", "?pattern=:x", "?pattern=a:", `?pattern=a%5C:x`, "?pattern=[:x", "?pattern=%FF:x",
		"?pattern=a:[", "?pattern=a:[a-", "?pattern=a:[a-]", "?pattern=a:x[^", `?pattern=a:[%5C]`, `?pattern=a:%5C`, `?pattern=a:x%5C`, "?pattern=a:%FF"} {
		a := s.do(http.MethodDelete, "/admin/v1/cache"+bad, "")
		require.Equal(t, 400, a.status, bad)
		require.Contains(t, string(a.body), "bad_pattern", bad)
	}
	require.Equal(t, 404, s.do(http.MethodDelete, "/admin/v1/cache/nothing", "").status)
	require.Equal(t, 404, s.do(http.MethodDelete, "/admin/v1/cache/nothing/1", "").status)
	require.Equal(t, 422, s.do(http.MethodDelete, "/admin/v1/cache"+name+"a/x", "").status)
}

// TestPatternTakesKeysAsTheyAre: a key of one column is held to a pattern as answers
// show it, whatever it is under in Redis.
func TestPatternTakesKeysAsTheyAre(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table v (k text primary key, n int); create table pair (a text, b text, primary key (a, b))`)
	s.startFlusher()
	keys := []string{"a,b", "a%b", "a%2Cb", "a/b", "a b", "aäb", "axb"}
	fill := func() {
		for _, key := range keys {
			s.get(s.path("v", url.PathEscape(key)))
		}
		s.get(s.path("pair", "a%2Cb,c"))
	}
	for _, key := range keys {
		s.post("v", fmt.Sprintf(`{"k":%q}`, key))
	}
	s.post("pair", `{"a":"a,b","b":"c"}`)
	s.flushed()
	s.invalidate("?pattern=*:*")
	for pattern, want := range map[string]int{
		"v:a,b": 1, "v:a,b*": 1, "v:a%b": 1, "v:a%2Cb": 1, "v:a%*": 2, "v:a[,%]b": 2, "v:a[+--]b": 1, `v:a\,b`: 1, `v:a\%b`: 1, "v:a/b": 1, "v:a b": 1,
		"v:a?b": 6, "v:a[^x]b": 5, "v:a[ä]b": 1, "v:a*b": 7, "v:b*": 0,
		"pair:a,b,c": 0, "pair:a%2Cb,c": 1, "pair:*,c": 1,
	} {
		fill()
		got := s.invalidate("?pattern=" + url.QueryEscape(s.schema+"."+pattern))
		require.Equal(t, want, got.Invalidated, pattern)
		require.Equal(t, map[bool]int{true: 1, false: len(keys)}[pattern[0] == 'p'], got.Scanned, "%s: all keys of the table, and no others", pattern)
	}
}

// TestInvalidatedCountsByTable: of a pattern over several tables, each counts its own.
func TestInvalidatedCountsByTable(t *testing.T) {
	t.Parallel()
	s := setup(t, shelfDDL)
	for i := 1; i <= 5; i++ {
		s.get(s.path("a", strconv.Itoa(i)))
	}
	s.get(s.path("a.b", "1"))
	s.post("pair", `[{"a":7,"b":"x","v":1},{"a":8,"b":"x","v":1}]`)
	s.invalidate("?pattern=*:*")
	var stats struct{ Tables []api.CacheStats }
	s.get("/admin/v1/cache/stats").into(t, &stats)
	got := make(map[string][2]int64)
	for _, table := range stats.Tables {
		got[strings.TrimPrefix(table.Table, s.schema+".")] = [2]int64{table.Invalidated, table.KeptDirty}
	}
	require.Equal(t, map[string][2]int64{"a": {5, 0}, "a.b": {1, 0}, "a*": {0, 0}, "pair": {0, 2}}, got)
}

// TestGlobsAreRedisGlobs: what is taken for a glob matches what Redis matches.
func TestGlobsAreRedisGlobs(t *testing.T) {
	t.Parallel()
	s := setup(t, "")
	rapid.Check(t, func(r *rapid.T) {
		signs := rapid.StringOfN(rapid.SampledFrom([]rune(`ab*?[]^-\`)), 1, 8, -1)
		glob, text := signs.Draw(r, "glob"), signs.Draw(r, "text")
		takes, ok := api.GlobMatches(glob, text)
		if !ok {
			return
		}
		require.NoError(t, s.rdb.Del(t.Context(), s.schema).Err())
		require.NoError(t, s.rdb.HSet(t.Context(), s.schema, text, "").Err())
		found, _, err := s.rdb.HScan(t.Context(), s.schema, 0, glob, 10).Result()
		require.NoError(t, err)
		require.Equal(t, len(found) > 0, takes, "%s %s", glob, text)
	})
	s.rdb.Del(t.Context(), s.schema)
}

// TestLongPathActsOnNothing: a slash that is not escaped is no part of a key, and
// nothing is done to the key before it.
func TestLongPathActsOnNothing(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table v (k text primary key, n int); insert into v values ('a', 1), ('a/b', 2)`)
	cache, tables := "/admin/v1/cache/"+s.schema+".v/", "/admin/v1/tables/"+s.schema+".v/"
	s.row(`{"k":"a","n":1}`, "v", "a")
	receipt := s.post("v", `{"k":"c","n":3}`).header.Get("Headpond-Receipt")
	for path, methods := range map[string]string{
		cache + "a/b": "DELETE PUT POST", cache + "a/": "DELETE PUT", cache + "a//b": "DELETE PUT", cache + "a%2Fb/c": "DELETE PUT",
		tables + "rows/a/b": "GET", tables + "rows/a/": "GET", tables + "pause/x": "POST", tables + "resume/x": "POST", tables + "reload/x": "POST", tables + "accept-gap/x": "POST",
		s.path("v", "a", "b"): "GET PUT PATCH DELETE POST", s.path("v", "_schema", "x"): "GET", s.path("v", "flush", "x"): "POST", s.path("v", "a", "increment", "x"): "POST",
		"/v1/receipts/" + receipt + "/x": "GET PUT", "/admin/v1/writes/" + receipt + "/x": "GET",
		"/admin/v1/dead-letters/1/x": "GET DELETE", "/admin/v1/dead-letters/1/replay/x": "POST",
	} {
		for method := range strings.FieldsSeq(methods) {
			s.do(method, path, `{"n":9}`).problem(t, 404, "not_found")
		}
	}
	require.True(t, s.cached("v", "a"))
	s.row(`{"k":"a","n":1}`, "v", "a")
	s.row(`{"k":"a/b","n":2}`, "v", "a%2Fb")
	require.Equal(t, 1, s.invalidate("/"+s.schema+".v/a%2Fb").Invalidated)
}

// TestInvalidateKeepsDirty: rows that are not committed stay, those that the log
// still has leave it for readers.
func TestInvalidateKeepsDirty(t *testing.T) {
	s := setup(t, shelfDDL)
	s.exec(`truncate a`)
	name := "/" + s.schema + ".a"
	s.post("a", `[{"id":1,"v":1},{"id":2,"v":1}]`)
	for _, path := range []string{name + "/1", name, "?pattern=" + s.schema + ".a:*"} {
		got := s.invalidate(path)
		require.Zero(t, got.Invalidated, path)
		require.Equal(t, map[bool]int{true: 1, false: 2}[strings.HasSuffix(path, "/1")], got.KeptDirty, path)
	}
	s.row(`{"id":1,"v":1}`, "a", "1")
	stop := s.startFlusher()
	s.flushed()
	stop()
	s.post("a", `{"id":3,"v":1}`) // one of the partitions keeps its index
	s.exec(`update a set v = 2`)
	s.invalidate(name)
	for _, id := range []string{"1", "2"} {
		s.row(`{"id":`+id+`,"v":2}`, "a", id)
	}
	s.row(`{"id":3,"v":1}`, "a", "3")
}

// TestInvalidateAgainstFill: a loader that has read the row before it was changed
// and invalidated does not put it back.
func TestInvalidateAgainstFill(t *testing.T) {
	s := setup(t, shelfDDL)
	for _, path := range []string{"/" + s.schema + ".a/1", "/" + s.schema + ".a", "?pattern=" + s.schema + ".a:1"} {
		s.exec(`update a set v = 0`)
		s.invalidate("/" + s.schema + ".a")
		loaded, goOn := make(chan struct{}), make(chan struct{})
		s.edge.afterLoad = firstTime(func() { close(loaded); <-goOn })
		slow := make(chan *answer)
		go func() { slow <- s.get(s.path("a", "1")) }()
		<-loaded
		s.exec(`update a set v = 1 where id = 1`)
		s.invalidate(path)
		close(goOn)
		<-slow
		s.row(`{"id":1,"v":1}`, "a", "1")
	}
}

// TestInvalidateTells its progress, a line at a time.
func TestInvalidateTells(t *testing.T) {
	s := setup(t, shelfDDL)
	s.get(s.path("a", "1"))
	a := s.do(http.MethodDelete, "/admin/v1/cache/"+s.schema+".a", "", "Accept", "application/x-ndjson")
	require.Equal(t, "application/x-ndjson", a.header.Get("Content-Type"))
	lines := strings.Split(strings.TrimSpace(string(a.body)), "\n")
	var last invalidatedJSON
	require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &last))
	require.True(t, last.Done)
	require.Equal(t, 1, last.Invalidated)
}

// TestPutCached: a client that loads rows itself, and the races it can lose.
func TestPutCached(t *testing.T) {
	s := setupWith(t, changeDDL, options{buffer: buffer.Config{LeaseTime: time.Minute}})
	path := "/admin/v1/cache/" + s.schema + ".c/"
	row := `{"id":1,"name":"mine","n":4,"amount":null,"f":null,"double":0}`
	a := s.do(http.MethodPut, path+"1?ttl=90s", row)
	require.Equal(t, 200, a.status, string(a.body))
	require.JSONEq(t, `{"key":"1","ttl_s":90}`, string(a.body))
	s.row(`{"id":1,"name":"mine","n":4,"amount":null,"f":null,"double":8}`, "c", "1") // though Postgres has none
	require.Regexp(t, `^headpond; hit; ttl=(89|90)$`, s.get(s.path("c", "1")).header.Get("Cache-Status"))
	require.Equal(t, 200, s.do(http.MethodPut, path+"1", `{"name":"mine","n":5,"amount":1,"f":null}`).status)

	for _, ttl := range []string{"0", "0s", "-1s", "1e9h", "721h", "soon", "5", ""} {
		a := s.do(http.MethodPut, path+"1?ttl="+ttl, row)
		require.Equal(t, 400, a.status, ttl)
	}
	for body, code := range map[string]int{`{"name":"x"}`: 422, `{"id":2,"name":"x","n":1,"amount":null,"f":null}`: 422, `{"id":1,"name":"x","n":"y","amount":null,"f":null}`: 422, `[]`: 400, `{`: 400, ``: 400} {
		require.Equal(t, code, s.do(http.MethodPut, path+"1", body).status, body)
	}
	s.post("c", `{"id":8}`)
	a = s.do(http.MethodPut, path+"8", strings.Replace(row, `"id":1`, `"id":8`, 1))
	require.Equal(t, 409, a.status, string(a.body))
	require.Contains(t, string(a.body), "row_pending")

	// With a lease: not after a write.
	s.exec(`insert into c (id, n) values (3, 1), (4, 1)`)
	lease := func(key string) string {
		a := s.get(s.path("c", key), "Cache-Control", "only-if-cached", "Headpond-Lease", "wanted")
		require.Equal(t, 504, a.status)
		return a.header.Get("Headpond-Lease")
	}
	require.Empty(t, s.get(s.path("c", "3"), "Cache-Control", "only-if-cached").header.Get("Headpond-Lease"))
	mine, other := lease("3"), lease("4")
	require.NotEmpty(t, mine)
	require.Empty(t, lease("3"), "one at a time")
	s.startFlusher()
	s.do(http.MethodPut, s.path("c", "3"), `{"n":2}`).accept(t, 202)
	s.flushed()
	old := `{"name":"none","n":1,"amount":null,"f":null}`
	require.Equal(t, 412, s.do(http.MethodPut, path+"3", old, "Headpond-Lease", mine).status)
	require.Equal(t, 200, s.do(http.MethodPut, path+"4", old, "Headpond-Lease", other).status)
	s.row(`{"id":3,"name":"none","n":2,"amount":null,"f":null,"double":4}`, "c", "3")
}

// TestPutCachedTellsEachColumnOnce: a column that is wrong is not missing too, nor is a
// key that is in the path.
func TestPutCachedTellsEachColumnOnce(t *testing.T) {
	t.Parallel()
	s := setup(t, changeDDL)
	for body, want := range map[string]string{
		`{"id":1,"must":"x","n":"y"}`: "/n type_mismatch", `{"must":"x","n":"y"}`: "/n type_mismatch", `{"id":1,"must":null,"n":1}`: "/must null_not_allowed",
		`{"n":"y"}`: "/n type_mismatch, /must required", `{"must":"x"}`: "/n required", `{"id":"z","must":"x","n":1}`: "/id type_mismatch",
	} {
		var got []string
		first := strings.Trim(strings.Fields(want)[1], ",")
		for _, e := range s.do(http.MethodPut, "/admin/v1/cache/"+s.schema+".must/1", body).problem(t, 422, first).Errors {
			got = append(got, e.Pointer+" "+e.Code)
		}
		require.Equal(t, want, strings.Join(got, ", "), body)
	}
}

// TestCacheStats: the counts are those of the reads, and effective latency is
// what its formula says.
func TestCacheStats(t *testing.T) {
	s := setupWith(t, shelfDDL, options{served: func(sv *api.Served) { sv.NegativeTTL = time.Minute }})
	read := func() (out struct {
		Total  api.CacheStats
		Tables []api.CacheStats
	}) {
		a := s.get("/admin/v1/cache/stats")
		require.Equal(t, 200, a.status)
		require.NoError(t, json.Unmarshal(a.body, &out))
		return out
	}
	require.Nil(t, read().Total.HitRate)
	var g sync.WaitGroup
	for i := range 40 {
		g.Go(func() { s.get(s.path("a", strconv.Itoa(i%10+1))) })
	}
	g.Wait()
	for range 3 {
		s.get(s.path("a", "77")) // not there
	}
	s.post("pair", `{"a":9,"b":"z","v":1}`)
	s.get(s.path("pair", "9,z"))
	got := read()
	require.EqualValues(t, 44, got.Total.Hits+got.Total.Misses)
	require.EqualValues(t, 2, got.Total.Negative)
	require.EqualValues(t, 1, got.Total.Pending)
	require.GreaterOrEqual(t, got.Total.Misses, int64(11))
	require.EqualValues(t, 11, s.edge.loads.Load())
	rate := float64(got.Total.Hits) / 44
	require.InDelta(t, rate, *got.Total.HitRate, 1e-9)
	require.InDelta(t, rate*got.Total.HitMS+(1-rate)*got.Total.MissMS, *got.Total.Effective, 1e-9)
	require.Positive(t, got.Total.HitMS)
	require.Greater(t, got.Total.MissMS, got.Total.HitMS)
	one := s.get("/admin/v1/cache/stats?table=" + s.schema + ".a")
	require.Contains(t, string(one.body), fmt.Sprintf(`"table":"%s.a"`, s.schema))
	require.NotContains(t, string(one.body), "pair")
	require.Equal(t, 404, s.get("/admin/v1/cache/stats?table=no").status)
}
