package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// seenRow is a row of the table linear, and whether there is one.
type seenRow struct {
	There bool  `json:"-"`
	V     int64 `json:"v"` // unique for each write
	N     int64 `json:"n"`
}

// linearOp is what a client asks for.
type linearOp struct {
	key  int
	kind string // get, put, patch, increment, delete, merge, ignore
	v    int64  // that is written, or is added to n
	only string // "", absent (If-None-Match: *), there (If-Match: *), or same (If-Match: the ETag of was)
	was  seenRow
	q    sentRequest
}

// linearAnswer is what the client saw.
type linearAnswer struct {
	unknown bool // no answer: it may be applied at any time, or never
	code    int
	row     seenRow
	tag     string
}

// step applies an operation to a row and tells whether the answer fits.
func (o linearOp) step(row seenRow, a linearAnswer) (bool, seenRow) {
	after, code := o.apply(row)
	if a.unknown {
		return true, after
	}
	if code != a.code {
		return false, row
	}
	return code >= 300 || o.kind == "delete" || a.row == after, after
}

func (o linearOp) apply(row seenRow) (after seenRow, code int) {
	needs := o.kind == "patch" || o.kind == "delete" || o.kind == "get"
	switch {
	case needs && !row.There:
		return row, http.StatusNotFound
	case o.only == "absent" && row.There, o.only == "there" && !row.There, o.only == "same" && row != o.was:
		return row, http.StatusPreconditionFailed
	}
	switch o.kind {
	case "get":
		return row, http.StatusOK
	case "delete":
		return seenRow{}, http.StatusAccepted
	case "increment":
		row.N += o.v
	case "ignore":
		if row.There {
			return row, http.StatusOK
		}
		row.V = o.v
	case "put":
		row = seenRow{V: o.v}
	default:
		row.V = o.v
	}
	row.There = true
	return row, http.StatusAccepted
}

// linearModel: keys are independent of each other.
var linearModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := make([][]porcupine.Operation, linearKeys)
		for _, op := range history {
			k := op.Input.(linearOp).key //nolint:errcheck,forcetypeassert // we put it there
			parts[k] = append(parts[k], op)
		}
		return parts
	},
	Init: func() any { return seenRow{} },
	Step: func(state, input, output any) (bool, any) {
		return input.(linearOp).step(state.(seenRow), output.(linearAnswer)) //nolint:errcheck,forcetypeassert // we put them there
	},
	DescribeOperation: func(input, output any) string {
		o, a := input.(linearOp), output.(linearAnswer) //nolint:errcheck,forcetypeassert // we put them there
		if a.unknown {
			return fmt.Sprintf("%s %d %s %v -> ?", o.kind, o.v, o.only, o.was)
		}
		return fmt.Sprintf("%s %d %s %v -> %d %v", o.kind, o.v, o.only, o.was, a.code, a.row)
	},
}

const (
	linearKeys    = 4
	linearClients = 16
	mostUnknown   = 4 // of a key in a round; each is tried at every point after it
)

// TestLinearizable: sixteen clients read and write four rows over two API
// processes, of which one is killed now and then, while flushers are killed,
// clean rows end after milliseconds and the log is trimmed at once. There is an
// order of all operations that explains every answer.
func TestLinearizable(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	r, seed := seeded(t)
	rounds := 3
	if os.Getenv("HEADPOND_LONG") != "" {
		rounds = 60
	}
	s := startServers(t, program)
	// Rows that end at once are always loaded anew; rows that do not show
	// whether a write drops them.
	var configs [2]string
	for i, ttl := range []string{"4ms", "2s"} {
		configs[i] = writeConfig(t, "tables_default: { partitions: 2, linger: 3ms, retain: 1ms, ttl: "+ttl+" }")
	}
	execute(t, s.postgres.URL(), `create table linear (id int primary key, v bigint not null default 0, n bigint not null default 0)`)
	l := &linear{t: t, seed: seed, begun: time.Now()}
	l.apis.Store(&[2]*headpond{})
	for i := range 2 {
		l.replace(i, s.serve(t, "--role", "api", "--config", configs[i]))
	}
	for _, h := range *l.apis.Load() {
		h.serves(t, "linear")
	}
	start := func() *process {
		return start(t, program, s.env(), "serve", "--role", "flusher", "--config", configs[0])
	}
	f := start()
	evict(t, s.redis.URL())
	checked := 0
	for round := 0; checked < rounds; round++ {
		require.Less(t, round, 2*rounds+2, "too few histories could be checked in their time")
		l.base = round * linearKeys
		l.round(round, func() {
			if r.IntN(2) == 0 {
				f.kill()
				f = start()
				return
			}
			i := r.IntN(2)
			l.apis.Load()[i].kill()
			l.replace(i, s.serve(t, "--role", "api", "--config", configs[i]))
		})
		if l.check(round) {
			checked++
		}
	}
	t.Logf("answers: %v", l.counts)
	h := l.apis.Load()[0]
	h.settled(t)
	require.Zero(t, value[int64](t, s.postgres.URL(), `select count(*) from headpond.dead_letters`))
}

// evict takes clean rows and leases away at random until the test ends, as an
// invalidation or a full Redis does.
func evict(t *testing.T, url string) {
	t.Helper()
	options, err := redis.ParseURL(url)
	require.NoError(t, err)
	rdb := redis.NewClient(options)
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			keys, _, err := rdb.Scan(ctx, 0, "hp:*:row:*", 1000).Result()
			if err == nil && len(keys) > 0 {
				_ = rdb.Unlink(ctx, keys[rand.N(len(keys))]).Err()
			}
			time.Sleep(time.Duration(rand.N(3)) * time.Millisecond)
		}
	})
	t.Cleanup(func() {
		stop()
		done.Wait()
		_ = rdb.Close()
	})
}

type linear struct {
	t     *testing.T
	seed  uint64
	begun time.Time
	apis  atomic.Pointer[[2]*headpond]
	base  int // of the keys of this round
	value atomic.Int64

	mu      sync.Mutex // guards the rest
	history []porcupine.Operation
	unknown [linearKeys]int
	counts  map[string]int
}

func (l *linear) replace(i int, h *headpond) {
	apis := *l.apis.Load()
	apis[i] = h
	l.apis.Store(&apis)
}

// round lets the clients work, and disturbs them in the midst of it.
func (l *linear) round(round int, disturb func()) {
	l.history, l.unknown = nil, [linearKeys]int{}
	if l.counts == nil {
		l.counts = make(map[string]int)
	}
	const each = 150
	var done atomic.Int64
	var clients sync.WaitGroup
	for id := range linearClients {
		clients.Go(func() {
			c := linearClient{l: l, id: id, r: rand.New(rand.NewPCG(l.seed, uint64(round*linearClients+id)))}
			for range each {
				c.operate()
				done.Add(1)
			}
		})
	}
	await(l.t, "operations", func() bool { return done.Load() > linearClients*each/3 })
	disturb()
	clients.Wait()
}

// check looks for an order that explains all answers. It says false when none
// was found in its time, nor that there is none: such a round counts for nothing.
func (l *linear) check(round int) bool {
	l.t.Helper()
	// The last state is read, so that what was lost at the end is seen too.
	c := linearClient{l: l, id: linearClients, r: rand.New(rand.NewPCG(l.seed, 1))}
	for key := range linearKeys {
		c.run(linearOp{key: key, kind: "get"})
	}
	tags := make(map[string]seenRow)
	for _, op := range l.history {
		a, _ := op.Output.(linearAnswer)
		key, _ := op.Input.(linearOp)
		if a.tag == "" {
			continue
		}
		id := fmt.Sprint(key.key, a.tag)
		if was, ok := tags[id]; ok {
			require.Equal(l.t, was, a.row, "two rows with one ETag")
		}
		tags[id] = a.row
	}
	result, info := porcupine.CheckOperationsVerbose(linearModel, l.history, 20*time.Second)
	if result != porcupine.Illegal {
		return result == porcupine.Ok
	}
	file := filepath.Join(os.TempDir(), fmt.Sprintf("headpond-linear-%d-%d.html", l.seed, round))
	require.NoError(l.t, porcupine.VisualizePath(linearModel, info, file))
	require.FailNow(l.t, "not linearizable", "round %d of HEADPOND_SEED=%d; open %s", round, l.seed, file)
	return false
}

type linearClient struct {
	l    *linear
	id   int
	r    *rand.Rand
	seen [linearKeys]struct {
		row seenRow
		tag string
	}
}

// operate once, at random.
func (c *linearClient) operate() {
	o := linearOp{key: c.r.IntN(linearKeys), v: c.l.value.Add(1)}
	o.kind = []string{"get", "get", "get", "put", "patch", "increment", "increment", "delete", "merge", "ignore"}[c.r.IntN(10)]
	if o.kind == "increment" {
		o.v = int64(c.r.IntN(5) + 1)
	}
	if o.kind != "get" && o.kind != "merge" && o.kind != "ignore" && c.r.IntN(2) == 0 {
		o.only = []string{"absent", "there", "same", "same"}[c.r.IntN(4)]
		if o.was = c.seen[o.key].row; o.only == "same" && c.seen[o.key].tag == "" {
			o.only = ""
		}
	}
	c.run(o)
}

// request that asks for the operation.
func (c *linearClient) request(o *linearOp) {
	key := c.l.base + o.key
	o.q = sentRequest{method: http.MethodPost, path: fmt.Sprint("/v1/linear/", key), header: map[string]string{"Content-Type": typeJSON, "Prefer": "return=representation"}}
	o.q.body = fmt.Sprintf(`{"v":%d}`, o.v)
	switch o.kind {
	case "get", "delete":
		o.q.body = ""
		fallthrough
	case "put", "patch":
		o.q.method = map[string]string{"get": "GET", "delete": "DELETE", "put": "PUT", "patch": "PATCH"}[o.kind]
	case "increment":
		o.q.path, o.q.body = o.q.path+"/increment", fmt.Sprintf(`{"n":%d}`, o.v)
	default:
		o.q.path, o.q.body = "/v1/linear", fmt.Sprintf(`{"id":%d,"v":%d}`, key, o.v)
		o.q.header["Prefer"] += ", resolution=" + o.kind + "-duplicates"
	}
	switch o.only {
	case "absent":
		o.q.header["If-None-Match"] = "*"
	case "there":
		o.q.header["If-Match"] = "*"
	case "same":
		o.q.header["If-Match"] = c.seen[o.key].tag
	}
}

// run an operation and note what came of it. Some clients give up; of these
// some send it again under its Idempotency-Key until there is an answer.
func (c *linearClient) run(o linearOp) {
	c.request(&o)
	patience := 20 * time.Second
	c.l.mu.Lock()
	giveUp := o.kind != "get" && c.l.unknown[o.key] < mostUnknown && c.r.IntN(12) == 0
	c.l.mu.Unlock()
	again := o.kind != "get" && o.kind != "ignore" && c.r.IntN(2) == 0
	if giveUp {
		patience = time.Duration(c.r.IntN(4000)) * time.Microsecond
	}
	if again {
		o.q.header["Idempotency-Key"] = fmt.Sprintf("linear-%d-%d-%d", c.l.base, c.id, c.l.value.Add(1))
	}
	from := time.Since(c.l.begun)
	a := c.send(&o, patience)
	first := a
	for again && a.unknown {
		a = c.send(&o, 20*time.Second)
	}
	to := time.Since(c.l.begun)
	if !a.unknown && a.code < 300 {
		c.seen[o.key].row, c.seen[o.key].tag = a.row, a.tag
	}
	if first.unknown && a.code >= 300 {
		// What is refused is not remembered: the first one may still be on its
		// way, and be applied after the second one was refused.
		c.note(porcupine.Operation{ClientId: c.id, Input: o, Call: int64(from), Output: first}, o, first)
	}
	c.note(porcupine.Operation{ClientId: c.id, Input: o, Call: int64(from), Output: a, Return: int64(to)}, o, a)
}

func (c *linearClient) note(op porcupine.Operation, o linearOp, a linearAnswer) {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.l.counts[fmt.Sprint(o.kind, " ", a.code)]++
	if a.unknown {
		if o.kind == "get" {
			return
		}
		c.l.unknown[o.key]++
		op.Return = math.MaxInt64
	}
	c.l.history = append(c.l.history, op)
}

func (c *linearClient) send(o *linearOp, patience time.Duration) (a linearAnswer) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := o.q.within(ctx, c.l.apis.Load()[c.r.IntN(2)])
	if err != nil {
		return linearAnswer{unknown: true}
	}
	a.code, a.tag = got.code, got.header.Get("ETag")
	var body struct{ Row seenRow }
	switch {
	case got.code == http.StatusServiceUnavailable && got.field("applied") == "no", got.code == http.StatusGatewayTimeout:
		return linearAnswer{unknown: true}
	case got.code >= 300:
		return a
	case o.kind == "get":
		err = json.Unmarshal(got.body, &body.Row)
	default:
		err = json.Unmarshal(got.body, &body)
	}
	if err != nil || got.code > 202 {
		c.l.t.Errorf("%s: %d %s", o.kind, got.code, got.body)
	}
	if o.kind != "delete" {
		a.row = body.Row
		a.row.There = true
	}
	return a
}
