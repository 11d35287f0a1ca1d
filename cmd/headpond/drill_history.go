package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// drillToken names a write. No two writes of a run have the same.
type drillToken struct {
	Client int64 `json:"client"`
	N      int64 `json:"n"`
}

func (t drillToken) String() string { return fmt.Sprintf("%d-%d", t.Client, t.N) }

// drillKind is an operation; drillInsert adds a row to a table without a key,
// drillIncrement counts, the others are of rows with a key.
type drillKind string

const (
	drillInsert    drillKind = "insert"
	drillIncrement drillKind = "increment"
	drillPut       drillKind = "put"
	drillPatch     drillKind = "patch"
	drillDelete    drillKind = "delete"
)

var drillKinds = []drillKind{drillInsert, drillIncrement, drillPut, drillPatch, drillDelete}

// drillOutcome is what the client knows of a write.
type drillOutcome string

const (
	drillOK      drillOutcome = "ok"      // acknowledged: it must be there, once
	drillNo      drillOutcome = "no"      // certainly not applied: it must not be there
	drillUnknown drillOutcome = "unknown" // it may be there, once
)

// drillWrite is one write and what its client knows of it. A request of many
// rows is as many writes.
type drillWrite struct {
	drillToken

	Kind    drillKind    `json:"kind"`
	Key     int64        `json:"key,omitempty"`    // of the row or counter
	Amount  int64        `json:"amount,omitempty"` // what an increment adds, beside one to its count
	Poison  bool         `json:"poison,omitempty"` // Postgres will refuse it: it must become a dead letter
	Keyed   bool         `json:"keyed,omitempty"`  // sent under an Idempotency-Key
	Outcome drillOutcome `json:"outcome"`
	Doubted bool         `json:"doubted,omitempty"` // an attempt of it was not answered
	Answer  string       `json:"answer,omitempty"`  // the code of the last one that was no success

	// Of the receipt. Several rows have one receipt: then Seq is 0.
	Partition int    `json:"partition"`
	Epoch     uint64 `json:"epoch,omitempty"`
	Seq       uint64 `json:"seq,omitempty"`

	// Since the start of the load.
	Began time.Duration `json:"began"`
	Ended time.Duration `json:"ended"`
}

// drillHistory is all writes of a run. Safe for concurrent use; who reads
// writes does so when nobody adds any more.
type drillHistory struct {
	mu     sync.Mutex // guards writes while the load runs
	writes []*drillWrite
}

func (h *drillHistory) add(writes ...*drillWrite) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes = append(h.writes, writes...)
}

// save writes a line of JSON for each write.
func (h *drillHistory) save(w io.Writer) error {
	lines := json.NewEncoder(w)
	for _, x := range h.writes {
		if err := lines.Encode(x); err != nil {
			return fmt.Errorf("save history: %w", err)
		}
	}
	return nil
}

// drillCounts is the history in figures.
type drillCounts struct {
	Acknowledged int64               `json:"acknowledged"`
	Refused      int64               `json:"refused"`
	Unknown      int64               `json:"unknown"`  // and stayed so
	Resolved     int64               `json:"resolved"` // was unknown, until a repeat under the same Idempotency-Key told
	Poison       int64               `json:"poison"`   // of the acknowledged
	Kinds        map[drillKind]int64 `json:"acknowledged_by_operation"`
}

func (h *drillHistory) counts() drillCounts {
	c := drillCounts{Kinds: make(map[drillKind]int64)}
	for _, w := range h.writes {
		switch w.Outcome {
		case drillOK:
			c.Acknowledged++
			c.Kinds[w.Kind]++
			if w.Poison {
				c.Poison++
			}
		case drillNo:
			c.Refused++
		default:
			c.Unknown++
		}
		if w.Doubted && w.Outcome != drillUnknown {
			c.Resolved++
		}
	}
	return c
}

// drillTraffic is how many writes were acknowledged before the first fault,
// between it and the end of the last, and after that.
type drillTraffic struct {
	Before  int64 `json:"before_the_faults"`
	Between int64 `json:"between_the_faults"`
	After   int64 `json:"after_the_faults"`
}

func (h *drillHistory) traffic(first, last time.Duration) (t drillTraffic) {
	for _, w := range h.writes {
		switch {
		case w.Outcome != drillOK:
		case w.Ended < first:
			t.Before++
		case w.Began > last:
			t.After++
		default:
			t.Between++
		}
	}
	return t
}

// missing says where there was too little traffic for the run to mean anything.
func (t drillTraffic) missing(counts drillCounts, least int64) (out []string) {
	for _, w := range []struct {
		when string
		n    int64
	}{{"before the first fault", t.Before}, {"between the faults", t.Between}, {"after the last fault", t.After}} {
		if w.n < least {
			out = append(out, fmt.Sprintf("too little traffic %s: %d writes were acknowledged, and %d are the least", w.when, w.n, least))
		}
	}
	for _, k := range drillKinds {
		if counts.Kinds[k] == 0 {
			out = append(out, fmt.Sprintf("too little traffic: no %s was acknowledged", k))
		}
	}
	return out
}
