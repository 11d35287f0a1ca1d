package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
)

// benchLoad says what to send to a server.
type benchLoad struct {
	addr     string
	requests [][]byte // sent in turn
	conns    int
	lasts    time.Duration // stop after this time,
	count    int64         // or after so many requests
	rate     float64       // requests per second in all; 0: each connection sends as soon as it has its answer
}

// benchAnswer is what came of a load.
type benchAnswer struct {
	requests int64
	took     time.Duration
	latency  *hdrhistogram.Histogram // microseconds
}

func (a *benchAnswer) perSecond() float64 { return float64(a.requests) / a.took.Seconds() }

func newLatency() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, time.Minute.Microseconds(), 2)
}

// run sends the load. Every request that was sent is answered before it
// returns, so requests is exact.
func (l *benchLoad) run(ctx context.Context) (*benchAnswer, error) {
	conns := make([]*benchConn, 0, l.conns)
	// They are closed at the end, and on Ctrl-C even if the server hangs.
	ctx, end := context.WithCancel(ctx)
	defer end()
	context.AfterFunc(ctx, func() {
		for _, c := range conns {
			_ = c.Close()
		}
	})
	for range l.conns {
		c, err := dialBench(ctx, l.addr)
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
	}
	hists := make([]*hdrhistogram.Histogram, l.conns)
	var sent, done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for i, c := range conns {
		hists[i] = newLatency()
		s := &benchSender{benchLoad: l, conn: c, number: i, start: start, sent: &sent, latency: hists[i]}
		g.Go(func() error {
			n, err := s.send(ctx)
			done.Add(n)
			return err
		})
	}
	err := g.Wait()
	a := &benchAnswer{requests: done.Load(), took: time.Since(start), latency: newLatency()}
	for _, h := range hists {
		a.latency.Merge(h)
	}
	return a, err
}

// benchSender is one connection's part of a load.
type benchSender struct {
	*benchLoad

	conn    *benchConn
	number  int
	start   time.Time
	sent    *atomic.Int64
	latency *hdrhistogram.Histogram
}

// send returns how many requests were answered. With a rate it keeps to a
// timetable: a request that could not go out in time, because the answer before
// it came late, counts from when it should have gone (no coordinated omission).
func (s *benchSender) send(ctx context.Context) (n int64, err error) {
	for i := 0; ctx.Err() == nil; i++ {
		began := time.Now()
		if s.rate > 0 {
			turn := float64(i*s.conns+s.number) / s.rate
			began = s.start.Add(time.Duration(turn * float64(time.Second)))
			time.Sleep(time.Until(began))
		}
		next := i*s.conns + s.number
		if s.count > 0 { // each once, if there are as many
			next = int(s.sent.Add(1) - 1)
		}
		if s.lasts > 0 && began.Sub(s.start) >= s.lasts || s.count > 0 && int64(next) >= s.count {
			return n, nil
		}
		if err := s.conn.post(s.requests[next%len(s.requests)]); err != nil {
			return n, err
		}
		n++
		_ = s.latency.RecordValue(min(max(time.Since(began).Microseconds(), 1), time.Minute.Microseconds()))
	}
	return n, ctx.Err()
}
