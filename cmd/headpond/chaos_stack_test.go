//go:build linux

package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// chaos is a whole stack of its own to be broken: two APIs, two flushers, a
// Redis, a Postgres, and a wire between each kind of process and each server.
type chaos struct {
	*testing.T
	program  string
	r        *rand.Rand
	seed     uint64
	began    time.Time
	dir      string
	config   string // file
	redis    *up.Redis
	postgres *up.Postgres
	cluster  string // URL, when Redis is a cluster: no wires then
	load     *chaosLoad

	apiRedis, apiPostgres, flushRedis, flushPostgres *wire

	apis     []*headpond
	flushers []*process

	mu   sync.Mutex // guards the rest
	told []string
}

// chaosFiller begins the names of keys that a fault puts into Redis itself.
const chaosFiller = "chaos-filler:"

// stackOptions are what a fault wants otherwise than usual.
type stackOptions struct {
	config      string
	redisDir    func(c *chaos) string // where its data lies
	postgresDir func(c *chaos) string
	sync        bool // Postgres with fsync
	cluster     bool // three Redis masters
	preload     string
}

const chaosConfig = `
tables_default: { partitions: 4 }
flusher: { drain: 3s }`

func newChaos(t *testing.T, program string, seed uint64, o stackOptions) *chaos {
	c := &chaos{T: t, program: program, seed: seed, r: rand.New(rand.NewPCG(seed, 99)), began: time.Now(), dir: uptest.Dir(t)} //nolint:gosec // no secret
	t.Cleanup(c.keepArtefacts)
	c.config = writeConfig(t, chaosConfig+o.config)
	c.startServers(o)
	migrated := command(t, program, c.env(c.postgres.URL(), c.redisURL()), "migrate", "up")
	require.Zero(t, migrated.code, migrated.err)
	execute(t, c.postgres.URL(), chaosTables)
	pg := c.postgres.Addr()
	c.apiPostgres, c.flushPostgres = newWire(t, pg), newWire(t, pg)
	if c.cluster == "" {
		c.apiRedis, c.flushRedis = newWire(t, c.redis.Addr()), newWire(t, c.redis.Addr())
	}
	c.load = newChaosLoad(t, seed)
	for range 2 {
		c.startAPI()
	}
	for range 2 {
		c.startFlusher()
	}
	for _, h := range c.apis {
		h.serves(t, chaosNames...)
	}
	return c
}

func (c *chaos) startServers(o stackOptions) {
	c.Helper()
	dir := func(given func(*chaos) string, name string) string {
		if given != nil {
			return given(c)
		}
		return filepath.Join(c.dir, name)
	}
	log := slog.New(slog.DiscardHandler)
	var err error
	c.postgres, err = up.StartPostgres(c.Context(), up.PostgresOptions{Dir: dir(o.postgresDir, "postgres"), NoSync: !o.sync, Log: log})
	require.NoError(c, err)
	c.Cleanup(func() { _ = c.postgres.Stop() }) // it may have been broken on purpose
	if o.cluster {
		c.cluster = c.startCluster()
		return
	}
	c.redis = c.startRedis(dir(o.redisDir, "redis"))
}

func (c *chaos) startRedis(dir string) *up.Redis {
	c.Helper()
	r, err := up.StartRedis(c.Context(), up.RedisOptions{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	require.NoError(c, err)
	c.Cleanup(func() { _ = r.Stop() })
	return r
}

func (c *chaos) redisURL() string {
	if c.cluster != "" {
		return c.cluster
	}
	return c.redis.URL()
}

func (c *chaos) env(database, redisURL string) []string {
	return cleanEnvironment("DATABASE_URL="+database, "REDIS_URL="+redisURL)
}

func (c *chaos) apiEnv() []string {
	if c.cluster != "" {
		return c.env(c.apiPostgres.through(c.T, c.postgres.URL()), c.cluster)
	}
	return c.env(c.apiPostgres.through(c.T, c.postgres.URL()), c.apiRedis.through(c.T, c.redis.URL()))
}

func (c *chaos) flushEnv() []string {
	if c.cluster != "" {
		return c.env(c.flushPostgres.through(c.T, c.postgres.URL()), c.cluster)
	}
	return c.env(c.flushPostgres.through(c.T, c.postgres.URL()), c.flushRedis.through(c.T, c.redis.URL()))
}

// startAPI starts one more API and tells the clients of it when it serves.
func (c *chaos) startAPI() *headpond {
	c.Helper()
	h := &headpond{process: start(c.T, c.program, c.apiEnv(), "serve", "--role", "api", "--listen", "127.0.0.1:0", "--config", c.config)}
	h.api, _ = h.logged("serving")["url"].(string)
	h.logged("catalog read")
	c.apis = append(c.apis, h)
	c.tellClients()
	return h
}

func (c *chaos) tellClients() {
	var urls []string
	for _, h := range c.apis {
		urls = append(urls, h.api)
	}
	c.load.apis.Store(&urls)
}

// replaceAPI starts another one in the place of one that has ended.
func (c *chaos) replaceAPI(dead *headpond) {
	c.Helper()
	c.apis = slices.DeleteFunc(c.apis, func(h *headpond) bool { return h == dead })
	c.startAPI()
}

func (c *chaos) startFlusher() *process {
	c.Helper()
	p := start(c.T, c.program, c.flushEnv(), "serve", "--role", "flusher", "--config", c.config)
	c.flushers = append(c.flushers, p)
	return p
}

func (c *chaos) replaceFlusher(dead *process) *process {
	c.Helper()
	c.flushers = slices.DeleteFunc(c.flushers, func(p *process) bool { return p == dead })
	return c.startFlusher()
}

// step notes what is done, for who has to find out why a run failed.
func (c *chaos) step(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, fmt.Sprintf("%8s  ", time.Since(c.began).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// keepArtefacts writes down what happened when the test has failed.
func (c *chaos) keepArtefacts() {
	if !c.Failed() {
		return
	}
	c.mu.Lock()
	steps := strings.Join(c.told, "\n") + "\n"
	c.mu.Unlock()
	c.Logf("what was done:\n%s", steps)
	dir, err := os.MkdirTemp("", "headpond-chaos-")
	if err != nil {
		return
	}
	files := map[string]string{"steps.txt": steps}
	if c.load != nil {
		files["history.ndjson"] = string(c.load.json())
	}
	for i, h := range c.apis {
		files[fmt.Sprintf("api-%d.log", i)] = h.log.String()
	}
	for i, p := range c.flushers {
		files[fmt.Sprintf("flusher-%d.log", i)] = p.log.String()
	}
	for name, s := range map[string]interface{ LogFile() string }{"redis.log": c.redis, "postgres.log": c.postgres} {
		if c.redis != nil && c.postgres != nil {
			text, _ := os.ReadFile(s.LogFile()) // as much as there is
			files[name] = string(text)
		}
	}
	for name, text := range files {
		_ = os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
	}
	c.Logf("history and logs are in %s", dir)
}

// acks waits until so many more rows were acknowledged.
func (c *chaos) acks(rows int64) {
	c.Helper()
	from := c.load.ok.Load()
	c.await("rows to be acknowledged", func() bool { return c.load.ok.Load() >= from+rows })
}

// refusals waits until so many more rows were not acknowledged.
func (c *chaos) refusals(rows int64) {
	c.Helper()
	bad := func() int64 { return c.load.no.Load() + c.load.unknown.Load() }
	from := bad()
	c.await("rows to be refused", func() bool { return bad() >= from+rows })
}

// commits waits until so many more rows were committed.
func (c *chaos) commits(rows int64) {
	c.Helper()
	from := int64(-1)
	c.await("rows to be committed", func() bool {
		n, err := c.committed()
		if from < 0 && err == nil {
			from = n
		}
		return err == nil && n >= from+rows
	})
}

// committed rows, if Postgres tells.
func (c *chaos) committed() (int64, error) {
	return c.ask(`select coalesce(sum(committed), 0)::bigint from headpond.watermarks`)
}

// ask Postgres for a number; it may be away.
func (c *chaos) ask(query string) (n int64, err error) {
	ctx, cancel := context.WithTimeout(c.Context(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.postgres.URL())
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(ctx) }()
	err = conn.QueryRow(ctx, query).Scan(&n)
	return n, err
}

// listening gives a function that waits until a flusher has written words into
// its log since now.
func (c *chaos) listening() (heard func(words string)) {
	from := make(map[*process]int)
	for _, p := range c.flushers {
		from[p] = len(p.log.String())
	}
	return func(words string) {
		c.Helper()
		c.await("a flusher to say "+words, func() bool {
			for _, p := range c.flushers {
				if strings.Contains(p.log.String()[from[p]:], words) {
					return true
				}
			}
			return false
		})
	}
}

// answered waits until so many more requests were answered like this.
func (c *chaos) answered(kind string, n int) {
	c.Helper()
	count := func() int {
		c.load.mu.Lock()
		defer c.load.mu.Unlock()
		return c.load.answers[kind]
	}
	from := count()
	c.await("answers "+kind, func() bool { return count() >= from+n })
}

func (c *chaos) await(what string, cond func() bool) {
	c.Helper()
	c.step("waiting for %s", what)
	await(c.T, what, cond)
}

// lasts lets the fault last while the load goes on.
func (c *chaos) lasts(d time.Duration) {
	c.step("it lasts for %s", d)
	<-time.After(d)
}

// sql runs a statement as the operator.
func (c *chaos) sql(statement string) {
	c.Helper()
	c.step("sql: %s", statement)
	execute(c.T, c.postgres.URL(), statement)
}

// command sends one to Redis itself.
func (c *chaos) command(args ...any) any {
	c.Helper()
	c.step("redis: %v", args)
	rdb := redis.NewClient(&redis.Options{Addr: c.redis.Addr(), MaxRetries: -1})
	defer func() { _ = rdb.Close() }()
	got, err := rdb.Do(c.Context(), args...).Result()
	require.NoError(c, err, "%v", args)
	return got
}

// eachRedis visits every master.
func (c *chaos) eachRedis(visit func(ctx context.Context, rdb *redis.Client) error) error {
	if c.cluster != "" {
		o, err := redis.ParseClusterURL(c.cluster)
		require.NoError(c, err)
		all := redis.NewClusterClient(o)
		defer func() { _ = all.Close() }()
		return all.ForEachMaster(c.Context(), visit)
	}
	rdb := redis.NewClient(&redis.Options{Addr: c.redis.Addr()})
	defer func() { _ = rdb.Close() }()
	return visit(c.Context(), rdb)
}

// recovered sends writes until one is in Postgres: then the stack works again
// from end to end. It gives how long that took.
func (c *chaos) recovered() time.Duration {
	c.Helper()
	from := time.Now()
	for n := int64(0); ; n++ {
		for i := range c.apis {
			o := &chaosOp{Client: chaosClients + i, From: c.load.probe(), Count: 1, Table: "chaos_append"}
			q := sentRequest{method: http.MethodPost, header: map[string]string{"Content-Type": typeJSON, "Prefer": "wait=5"}}
			q.path, q.body = o.request()
			if c.load.send(o, q, i); o.Outcome == acked && o.Now {
				return time.Since(from)
			}
		}
		if time.Since(from) > mostRecovery {
			require.FailNow(c, "it does not recover", "after %s no write gets to Postgres", time.Since(from))
		}
		<-time.After(20 * time.Millisecond)
	}
}

// mostRecovery is assertion 10.
const mostRecovery = patience

// drained waits until nothing is pending.
func (c *chaos) drained() {
	c.Helper()
	c.await("everything to be committed", func() bool {
		a, err := request(http.MethodPost, c.apis[0].api+"/v1/flush?wait=5s", "", "")
		return err == nil && a.code == http.StatusOK
	})
	c.await("an empty backlog", func() bool {
		a, err := request(http.MethodGet, c.apis[0].api+"/admin/v1/status", "", "")
		var s state
		return err == nil && json.Unmarshal(a.body, &s) == nil && s.Ledger.Pending == 0
	})
	// The last settle comes after the last commit. If it does not come, the
	// checker says so.
	for from := time.Now(); time.Since(from) < 15*time.Second; {
		v := new(verdict)
		if c.checkRedis(v); len(v.Problems) == 0 {
			return
		}
		<-time.After(100 * time.Millisecond)
	}
}
