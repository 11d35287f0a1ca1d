package main_test

import (
	"sync"
	"time"
)

// results of this test binary, for the page FAULTS.md.
var results struct {
	mu     sync.Mutex // guards the rest
	runs   map[string][]*faultRun
	guards map[string]string // and the test that noticed
}

// faultRun is what came of one run of a fault.
type faultRun struct {
	verdict

	Seed     uint64
	Recovery time.Duration
	Took     time.Duration
	Answers  map[string]int
}

// verdict of the checker over one history.
type verdict struct {
	Acked, Unknown int64 // rows
	Resolved       int   // requests of unknown outcome whose repeat told
	Lost, Twice    int64
	Reported       int64 // rows that Headpond says were lost
	Problems       []string
}
