package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// extent is how much a run does.
type extent struct {
	rounds     int
	warm       time.Duration // before each timed load
	load       time.Duration // closed loop, for the peak
	paced      time.Duration // open loop, for the latencies
	bulkRows   int           // in e, f and g
	hotOps     int           // in k
	putRows    int           // in l
	memoryRows int           // in h
	settle     time.Duration // before idle CPU and idle memory are taken
	idle       time.Duration // over which CPU is measured
	backlog    int           // rows that wait in j
}

var (
	fullExtent = extent{
		rounds: 3, warm: 500 * time.Millisecond, load: 4 * time.Second, paced: 3 * time.Second, bulkRows: 500_000, hotOps: 1_000_000, putRows: 200_000,
		memoryRows: 200_000, settle: 5 * time.Second, idle: 10 * time.Second, backlog: 2_000_000,
	}
	quickExtent = extent{
		rounds: 2, warm: 200 * time.Millisecond, load: 700 * time.Millisecond, paced: 500 * time.Millisecond, bulkRows: 100_000, hotOps: 100_000, putRows: 50_000,
		memoryRows: 50_000, settle: 2 * time.Second, idle: 4 * time.Second, backlog: 200_000,
	}
)

// plan lists the steps. What is compared lies side by side, and every second
// round runs backwards: a machine that gets slower or faster with time then
// favours nobody.
func (b *bench) plan(only map[string]bool) []step {
	var steps []step
	for r := range b.rounds {
		round := b.roundSteps(only)
		if r%2 == 1 {
			slices.Reverse(round)
		}
		for _, s := range round {
			s.round = r
			s.title = fmt.Sprintf("round %d of %d: %s", r+1, b.rounds, s.title)
			steps = append(steps, s)
		}
	}
	once := []struct {
		section, title string
		run            func(context.Context) error
	}{
		{"h", "(h) Redis memory per row", b.memoryPerRow},
		{"i", "(i) idle CPU with 100 tables", b.idleCPU},
		{"j", "(j) resident memory with a backlog", b.residentMemory},
	}
	for _, s := range once {
		if only[s.section] {
			steps = append(steps, step{title: s.title, run: s.run})
		}
	}
	return steps
}

func (b *bench) roundSteps(only map[string]bool) (steps []step) {
	add := func(section, title string, run func(context.Context) error) {
		if only[section] {
			steps = append(steps, step{title: "(" + section + ") " + title, run: run})
		}
	}
	single := func(conns int) {
		add("d", fmt.Sprintf("Headpond, single rows, %d connections", conns), func(ctx context.Context) error { return b.headpondSingle(ctx, conns) })
	}
	single(1)
	single(16)
	add("a", "Echo that only parses", b.parseOnly)
	single(64)
	add("b", "an INSERT per POST", b.insertEach)
	add("c", "HSET and XADD per POST", b.naiveBehind)
	single(256)
	add("o", "Echo that answers GETs with a constant row", b.constantRow)
	add("n", "Headpond, GETs of rows in the cache", b.readHits)
	add("p", "a SELECT per GET", b.selectEach)
	add("p", "SELECTs by a pool alone", b.selectPool)
	add("m", "Headpond, single PUTs", b.singlePuts)
	add("k", "an UPDATE per POST, hot rows", b.hotUpdates)
	add("k", "Headpond, patches and increments of hot rows", b.hotChanges)
	add("l", "COPY and INSERT ON CONFLICT by one session", b.upsertRows)
	add("l", "Headpond, PUTs through _bulk", b.bulkPuts)
	add("e", "Headpond, NDJSON, cache: none", func(ctx context.Context) error { return b.headpondBulk(ctx, benchLogTable, "e_none") })
	add("f", "COPY by one session", b.copyRows)
	add("e", "Headpond, NDJSON, every row in the index", func(ctx context.Context) error { return b.headpondBulk(ctx, benchTable, "e_index") })
	add("q", "Headpond, NDJSON, a table with a constraint", func(ctx context.Context) error { return b.poison(ctx, "q_clean", false) })
	add("q", "Headpond, NDJSON, one row in 10,000 refused by Postgres", func(ctx context.Context) error { return b.poison(ctx, "q", true) })
	add("g", "the flusher alone, on a full log", b.drainLog)
	return steps
}
