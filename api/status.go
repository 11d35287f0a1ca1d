package api

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
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
	TablesAt     time.Time              `json:"tables_at"` // when what tables and ledger say was read; long ago while Redis is away
	ReadOnly     bool                   `json:"read_only"`
	Flushers     []flusherLine          `json:"flushers"`
	Storage      []storageLine          `json:"storage"`
	Pools        pools                  `json:"pools"`
	Events       []happening            `json:"events"` // newest first

	lost   string // what became of the flusher that was there a moment ago; empty when there is one, or was none
	unread string // why the catalog was not read yet; empty when it was
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
	Process    string    `json:"process"`
	PID        int       `json:"pid"`
	State      string    `json:"state"`
	Table      string    `json:"table,omitempty"`
	Partitions []int     `json:"partitions"`
	Rows       int       `json:"rows"`
	Since      time.Time `json:"since"`
}

// flusherLine is a flusher process.
type flusherLine struct {
	Process    string     `json:"process"`
	PID        int        `json:"pid"`
	At         time.Time  `json:"at"` // of its last report
	LastCommit *time.Time `json:"last_commit_at"`
	LastError  string     `json:"last_error,omitempty"`
	Breaker    string     `json:"breaker"`
}

type tableStatus struct {
	Verdict     string          `json:"verdict"`
	Why         string          `json:"why"`
	Paused      *buffer.Pause   `json:"paused"`
	Saved       int64           `json:"rows_saved"` // by coalescing, in the last 20 seconds
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

// statusTime is how long a caller waits for each of those that are asked.
const statusTime = 2 * time.Second

func (s *Server) status(ctx context.Context) *status {
	r := s.survey(ctx, statusTime)
	r.flushers = s.diary.alive(r.flushers)
	return s.statusOf(ctx, r, s.letterCounts)
}

// statusOf makes the status of a reading, and asks Postgres for the rest.
func (s *Server) statusOf(ctx context.Context, r *survey, letterCounts func(context.Context) map[string]int64) *status {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	st := &status{
		At: r.at.UTC(), TablesAt: r.at.UTC(), PID: os.Getpid(), Tables: map[string]tableStatus{}, FlushWorkers: []flushWorker{}, Flushers: []flusherLine{},
		Redis: health{OK: true}, Postgres: health{OK: true}, Warnings: []string{}, Recoveries: []buffer.Event{},
		ReadOnly: s.readOnly, Events: s.diary.lately(r.at), lost: s.diary.lost(), Pools: s.poolsNow(),
		unread: s.whyUnread(),
	}
	if s.local != nil {
		st.LocalStack = s.local()
	}
	d := s.buffer.Durability()
	st.Durability = d.Level
	safety := s.safety(d)
	st.Warnings, st.Storage = append(st.Warnings, buffer.Sentences(safety)...), storageLines(safety)
	if s.warnings != nil {
		st.Warnings = append(st.Warnings, s.warnings()...)
	}
	if r.postgres != nil {
		trouble := s.postgresTrouble(ctx)
		st.Postgres = health{OK: trouble == "", Detail: trouble}
	}
	if r.redis != nil {
		st.Redis = health{Detail: "Redis does not answer. No write can be accepted."}
		last, at := s.moments.lines()
		r.lines = aged(last, r.at.Sub(at))
		if st.TablesAt = at.UTC(); at.IsZero() {
			st.TablesAt = st.At
		}
	}
	var letters map[string]int64
	if st.Postgres.OK {
		letters = letterCounts(ctx)
		if events, err := s.ledger.Events(ctx, mostEvents); err == nil && events != nil {
			st.Recoveries = events
		}
	}
	st.flushedBy(r.flushers)
	s.addTables(st, r, letters)
	s.pressed(st)
	st.tellFate()
	st.Warnings = append(st.Warnings, s.gapWarnings()...)
	if st.Ledger.Lost > 0 {
		st.Warnings = append(st.Warnings, lossWarning(st.Ledger.Lost))
	}
	s.judgeAll(st)
	return st
}

// flushedBy takes the flusher processes.
func (st *status) flushedBy(flushers []buffer.FlusherStats) {
	slices.SortFunc(flushers, func(a, b buffer.FlusherStats) int { return strings.Compare(a.ID, b.ID) })
	for i := range flushers {
		f := &flushers[i]
		line := flusherLine{Process: f.ID, PID: f.PID, At: f.At.UTC(), LastError: f.LastError, Breaker: f.Breaker.State}
		if !f.LastCommit.IsZero() {
			at := f.LastCommit.UTC()
			line.LastCommit = &at
		}
		st.Flushers = append(st.Flushers, line)
		for _, w := range f.Workers {
			st.FlushWorkers = append(st.FlushWorkers, flushWorker{
				Process: f.ID, PID: f.PID, State: w.State, Table: w.Table, Partitions: append([]int{}, w.Partitions...), Rows: w.Rows, Since: w.Since.UTC(),
			})
		}
	}
	st.Breaker = breakerOf(flushers)
	st.Warnings = append(st.Warnings, replicationWarnings(flushers)...)
}

// addTables takes the tables, and adds them up.
func (s *Server) addTables(st *status, r *survey, letters map[string]int64) {
	s.moments.partitionRates(r.lines, r.at)
	for name, l := range r.lines {
		t := s.tableStatus(name, l, r)
		t.Letters = letters[name]
		st.Tables[name] = t
		st.Letters += t.Letters
		st.Backlog.Rows += t.Backlog.Rows
		st.Backlog.Bytes += t.Backlog.Bytes
		st.OldestMS = max(st.OldestMS, t.OldestMS)
		st.Ledger.add(t.Ledger)
	}
}

// judgeAll gives every table its verdict, and then the whole.
func (s *Server) judgeAll(st *status) {
	before := s.moments.within(st.At, verdictWindow+historyStep)
	for name, t := range st.Tables {
		t.Verdict, t.Why = s.judgeTable(name, &t, st, window(before, name, st.At))
		st.Tables[name] = t
	}
	st.Verdict, st.Why = verdict(st)
}

const mostEvents = 20

func lossWarning(rows int64) string {
	return fmt.Sprintf("%d rows that were acknowledged are lost: Redis lost them, and the process that had accepted them was gone too. When and where: select * from headpond.epochs where lost > 0.", rows)
}

func (s *Server) tableStatus(name string, lines []partitionLine, r *survey) tableStatus {
	t := tableStatus{Partitions: lines, Ledger: totals(lines)}
	if p, paused := r.pauses[name]; paused {
		t.Paused = &p
	}
	for i := range lines {
		l := &lines[i]
		t.Backlog.Rows += l.BacklogRows
		t.Backlog.Bytes += l.BacklogSize
	}
	t.OldestMS = oldest(lines)
	if sv, err := s.served(name); err == nil {
		t.TargetLagMS = sv.Lag.Milliseconds()
	}
	t.Rates.In, t.Rates.Out = s.books.rates(name, t.Ledger, r.at)
	t.Saved = s.books.saved(name, t.Ledger)
	if left := t.Rates.Out - t.Rates.In; t.Backlog.Rows == 0 {
		t.TimeToEmpty = new(float64)
	} else if left > 0 {
		seconds := math.Round(float64(t.Backlog.Rows)/left*10) / 10
		t.TimeToEmpty = &seconds
	}
	if done := t.Ledger.Committed + t.Ledger.Coalesced; done > 0 {
		t.Coalescing = float64(t.Ledger.Coalesced) / float64(done)
	}
	for i := range r.flushers {
		t.flushed(r.flushers[i].Tables[name])
	}
	for i := range lines {
		lines[i].Halted = lines[i].Halted || t.Halted
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
