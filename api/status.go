package api

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
)

// status is what GET /admin/v1/status answers. Times are milliseconds.
type status struct {
	Verdict      string                 `json:"verdict"` // ok, behind, stalled, blocked
	Why          string                 `json:"why"`
	At           time.Time              `json:"at"`
	PID          int                    `json:"pid"`
	Durability   string                 `json:"durability"`
	Backlog      backlog                `json:"backlog"`
	OldestMS     int64                  `json:"oldest_unflushed_ms"`
	Ledger       ledgerLine             `json:"ledger"`
	Letters      int64                  `json:"dead_letters"` // that there are now
	Tables       map[string]tableStatus `json:"tables"`
	FlushWorkers []flushWorker          `json:"flush_workers"`
	Breaker      breaker                `json:"breaker"`
	Redis        health                 `json:"redis"`
	Postgres     health                 `json:"postgres"`
	Warnings     []string               `json:"warnings"`
	Recoveries   []buffer.Event         `json:"recoveries"` // in which rows were missing, newest first
	Pressure     pressureStatus         `json:"pressure"`
	LocalStack   any                    `json:"local_stack,omitempty"`
}

type backlog struct {
	Rows  int64  `json:"rows"`
	Bytes uint64 `json:"bytes"`
}

type health struct {
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

type flushWorker struct {
	Process string    `json:"process"`
	PID     int       `json:"pid"`
	State   string    `json:"state"`
	Table   string    `json:"table,omitempty"`
	Since   time.Time `json:"since"`
}

type tableStatus struct {
	Backlog     backlog         `json:"backlog"`
	OldestMS    int64           `json:"oldest_unflushed_ms"`
	Lag         lagStatus       `json:"durability_lag_ms"`
	Rates       rateStatus      `json:"rates"`
	TimeToEmpty *float64        `json:"time_to_empty_s"` // null when it is not known
	Coalescing  float64         `json:"coalescing_ratio"`
	Ledger      ledgerLine      `json:"ledger"`
	Letters     int64           `json:"dead_letters"` // that there are now; the ledger counts those that ever were
	TargetLagMS int64           `json:"target_lag_ms"`
	BatchRows   int             `json:"batch_rows"`
	Halted      bool            `json:"halted"`
	Error       string          `json:"error,omitempty"`
	Partitions  []partitionLine `json:"partitions"`
	Strategy    string          `json:"strategy,omitempty"`
	Cache       *CacheStats     `json:"cache,omitempty"` // of this process
	Limit       capStatus       `json:"backlog_limit"`
	Resume      capStatus       `json:"backlog_resume"`
	Refusing    *refusingStatus `json:"refusing,omitempty"`
	Down        *int64          `json:"postgres_may_be_down_for_ms"` // see pressureStatus
}

type lagStatus struct {
	P50  *float64 `json:"p50"` // null when nothing was committed in the last minute
	P99  *float64 `json:"p99"`
	P999 *float64 `json:"p999"`
}

type rateStatus struct {
	In  float64 `json:"in_rows_per_s"`
	Out float64 `json:"out_rows_per_s"`
}

// getStatus is GET /admin/v1/status.
func (s *Server) getStatus(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), 5*time.Second)
	defer cancel()
	return c.JSON(http.StatusOK, s.status(ctx))
}

func (s *Server) status(ctx context.Context) *status {
	now := time.Now()
	st := &status{
		At: now.UTC(), PID: os.Getpid(), Tables: map[string]tableStatus{}, FlushWorkers: []flushWorker{},
		Redis: health{OK: true}, Postgres: health{OK: true}, Warnings: []string{}, Recoveries: []buffer.Event{},
	}
	if s.local != nil {
		st.LocalStack = s.local()
	}
	d := s.buffer.Durability()
	st.Durability = d.Level
	st.Warnings = append(st.Warnings, buffer.Sentences(s.safety(d))...)
	if s.warnings != nil {
		st.Warnings = append(st.Warnings, s.warnings()...)
	}
	if err := s.edge.Ping(ctx); err != nil {
		st.Postgres = health{Detail: "Postgres does not answer. Writes are accepted and wait in Redis; reads come from the cache alone."}
	}
	if events, err := s.ledger.Events(ctx, mostEvents); err == nil && events != nil {
		st.Recoveries = events
	}
	lines, err := s.readLedger(ctx)
	if err != nil {
		st.Redis = health{Detail: "Redis does not answer. No write can be accepted."}
	}
	flushers, _ := s.buffer.Flushers(ctx) // none when Redis is away
	for _, f := range flushers {
		for _, w := range f.Workers {
			st.FlushWorkers = append(st.FlushWorkers, flushWorker{Process: f.ID, PID: f.PID, State: w.State, Table: w.Table, Since: w.Since})
		}
	}
	st.Breaker = breakerOf(flushers)
	letters := s.letterCounts(ctx)
	st.Warnings = append(st.Warnings, replicationWarnings(flushers)...)
	for name, l := range lines {
		t := s.tableStatus(ctx, name, l, flushers, now)
		t.Letters = letters[name]
		st.Tables[name] = t
		st.Letters += t.Letters
		st.Backlog.Rows += t.Backlog.Rows
		st.Backlog.Bytes += t.Backlog.Bytes
		st.OldestMS = max(st.OldestMS, t.OldestMS)
		st.Ledger.add(t.Ledger)
	}
	s.pressed(st)
	st.Warnings = append(st.Warnings, s.gapWarnings()...)
	if st.Ledger.Lost > 0 {
		st.Warnings = append(st.Warnings, lossWarning(st.Ledger.Lost))
	}
	st.Verdict, st.Why = verdict(st)
	return st
}

const mostEvents = 20

func lossWarning(rows int64) string {
	return fmt.Sprintf("%d rows that were acknowledged are lost: Redis lost them, and the process that had accepted them was gone too. When and where: select * from headpond.epochs where lost > 0.", rows)
}

func (s *Server) tableStatus(ctx context.Context, name string, lines []partitionLine, flushers []buffer.FlusherStats, now time.Time) tableStatus {
	t := tableStatus{Partitions: lines, Ledger: totals(lines)}
	for i := range lines {
		l := &lines[i]
		t.Backlog.Rows += l.BacklogRows
		t.Backlog.Bytes += l.BacklogSize
	}
	t.OldestMS = s.oldest(ctx, lines, now).Milliseconds()
	if sv, err := s.served(name); err == nil {
		t.TargetLagMS = sv.Lag.Milliseconds()
	}
	t.Rates.In, t.Rates.Out = s.books.rates(name, t.Ledger, now)
	if left := t.Rates.Out - t.Rates.In; t.Backlog.Rows == 0 {
		t.TimeToEmpty = new(float64)
	} else if left > 0 {
		seconds := math.Round(float64(t.Backlog.Rows)/left*10) / 10
		t.TimeToEmpty = &seconds
	}
	if done := t.Ledger.Committed + t.Ledger.Coalesced; done > 0 {
		t.Coalescing = float64(t.Ledger.Coalesced) / float64(done)
	}
	for _, f := range flushers {
		t.flushed(f.Tables[name])
	}
	if sv, err := s.served(name); err == nil {
		c := s.reads.of(name).snapshot()
		t.Strategy, t.Cache = sv.Target.Strategy(), &c
	}
	return t
}

// flushed adds what one flusher process says of the table. Percentiles of
// several processes cannot be added: the worst is shown.
func (t *tableStatus) flushed(f buffer.FlushStats) {
	if f.LagRows > 0 {
		t.Lag.P50, t.Lag.P99, t.Lag.P999 = most(t.Lag.P50, f.LagP50), most(t.Lag.P99, f.LagP99), most(t.Lag.P999, f.LagP999)
	}
	t.BatchRows = max(t.BatchRows, f.BatchRows)
	if f.Error != "" {
		t.Error, t.Halted = f.Error, t.Halted || f.Halted
	}
}

func most(a *float64, b float64) *float64 {
	if a == nil || *a < b {
		return &b
	}
	return a
}

// verdict says in one word and one sentence how things are.
func verdict(st *status) (word, why string) {
	switch {
	case !st.Redis.OK:
		return "blocked", st.Redis.Detail
	case !st.Postgres.OK:
		return "blocked", st.Postgres.Detail
	case st.Breaker.all:
		return "blocked", st.Breaker.sentence(st.At)
	}
	for _, name := range sortedKeys(st.Tables) {
		if t := st.Tables[name]; t.Halted {
			return "blocked", fmt.Sprintf("Table %s is halted: %s", name, t.Error)
		}
	}
	for _, name := range sortedKeys(st.Tables) {
		if r := st.Tables[name].Refusing; r != nil {
			return "blocked", "Writes are refused. " + r.Detail
		}
	}
	word, why = "ok", "Everything accepted is committed within its target lag."
	for _, name := range sortedKeys(st.Tables) {
		t := st.Tables[name]
		if t.Backlog.Rows == 0 || t.OldestMS <= 2*max(t.TargetLagMS, 250) {
			continue
		}
		age := (time.Duration(t.OldestMS) * time.Millisecond).Round(100 * time.Millisecond)
		if t.Rates.Out == 0 && t.OldestMS > 5000 {
			hint := "no flusher reports; start one with headpond serve --role flusher."
			if len(st.FlushWorkers) > 0 {
				hint = "flushers run; " + t.Error
			}
			return "stalled", fmt.Sprintf("Table %s has %d rows waiting, the oldest for %s, and nothing is being committed: %s", name, t.Backlog.Rows, age, hint)
		}
		word = "behind"
		why = fmt.Sprintf("Table %s is %s behind with %d rows waiting; %.0f rows/s come in and %.0f go out.", name, age, t.Backlog.Rows, t.Rates.In, t.Rates.Out)
	}
	return word, why
}
