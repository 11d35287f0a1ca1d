package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/headpond/headpond/api/client"
)

// drillConns is how many clients write at a time. While Postgres is stopped, a
// change of a row that is not in Redis waits for it: they must be enough that
// others can still write what needs no Postgres.
const drillConns = 512

// drillLoad offers writes at a constant rate, however fast they are answered,
// and keeps the history. What finds no client free and no place in the queue
// is not sent: it is counted, and it is no write.
type drillLoad struct {
	rate    int
	seed    uint64
	client  *client.Client
	history *drillHistory
	backlog *drillBacklog
	began   time.Time

	requests atomic.Int64
	acked    atomic.Int64 // writes
	failed   atomic.Int64 // writes whose attempt was answered by 5xx or not at all
	full     atomic.Int64 // of those: 503 backlog_full
	unsent   atomic.Int64 // writes

	queue   chan string
	halt    chan struct{}
	running sync.WaitGroup

	mu   sync.Mutex      // guards open
	open []*drillRequest // with writes of unknown outcome that a repeat can tell
}

// newDrillLoad makes a load on the API at a URL. With addresses, those are where
// it is found: a connection that cannot be made to one is made to the next, as
// a balancer does.
func newDrillLoad(rate int, seed uint64, url string, addrs []string) (l *drillLoad, err error) {
	l = &drillLoad{
		rate: rate, seed: seed, history: &drillHistory{}, backlog: newDrillBacklog(),
		queue: make(chan string, rate), halt: make(chan struct{}),
	}
	transport := &http.Transport{MaxIdleConnsPerHost: drillConns, IdleConnTimeout: time.Minute}
	if len(addrs) > 0 {
		transport.DialContext = dialAny(addrs)
	}
	l.client, err = client.New(url, client.WithRetryBudget(0), client.WithHTTPClient(&http.Client{Transport: transport}))
	return l, err
}

func dialAny(addrs []string) func(ctx context.Context, network, _ string) (net.Conn, error) {
	var turn atomic.Int64
	dialer := net.Dialer{Timeout: 2 * time.Second}
	return func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
		first := int(turn.Add(1))
		for i := range addrs {
			if conn, err = dialer.DialContext(ctx, network, addrs[(first+i)%len(addrs)]); err == nil {
				return conn, nil
			}
		}
		return nil, err
	}
}

// start begins to write.
func (l *drillLoad) start(ctx context.Context) {
	l.began = time.Now()
	run := crand.Text()
	for id := range drillConns {
		c := &drillClient{id: int64(id) + 1, run: run, r: rand.New(rand.NewPCG(l.seed, uint64(id)+1))} //nolint:gosec // no secret
		l.running.Go(func() { l.write(ctx, c) })
	}
	l.running.Go(func() { l.offer(ctx) })
}

// offer puts requests into the queue by the clock.
func (l *drillLoad) offer(ctx context.Context) {
	defer close(l.queue)
	r := rand.New(rand.NewPCG(l.seed, 0)) //nolint:gosec // no secret
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	offered := 0.0
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.halt:
			return
		case <-tick.C:
		}
		for due := time.Since(l.began).Seconds() * float64(l.rate); offered < due; {
			kind, writes := drillKindOf(r)
			offered += float64(writes)
			select {
			case l.queue <- kind:
			default:
				l.unsent.Add(int64(writes))
			}
		}
	}
}

// write is one client.
func (l *drillLoad) write(ctx context.Context, c *drillClient) {
	for kind := range l.queue {
		select {
		case <-l.halt:
			continue // what waited is not sent
		default:
		}
		q := c.next(kind)
		patience := drillAnswerTime
		if c.r.IntN(impatientEvery) == 0 {
			patience = time.Duration(c.r.IntN(10_000)) * time.Microsecond
		}
		l.deliver(ctx, q, patience)
	}
}

// stop ends the load; requests on their way are waited for.
func (l *drillLoad) stop() {
	close(l.halt)
	l.running.Wait()
}

func (l *drillLoad) now() time.Duration { return time.Since(l.began) }

// deliver sends a request, and again under its Idempotency-Key for a while if
// nobody knows what came of it. What was refused is left at that: else every
// client would soon be busy with what cannot be accepted now, and none with
// what can.
func (l *drillLoad) deliver(ctx context.Context, q *drillRequest, patience time.Duration) {
	began := l.now()
	for _, w := range q.writes {
		w.Began = began
	}
	for n := 1; ; n++ {
		again, after := l.attempt(ctx, q, patience)
		if !again || !q.doubtful() || l.now()-began > mostRepeats || l.stopping() {
			break
		}
		patience = drillAnswerTime
		pause(ctx, min(after, time.Second)+time.Duration(rand.IntN(20*min(n, 20)))*time.Millisecond) //nolint:gosec // jitter
	}
	ended := l.now()
	for _, w := range q.writes {
		w.Ended = ended
	}
	l.history.add(q.writes...)
	if q.doubtful() {
		l.mu.Lock()
		l.open = append(l.open, q)
		l.mu.Unlock()
	}
}

func (l *drillLoad) stopping() bool {
	select {
	case <-l.halt:
		return true
	default:
		return false
	}
}

// doubtful reports whether a repeat can tell what nobody knows.
func (q *drillRequest) doubtful() bool {
	for _, w := range q.writes {
		if w.Outcome == drillUnknown && q.name != "" {
			return true
		}
	}
	return false
}

func (l *drillLoad) attempt(ctx context.Context, q *drillRequest, patience time.Duration) (again bool, after time.Duration) {
	before := q.acknowledged()
	l.requests.Add(1)
	sending, cancel := context.WithTimeout(ctx, patience)
	again, after, receipts := q.send(sending, l.client)
	cancel()
	now := time.Now()
	for _, text := range receipts {
		if r, ok := readReceipt(text); ok {
			l.backlog.accepted(r, now)
		}
	}
	l.acked.Add(q.acknowledged() - before)
	for _, w := range q.writes {
		if w.Outcome != drillOK && temporary(client.Code(w.Answer)) && patience == drillAnswerTime {
			l.failed.Add(1)
			if w.Answer == string(client.ErrBacklogFull) {
				l.full.Add(1)
			}
		}
	}
	return again, after
}

func (q *drillRequest) acknowledged() (n int64) {
	for _, w := range q.writes {
		if w.Outcome == drillOK {
			n++
		}
	}
	return n
}

// resolve repeats what is unknown, under its Idempotency-Key, until it is
// known. The load has stopped and all is healed.
func (l *drillLoad) resolve(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drillPatience)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, q := range l.open {
		g.Go(func() error {
			for q.doubtful() {
				again, after := l.attempt(ctx, q, drillAnswerTime)
				if q.doubtful() && !again {
					return fmt.Errorf("resolve: a repeat of %s under its Idempotency-Key was answered %s", q.name, q.writes[0].Answer)
				}
				if again {
					pause(ctx, min(after, time.Second)+10*time.Millisecond)
				}
				if ctx.Err() != nil {
					return errors.New("resolve: repeats under their Idempotency-Keys were not answered in time")
				}
			}
			return nil
		})
	}
	return g.Wait()
}
