//go:build linux

package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// chaosTables: a write is (client, n), which is never used twice. Rows of
// chaos_append have no key, so nothing but Headpond keeps one from arriving
// twice.
const chaosTables = `
	create type chaos_kind as enum ('plain');
	create table chaos_append (client int not null, n bigint not null, note text not null);
	create table chaos_keyed (client int not null, n bigint not null, note text not null, kind chaos_kind not null default 'plain',
		primary key (client, n), constraint no_poison check (note not like 'poison%'));
	create table chaos_rows (key int primary key, client int not null, n bigint not null, note text not null);
	create table chaos_counters (key int primary key, n bigint not null default 0)`

var chaosNames = []string{"chaos_append", "chaos_keyed", "chaos_rows", "chaos_counters"}

// chaosOp is a request and what its client knows of it. A batch is the rows
// From, From+1, … of its client.
type chaosOp struct {
	Client  int           `json:"client"`
	From    int64         `json:"from"`
	Count   int           `json:"count"`
	Table   string        `json:"table"`
	Key     int           `json:"key,omitempty"`
	Poison  bool          `json:"poison,omitempty"`
	Name    string        `json:"idempotency_key,omitempty"`
	Begun   time.Duration `json:"begun"`
	Ended   time.Duration `json:"ended"`
	Answer  string        `json:"answer"`
	Outcome rune          `json:"outcome"` // of all rows,
	Except  map[int]rune  `json:"except,omitempty"`
	Receipt []string      `json:"receipts,omitempty"`
	Now     bool          `json:"committed,omitempty"` // the answer said that it is in Postgres
	Value   int64         `json:"value,omitempty"`     // of the counter after it
}

func (o *chaosOp) of(row int) rune {
	if x, ok := o.Except[row]; ok {
		return x
	}
	return o.Outcome
}

// chaosLoad writes over eight connections to any of several APIs, and keeps
// the history.
type chaosLoad struct {
	t     *testing.T
	seed  uint64
	pace  time.Duration // between two requests of a client
	begun time.Time
	apis  atomic.Pointer[[]string]

	poison  atomic.Int64 // one of so many rows of chaos_keyed is bad; 0: none
	forgets atomic.Bool  // Redis may lose rows: no client can rely on what it wrote
	ok      atomic.Int64 // rows
	no      atomic.Int64
	unknown atomic.Int64
	probed  atomic.Int64
	stopped atomic.Bool
	clients sync.WaitGroup

	mu       sync.Mutex // guards the rest
	history  []*chaosOp
	answers  map[string]int
	problems []string
}

const (
	chaosClients  = 8
	chaosKeys     = 24 // of chaos_rows; a client has one of its own beside them
	chaosCounters = 4
)

func newChaosLoad(t *testing.T, seed uint64) *chaosLoad {
	l := &chaosLoad{t: t, seed: seed, pace: 20 * time.Millisecond, begun: time.Now(), answers: make(map[string]int)}
	t.Cleanup(l.stop)
	return l
}

func (l *chaosLoad) start() {
	for id := range chaosClients {
		c := &chaosClient{l: l, id: id, r: rand.New(rand.NewPCG(l.seed, uint64(id)))} //nolint:gosec // no secret
		l.clients.Go(c.run)
	}
}

func (l *chaosLoad) stop() {
	l.stopped.Store(true)
	l.clients.Wait()
}

// probe is a number for a write that no client makes.
func (l *chaosLoad) probe() int64 { return l.probed.Add(1) }

func (l *chaosLoad) problem(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.problems) < 20 {
		l.problems = append(l.problems, fmt.Sprintf(format, args...))
	}
}

// chaosClient sends one request after the other.
type chaosClient struct {
	l  *chaosLoad
	id int
	r  *rand.Rand
	n  int64

	own   int64          // last write of its own key that was acknowledged
	maybe map[int64]bool // writes of it that nobody knows about
}

func (c *chaosClient) run() {
	pace := time.NewTicker(c.l.pace)
	defer pace.Stop()
	for !c.l.stopped.Load() {
		<-pace.C
		o, q := c.next()
		c.l.send(o, q, c.r.IntN(1<<20))
		if o.Table == "chaos_rows" && o.Key == chaosKeys+c.id {
			c.reads(o)
		}
	}
}

// next makes a request: two clients send batches, two single rows, two put
// rows, one counts, and one waits until its rows are in Postgres.
func (c *chaosClient) next() (*chaosOp, sentRequest) {
	o := &chaosOp{Client: c.id, From: c.n, Count: 1}
	q := sentRequest{method: http.MethodPost, header: map[string]string{"Content-Type": typeJSON}}
	switch c.id {
	case 0, 1:
		o.Table, o.Count = "chaos_append", 1+c.r.IntN(30)
		q.header["Content-Type"] = typeNDJSON
	case 2, 3:
		o.Table = "chaos_append"
		o.Name = fmt.Sprintf("chaos-%d-%d", c.id, c.n)
	case 4, 5:
		o.Table, o.Key, q.method = "chaos_rows", c.r.IntN(chaosKeys), http.MethodPut
		if c.r.IntN(2) == 0 {
			o.Key = chaosKeys + c.id
		} else if c.r.IntN(2) == 0 {
			o.Name = fmt.Sprintf("chaos-%d-%d", c.id, c.n)
		}
	case 6:
		o.Table, o.Key = "chaos_counters", c.r.IntN(chaosCounters)
		if c.r.IntN(2) == 0 {
			o.Name = fmt.Sprintf("chaos-%d-%d", c.id, c.n)
		}
		q.header["Prefer"] = "return=representation"
	case 7:
		o.Table = "chaos_keyed"
		if every := c.l.poison.Load(); every > 0 && c.r.Int64N(every) == 0 {
			o.Poison = true
		} else if c.r.IntN(4) == 0 {
			q.header["Prefer"] = "wait=2"
		}
	}
	if o.Name != "" {
		q.header["Idempotency-Key"] = o.Name
	}
	c.n += int64(o.Count)
	q.path, q.body = o.request()
	return o, q
}

// request is path and body.
func (o *chaosOp) request() (path, body string) {
	switch o.Table {
	case "chaos_rows":
		return fmt.Sprint("/v1/chaos_rows/", o.Key), o.row(0)
	case "chaos_counters":
		return fmt.Sprintf("/v1/chaos_counters/%d/increment", o.Key), `{"n":1}`
	}
	var b strings.Builder
	for i := range o.Count {
		b.WriteString(o.row(i))
		b.WriteByte('\n')
	}
	return "/v1/" + o.Table, b.String()
}

func (o *chaosOp) row(i int) string {
	return fmt.Sprintf(`{"client":%d,"n":%d,"note":%q}`, o.Client, o.From+int64(i), o.note(i))
}

func (o *chaosOp) note(i int) string {
	if o.Poison {
		return fmt.Sprint("poison ", o.From+int64(i))
	}
	return fmt.Sprintf("row %d of %d", o.From+int64(i), o.Client)
}

// send the request to one of the APIs, and keep what came of it.
func (l *chaosLoad) send(o *chaosOp, q sentRequest, which int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	apis := *l.apis.Load()
	o.Begun = time.Since(l.begun)
	a, err := q.within(ctx, &headpond{api: apis[which%len(apis)]})
	o.Ended = time.Since(l.begun)
	o.judge(a, err)
	l.note(o)
}

// note keeps a request and what came of it.
func (l *chaosLoad) note(o *chaosOp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history = append(l.history, o)
	l.answers[o.Answer]++
	for i := range o.Count {
		switch o.of(i) {
		case acked:
			l.ok.Add(1)
		case refused:
			l.no.Add(1)
		default:
			l.unknown.Add(1)
		}
	}
}

// judge what the answer says of each row.
func (o *chaosOp) judge(a answer, err error) {
	o.Outcome, o.Except = unknown, nil
	switch {
	case err != nil && isDial(err):
		o.Answer = "not connected"
		// net/http sends a request with an Idempotency-Key again by itself when
		// its connection broke: the first one may have arrived.
		if o.Name == "" {
			o.Outcome = refused
		}
		return
	case err != nil:
		o.Answer = "no answer"
		return
	}
	o.Answer = strings.TrimSpace(fmt.Sprint(a.code, " ", a.field("code")))
	var body struct {
		Receipts []string
		Errors   []struct {
			Index int
			Code  string
		}
		Row struct{ N int64 }
	}
	if a.code < 300 {
		if err := json.Unmarshal(a.body, &body); err != nil {
			o.Answer = "2xx that is not JSON"
			return
		}
		o.Outcome, o.Now, o.Value = acked, a.header.Get("Headpond-Durability") == "committed", body.Row.N
		o.Receipt = body.Receipts
		if one := a.header.Get("Headpond-Receipt"); one != "" && o.Count == 1 {
			o.Receipt = []string{one}
		}
		o.Except = make(map[int]rune)
		for _, e := range body.Errors {
			o.Except[e.Index] = refused
			if e.Code == "outcome_unknown" {
				o.Except[e.Index] = unknown
			}
		}
		return
	}
	if a.code < 500 || a.field("applied") == "no" {
		o.Outcome = refused
	}
}

// reads its own key after it wrote it: what was acknowledged is there, or
// something that nobody knew about.
func (c *chaosClient) reads(o *chaosOp) {
	if c.maybe == nil {
		c.own, c.maybe = -1, make(map[int64]bool)
	}
	switch o.Outcome {
	case acked:
		c.own = o.From
	case unknown:
		c.maybe[o.From] = true
	}
	apis := *c.l.apis.Load()
	a, err := request(http.MethodGet, fmt.Sprint(apis[c.r.IntN(len(apis))], "/v1/chaos_rows/", o.Key), "", "")
	if err != nil || a.code >= 500 || c.l.forgets.Load() {
		return
	}
	var row struct{ Client, N int64 }
	found := a.code == http.StatusOK && json.Unmarshal(a.body, &row) == nil
	if found && row.Client == int64(c.id) && (row.N == c.own || c.maybe[row.N]) || !found && c.own < 0 {
		return
	}
	c.l.problem("client %d wrote %d to its key and read %d %s", c.id, c.own, a.code, a.body)
}

// resolve repeats the requests of unknown outcome that have an Idempotency-Key
// until they are answered: what was applied is told so.
func (l *chaosLoad) resolve() (resolved int) {
	for _, o := range l.history { // the clients have ended
		if o.Outcome != unknown || o.Name == "" {
			continue
		}
		q := sentRequest{method: http.MethodPost, header: map[string]string{"Content-Type": typeJSON, "Idempotency-Key": o.Name}}
		if o.Table == "chaos_rows" {
			q.method = http.MethodPut
		}
		if o.Table == "chaos_counters" {
			q.header["Prefer"] = "return=representation"
		}
		q.path, q.body = o.request()
		again := *o
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		a, err := q.within(ctx, &headpond{api: (*l.apis.Load())[0]})
		cancel()
		if again.judge(a, err); again.Outcome != acked {
			l.problem("%s repeated with its Idempotency-Key is answered %q", o.Name, again.Answer)
			continue
		}
		o.Outcome, o.Receipt, o.Value, o.Now = acked, again.Receipt, again.Value, again.Now
		l.unknown.Add(-1)
		l.ok.Add(1)
		resolved++
	}
	return resolved
}
