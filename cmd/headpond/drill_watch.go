package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// drillSample is one moment of a drill.
type drillSample struct {
	At      float64 `json:"at_s"`  // seconds since the start of the load
	Lag     float64 `json:"lag_s"` // age of the oldest acknowledged write that is not committed
	Backlog int64   `json:"backlog_rows"`
	Acked   int64   `json:"acknowledged"` // so far
	Failed  int64   `json:"failed"`       // attempts that were answered by 5xx or not at all, so far
}

const drillSampleEvery = 100 * time.Millisecond

// drillWatch looks at a drill ten times a second.
type drillWatch struct {
	load     *drillLoad
	database string

	mu      sync.Mutex // guards the rest
	samples []drillSample
	calm    float64 // the lag that is normal, in seconds; 0: not known yet
}

// run looks until ctx ends.
func (w *drillWatch) run(ctx context.Context) {
	var both sync.WaitGroup
	defer both.Wait()
	both.Go(func() { w.follow(ctx) })
	tick := time.NewTicker(drillSampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.look()
	}
}

func (w *drillWatch) look() {
	rows, lag := w.load.backlog.now(time.Now())
	s := drillSample{At: w.load.now().Seconds(), Lag: lag.Seconds(), Backlog: rows, Acked: w.load.acked.Load(), Failed: w.load.failed.Load()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.samples = append(w.samples, s)
}

// follow reads the watermarks. While Postgres does not answer, none moves.
func (w *drillWatch) follow(ctx context.Context) {
	var conn *pgx.Conn
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, time.Second)
		var err error
		if conn == nil || conn.IsClosed() {
			conn, err = pgx.Connect(asking, w.database)
		}
		if err == nil {
			err = w.read(asking, conn)
		}
		cancel()
		pause(ctx, drillSampleEvery/2)
	}
	if conn != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
	}
}

func (w *drillWatch) read(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `select table_name, partition, epoch, seq from headpond.watermarks where table_name = any ($1)`, drillTables)
	if err != nil {
		return err
	}
	var r drillReceipt
	_, err = pgx.ForEachRow(rows, []any{&r.table, &r.partition, &r.epoch, &r.seq}, func() error {
		w.load.backlog.committed(r)
		return nil
	})
	return err
}

// all samples so far.
func (w *drillWatch) all() []drillSample {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.samples)
}

func (w *drillWatch) last() drillSample {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.samples); n > 0 {
		return w.samples[n-1]
	}
	return drillSample{}
}

// settle takes what was seen lately for normal.
func (w *drillWatch) settle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calm = calmLag(w.samples[len(w.samples)/2:]) // at first all is cold
}

func (w *drillWatch) normal() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calm
}

// least of what counts as a normal lag, in seconds: ten times the linger.
const leastCalm = 0.5

// calmLag is the lag that is normal, in seconds: twice the worst before the
// first fault.
func calmLag(before []drillSample) float64 {
	most := 0.0
	for _, s := range before {
		most = max(most, s.Lag)
	}
	return max(2*most, leastCalm)
}

// drillEvent is a fault that happened. Times are seconds.
type drillEvent struct {
	Fault      drillFaultKind `json:"fault"`
	Processes  int            `json:"processes"`           // that were hit
	At         float64        `json:"at_s"`                // since the start of the load
	Healed     float64        `json:"healed_after_s"`      // what was killed runs again, what was stopped goes on
	WritesBack float64        `json:"writes_back_after_s"` // 0: no write was refused or had to wait for longer than a sample
	LagBack    float64        `json:"lag_back_after_s"`    // 0: it did not leave what is normal
	PeakLag    float64        `json:"peak_lag_s"`
	Overtaken  bool           `json:"overtaken"` // the next fault came before the lag was normal again
}

// recovered works out from the samples when all was well again after each
// event: that is, when it stayed well until the next one. The load ended at
// end: that nothing is acknowledged after it means nothing.
func recovered(events []drillEvent, samples []drillSample, calm, end float64) {
	for i := range events {
		e, until := &events[i], samples[len(samples)-1].At
		if i+1 < len(events) {
			until = events[i+1].At
		}
		lagging, failing := false, false
		for j := 1; j < len(samples); j++ {
			before, s := samples[j-1], samples[j]
			if s.At < e.At {
				continue
			}
			if s.At > until && !lagging && !failing {
				break
			}
			if lagging = s.Lag > calm && (lagging || s.At <= until); lagging {
				e.LagBack, e.Overtaken = s.At-e.At, e.Overtaken || s.At > until
			}
			bad := s.At <= end && (s.Acked == before.Acked || s.Failed > before.Failed)
			if failing = bad && (failing || s.At <= until); failing {
				e.WritesBack = s.At - e.At
			}
			if s.At <= until {
				e.PeakLag = max(e.PeakLag, s.Lag)
			}
		}
	}
}
