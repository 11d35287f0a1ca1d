package flusher

import "time"

// A batch is never smaller than minBatch rows (below, the cost of a
// transaction dominates) nor larger than maxBatch (memory, lock time).
const (
	minBatch   = 500
	firstBatch = 10_000
	maxBatch   = 50_000
	batchBytes = 8 << 20
)

// sizer chooses how many rows a batch may have, so that flushing it takes
// about half of the table's target lag: the other half is waiting.
type sizer struct {
	target time.Duration
	rows   int
}

func newSizer(target time.Duration) sizer { return sizer{target: target, rows: firstBatch} }

// flushed adapts to a batch of so many rows that took so long. Small batches
// say nothing about the rate.
func (s *sizer) flushed(rows int, took time.Duration) {
	if rows < s.rows/4 || took <= 0 || s.target <= 0 {
		return
	}
	fit := int(float64(rows) * float64(s.target/2) / float64(took))
	// Half way towards it: one slow fsync should not shrink the batches.
	s.rows = min(max((s.rows+fit)/2, minBatch), maxBatch)
}

// failed adapts to a batch that was not committed: a smaller one needs less time,
// memory and locks.
func (s *sizer) failed() { s.rows = max(s.rows/2, minBatch) }
