package api

import (
	"context"
	"sync"
	"time"
)

// letterCounts is how many dead letters each table has now; nil when Postgres
// cannot be asked.
func (s *Server) letterCounts(ctx context.Context) map[string]int64 {
	if s.letters == nil {
		return nil
	}
	began := time.Now()
	counts, err := s.letters.Counts(ctx)
	if err != nil {
		return nil
	}
	s.tally.mu.Lock()
	defer s.tally.mu.Unlock()
	s.tally.counts, s.tally.at, s.tally.took = counts, began, time.Since(began)
	return counts
}

// letterTally is what letterCounts gave last. Safe for concurrent use.
type letterTally struct {
	mu     sync.Mutex // guards what follows
	counts map[string]int64
	at     time.Time
	took   time.Duration
}

// countShare bounds what of the time may go into counting a million dead letters
// for those who are told every second.
const countShare = 20

// recentLetterCounts is letterCounts, or what it was a little while ago when to count
// takes long.
func (s *Server) recentLetterCounts(ctx context.Context) map[string]int64 {
	s.tally.mu.Lock()
	recent := s.tally.counts
	if time.Since(s.tally.at) > countShare*s.tally.took {
		recent = nil
	}
	s.tally.mu.Unlock()
	if recent != nil {
		return recent
	}
	return s.letterCounts(ctx)
}
