package main_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// compared is what `headpond verify --output json` prints.
type compared struct {
	Same        bool
	Partitions  int64
	LogRows     int64 `json:"log_rows"`
	IndexRows   int64 `json:"index_entries"`
	CachedRows  int64 `json:"cached_rows"`
	WaitingKeys int64 `json:"waiting_keys"`
	Counts      map[string]int64
	Found       []struct{ What, Severity, Table, Key, Text, Redis, Postgres string }
}

func compare(t *testing.T, program string, code int, env []string, args ...string) *compared {
	t.Helper()
	got := command(t, program, env, append([]string{"verify", "--output", "json"}, args...)...)
	require.Equal(t, code, got.code, "%s%s", got.out, got.err)
	var c compared
	require.NoError(t, json.Unmarshal([]byte(got.out), &c), got.out)
	require.Equal(t, code == 0, c.Same)
	return &c
}

func redisOf(t *testing.T, url string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(url)
	require.NoError(t, err)
	c := redis.NewClient(options)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestVerifyUnderLoad: on a sound system that is written and read all the time
// nothing differs, however often one looks.
func TestVerifyUnderLoad(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	_, seed := seeded(t)
	s := startServers(t, program)
	execute(t, s.postgres.URL(), `
		create table busy (id int primary key, body text not null default '', n numeric(12,2) not null default 0, twice numeric generated always as (n * 2) stored);
		create table direct (id int primary key, body text not null default '', n numeric(12,2) not null default 0);
		create table pair (a text, b char(4), body text not null default '', n int not null default 0, primary key (b, a))`)
	cfg := writeConfig(t, "tables: { direct: { strategy: write-through } }\ntables_default: { partitions: 2, retain_bytes: 64kB }")
	h := s.serve(t, "--config", cfg)
	h.serves(t, "busy", "direct", "pair")
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(w)))
			for {
				select {
				case <-stop:
					return
				default:
					busily(h, r)
				}
			}
		})
	}
	var seen compared
	for range 4 {
		c := compare(t, program, 0, s.env(), "--config", cfg)
		seen.LogRows += c.LogRows
		seen.CachedRows += c.CachedRows
		seen.IndexRows += c.IndexRows
		seen.WaitingKeys += c.WaitingKeys
	}
	close(stop)
	writers.Wait()
	require.Greater(t, seen.LogRows, int64(100), "too little was looked at for the test to mean anything: %+v", seen)
	require.Greater(t, seen.CachedRows, int64(20), "%+v", seen)
	h.settled(t)
	require.Zero(t, compare(t, program, 0, s.env(), "--config", cfg).WaitingKeys)
}

// busily does one thing to one row. What is answered does not matter.
func busily(h *headpond, r *rand.Rand) {
	id := r.IntN(60)
	path := fmt.Sprintf("/v1/%s/%d", []string{"busy", "direct"}[r.IntN(2)], id)
	if r.IntN(3) == 0 {
		path = fmt.Sprintf("/v1/pair/k%d,a%%2Cb%%25%d", id%7, id)
	}
	do := func(method, path, body string) { _, _ = request(method, h.api+path, typeJSON, body) }
	switch n := r.IntN(10); {
	case n < 2:
		do(http.MethodPut, path, fmt.Sprintf(`{"body":"%d","n":%d}`, r.Int(), r.IntN(1000)))
	case n < 4:
		do(http.MethodPatch, path, fmt.Sprintf(`{"body":"a\tb%d"}`, r.Int()))
	case n < 6:
		do(http.MethodPost, path+"/increment", `{"n":3}`)
	case n < 7:
		do(http.MethodDelete, path, "")
	default:
		do(http.MethodGet, path, "")
	}
}

// TestVerifyNamesDamage: whatever is damaged, in Redis or in Postgres, is named.
// Each damage is done to a table of its own, and nothing else is named there.
func TestVerifyNamesDamage(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := startServers(t, program)
	rdb := redisOf(t, s.redis.URL())
	names := make([]string, 0, len(damages))
	for name := range damages {
		names = append(names, name)
		execute(t, s.postgres.URL(), "create table "+name+" (id int primary key, body text not null default '', n int not null default 0)")
	}
	cfg := writeConfig(t, "tables_default: { partitions: 1, negative_ttl: 1h, ttl: 1h }")
	h := s.serve(t, "--role", "api", "--config", cfg)
	h.serves(t, names...)
	f := start(t, program, s.env(), "serve", "--role", "flusher", "--config", cfg)
	each := func(do func(name string)) {
		var all sync.WaitGroup
		for _, name := range names {
			all.Go(func() { do(name) })
		}
		all.Wait()
	}
	send := func(method, path, body string, code int) {
		a, err := request(method, h.api+"/v1/"+path, typeJSON, body)
		if err != nil || a.code != code {
			t.Errorf("%s %s: %d %s %v", method, path, a.code, a.body, err)
		}
	}
	each(func(name string) {
		for id := range 12 {
			send(http.MethodPut, fmt.Sprintf("%s/%d", name, id), fmt.Sprintf(`{"body":"body%d"}`, id), 202)
		}
	})
	h.settled(t)
	f.terminate()
	require.Zero(t, f.wait(), f.log.String())
	each(func(name string) {
		for id := range 6 {
			send(http.MethodGet, fmt.Sprintf("%s/%d", name, id), "", 200)
		}
		send(http.MethodGet, name+"/100", "", 404)
		for id := 30; id < 36; id++ {
			send(http.MethodPut, fmt.Sprintf("%s/%d", name, id), `{"body":"waits"}`, 202)
		}
		send(http.MethodPatch, name+"/10", `{"body":"patched"}`, 202)
		send(http.MethodPost, name+"/11/increment", `{"n":2}`, 202)
		send(http.MethodDelete, name+"/9", "", 202)
	})
	tables := int64(len(names))
	sound := compare(t, program, 0, s.env(), "--config", cfg)
	require.Equal(t, tables, sound.Partitions)
	require.Equal(t, 9*tables, sound.WaitingKeys)
	require.Equal(t, 7*tables, sound.CachedRows)
	require.Equal(t, 9*tables, sound.IndexRows)
	require.GreaterOrEqual(t, sound.LogRows, 9*tables)

	h.terminate() // it would mend some of what comes now
	h.wait()
	for name, d := range damages {
		d.do(&damaged{t: t, rdb: rdb, name: name, database: s.postgres.URL()})
	}
	bad := compare(t, program, 1, s.env(), "--config", cfg)
	found := make(map[string][]string)
	for _, x := range bad.Found {
		require.NotEmpty(t, x.Text)
		word := x.What
		if x.Key != "" {
			word += " " + x.Key
		}
		found[x.Table] = append(found[x.Table], word)
	}
	for name, d := range damages {
		require.ElementsMatch(t, d.named, found[name], "%s: %+v", name, bad.Found)
	}
	require.Equal(t, []string{"stray"}, found["not_there"])
	for _, x := range bad.Found {
		if x.Table == "d_clean" {
			require.Equal(t, []string{`body="other"`, `body="body1"`}, []string{x.Redis, x.Postgres})
		}
	}
	compare(t, program, 0, s.env(), "--config", cfg, "--table", "d_stray")
	text := command(t, program, s.env(), "verify", "--config", cfg, "--table", "d_index_gone")
	require.Equal(t, 1, text.code)
	require.Contains(t, text.out, `index: d_index_gone partition 0 key "32": the log has the row`)
	require.Equal(t, 2, command(t, program, s.env(), "verify", "--table", "nowhere").code)
	require.Equal(t, 2, command(t, program, cleanEnvironment("DATABASE_URL="+s.postgres.URL(), "REDIS_URL=redis://127.0.0.1:1"), "verify").code)
}

// TestVerifyAfterRedisRestarted: a restart begins an epoch and keeps the cache, so
// clean rows carry an older one than the rows of the log. They are compared.
func TestVerifyAfterRedisRestarted(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := startServers(t, program)
	execute(t, s.postgres.URL(), "create table page_views (path text primary key, views int); insert into page_views values ('home', 1), ('about', 1)")
	h := s.serve(t)
	h.serves(t, "page_views")
	require.Equal(t, http.StatusOK, h.get(t, "/v1/page_views/about").code)
	require.NoError(t, s.redis.Kill())
	require.NoError(t, s.redis.Restart(t.Context()))
	await(t, "a row of after the restart", func() bool { return h.get(t, "/v1/page_views/home").code == http.StatusOK })
	await(t, "hits", func() bool {
		return strings.Contains(h.get(t, "/v1/page_views/home").header.Get("Cache-Status"), "hit") &&
			strings.Contains(h.get(t, "/v1/page_views/about").header.Get("Cache-Status"), "hit")
	})
	require.NotZero(t, value[int64](t, s.postgres.URL(), "select count(*) from headpond.epochs where table_name = 'page_views' and epoch > 1"))
	require.EqualValues(t, 2, compare(t, program, 0, s.env()).CachedRows)

	execute(t, s.postgres.URL(), "update page_views set views = 777")
	bad := compare(t, program, 1, s.env())
	require.EqualValues(t, 2, bad.Counts["clean row"], "%+v", bad.Found)
}

// damaged is a table to be damaged.
type damaged struct {
	t        *testing.T
	rdb      *redis.Client
	name     string
	database string
}

func (d *damaged) key(rest string) string { return "hp:{" + d.name + ".0}:" + rest }

func (d *damaged) redis(args ...any) any {
	d.t.Helper()
	v, err := d.rdb.Do(d.t.Context(), args...).Result()
	require.NoError(d.t, err, args)
	return v
}

func (d *damaged) sql(text string) {
	d.t.Helper()
	execute(d.t, d.database, strings.ReplaceAll(text, "$", d.name))
}

// index is the key of the generation that holds what waits.
func (d *damaged) index() string {
	return d.key("dirty:" + d.rdb.HGet(d.t.Context(), d.key("meta"), "gen").Val())
}

func (d *damaged) newestEntries(n int64) []string {
	entries, err := d.rdb.XRevRangeN(d.t.Context(), d.key("log"), "+", "-", n).Result()
	require.NoError(d.t, err)
	require.Len(d.t, entries, int(n))
	ids := make([]string, n)
	for i, e := range entries {
		ids[i] = e.ID
	}
	return ids
}

var damages = map[string]struct {
	do    func(*damaged)
	named []string
}{
	"d_clean": {func(d *damaged) {
		v := d.rdb.Get(d.t.Context(), d.key("row:1")).Val()
		require.Contains(d.t, v, "body1")
		d.redis("set", d.key("row:1"), strings.ReplaceAll(v, "body1", "other"), "keepttl")
	}, []string{"clean row 1"}},
	"d_torn":       {func(d *damaged) { d.redis("set", d.key("row:1"), "Cnothing", "keepttl") }, []string{"clean row 1"}},
	"d_changed":    {func(d *damaged) { d.sql("update $ set n = 7 where id = 2") }, []string{"clean row 2"}},
	"d_deleted":    {func(d *damaged) { d.sql("delete from $ where id = 3") }, []string{"clean row 3"}},
	"d_absent":     {func(d *damaged) { d.sql("insert into $ values (100)") }, []string{"missing row 100"}},
	"d_waiting":    {func(d *damaged) { d.sql("update $ set n = 7 where id = 10") }, []string{"waiting row 10"}},
	"d_counted":    {func(d *damaged) { d.sql("update $ set n = 7 where id = 11") }, []string{"waiting row 11"}},
	"d_frame":      {func(d *damaged) { d.redis("xdel", d.key("log"), d.newestEntries(3)[2]) }, []string{"log"}},
	"d_newest":     {func(d *damaged) { d.redis("xdel", d.key("log"), d.newestEntries(1)[0]) }, []string{"log"}},
	"d_log":        {func(d *damaged) { d.redis("del", d.key("log")) }, []string{"log"}},
	"d_index_gone": {func(d *damaged) { d.redis("hdel", d.index(), "32") }, []string{"index 32", "waiting row 32"}},
	"d_index_lost": {func(d *damaged) { d.redis("hset", d.index(), "5", "1-999999") }, []string{"index 5"}},
	"d_index_junk": {func(d *damaged) { d.redis("hset", d.index(), "5", "junk") }, []string{"index 5"}},
	"d_watermark": {func(d *damaged) {
		d.sql("update headpond.watermarks set seq = seq + 1000, committed = committed + 1000 where table_name = '$'")
	}, []string{"watermark"}},
	"d_settled": {func(d *damaged) { d.redis("hset", d.key("meta"), "wm", "99999") }, []string{"watermark"}},
	"d_bytes":   {func(d *damaged) { d.redis("hincrby", d.key("meta"), "bytes", "5") }, []string{"bytes"}},
	"d_ledger": {func(d *damaged) {
		d.sql("update headpond.watermarks set committed = committed + 1 where table_name = '$'")
	}, []string{"ledger"}},
	"d_dead": {func(d *damaged) {
		d.sql(`insert into headpond.dead_letters (table_name, partition, epoch, seq, sqlstate, message, columns, "values", accepted_at) values ('$', 0, 1, 1, '23514', '', '{}', '{}', now())`)
	}, []string{"dead letters"}},
	"d_mortal":       {func(d *damaged) { d.redis("expire", d.key("meta"), "3600") }, []string{"time to live"}},
	"d_gone":         {func(d *damaged) { d.redis("del", d.key("meta"), d.key("log")) }, []string{"partition"}},
	"d_type":         {func(d *damaged) { d.redis("set", d.key("log"), "x") }, []string{"partition"}},
	"d_index_astray": {func(d *damaged) { d.redis("hset", d.index(), "30", d.rdb.HGet(d.t.Context(), d.index(), "31").Val()) }, []string{"index 30"}},
	"d_stray": {func(d *damaged) {
		d.redis("hset", d.key("dirty:77"), "1", "1-1")
		d.redis("hset", "hp:{not_there.0}:meta", "epoch", "1")
	}, []string{"stray"}},
}
