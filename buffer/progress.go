package buffer

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/headpond/headpond/buffer/table"
)

// Progress is a partition's watermark in Postgres with its counters, in rows:
// Watermark.Seq = Committed + Coalesced + Dead + Lost.
type Progress struct {
	Place                            Place
	Watermark                        table.ID
	Committed, Coalesced, Dead, Lost int64
}

// Event is that Redis or Postgres went back.
type Event struct {
	At        time.Time `json:"at"`
	Table     string    `json:"table"`
	Partition int       `json:"partition"`
	Epoch     uint64    `json:"epoch"`
	Why       string    `json:"why"`      // see Opening
	Replayed  int64     `json:"put_back"` // rows that processes gave back
	Lost      int64     `json:"lost"`
	From      uint64    `json:"lost_from_seq,omitempty"`
	To        uint64    `json:"lost_to_seq,omitempty"`
	Open      bool      `json:"open"` // false while processes are waited for
}

// DeadLetter is a row that Postgres refused.
type DeadLetter struct {
	ID       table.ID
	SQLState string
	Message  string
	Lies     table.Letter // under which name: of its last replay, when that was refused too; zero when it was discarded
}

// Replayed is what was written for a row that Postgres had refused.
type Replayed struct {
	As table.Letter // zero when it was written directly
	At time.Time
}

// FlusherStats is what a flusher process says of itself, once a second.
type FlusherStats struct {
	ID      string                `json:"id"`
	PID     int                   `json:"pid"`
	At      time.Time             `json:"at"`
	Workers []WorkerStats         `json:"workers"`
	Tables  map[string]FlushStats `json:"tables"`
	Breaker Breaker               `json:"breaker"`

	LastCommit time.Time `json:"last_commit_at,omitzero"`
	LastError  string    `json:"last_error,omitempty"` // of the last batch that failed; empty when the one after it did not

	// Unreplicated is since when no commit of this process was confirmed by a
	// synchronous standby that should be there; zero: they are.
	Unreplicated time.Time `json:"unreplicated_since,omitzero"`
}

// Breaker of a flusher process: open, nothing is flushed until Next, because
// what is wrong is wrong for all tables; half open, one batch is tried.
type Breaker struct {
	State string    `json:"state"`                // closed, open, half-open
	Since time.Time `json:"since,omitzero"`       // when the first of the failures was that opened it
	Why   string    `json:"why,omitempty"`        // the last of them
	Next  time.Time `json:"next_try_at,omitzero"` // when it is half open
}

// States of a Breaker.
const (
	BreakerClosed   = "closed"
	BreakerOpen     = "open"
	BreakerHalfOpen = "half-open"
)

// WorkerStats is what one worker does now.
type WorkerStats struct {
	State      string    `json:"state"` // idle, reading, copying, merging, committing, settling
	Table      string    `json:"table,omitempty"`
	Partitions []int     `json:"partitions,omitempty"` // that it took
	Rows       int       `json:"rows,omitempty"`       // of the batch, once they are read
	Since      time.Time `json:"since"`                // of the state
}

// FlushStats is how the flushes of one table went in one process. Lags are in
// milliseconds, over the rows committed in the last 30 to 60 seconds; counts are since
// the start of the process.
type FlushStats struct {
	LagP50    float64 `json:"lag_p50_ms"`
	LagP99    float64 `json:"lag_p99_ms"`
	LagP999   float64 `json:"lag_p999_ms"`
	LagRows   int64   `json:"lag_rows"`
	NowP50    float64 `json:"lag_now_p50_ms"` // over the rows committed in the last two to four seconds
	NowP99    float64 `json:"lag_now_p99_ms"`
	NowRows   int64   `json:"lag_now_rows"`
	Batches   int64   `json:"batches"`
	Rows      int64   `json:"rows"`
	Coalesced int64   `json:"coalesced"` // of Rows: merged into another before they were written
	Dead      int64   `json:"dead"`
	Failures  int64   `json:"failures"`
	// Retries is Failures by what was wrong: unreachable, contention, schema …
	Retries    map[string]int64 `json:"retries,omitempty"`
	BatchRows  int              `json:"batch_rows"`  // of the last batch
	BatchLimit int              `json:"batch_limit"` // most rows of the next
	FlushMS    float64          `json:"flush_ms"`    // of the last batch
	Halted     bool             `json:"halted,omitempty"`
	Error      string           `json:"error,omitempty"`
	ErrorSince time.Time        `json:"error_since,omitzero"`
}

const (
	keyFlushers  = "hp:flushers"
	flusherFresh = 15 * time.Second // a flusher that was silent for longer is not running
	flusherGone  = 10 * time.Minute
)

// Report tells all API processes how this flusher process is doing.
func (b *Buffer) Report(ctx context.Context, s FlusherStats) error {
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("report flusher: %w", err)
	}
	return unavailable("report flusher", b.rdb.HSet(ctx, keyFlushers, s.ID, text).Err())
}

// Unreport takes a flusher that stopped off the list.
func (b *Buffer) Unreport(ctx context.Context, id string) error {
	return unavailable("report flusher", b.rdb.HDel(ctx, keyFlushers, id).Err())
}

// Flushers lists the flusher processes that reported lately.
func (b *Buffer) Flushers(ctx context.Context) ([]FlusherStats, error) {
	all, err := b.rdb.HGetAll(ctx, keyFlushers).Result()
	if err != nil {
		return nil, unavailable("list flushers", err)
	}
	var out []FlusherStats
	for id, text := range all {
		var s FlusherStats
		if err := json.Unmarshal([]byte(text), &s); err != nil || time.Since(s.At) > flusherGone {
			b.rdb.HDel(ctx, keyFlushers, id)
			continue
		}
		if time.Since(s.At) < flusherFresh {
			out = append(out, s)
		}
	}
	return out, nil
}
