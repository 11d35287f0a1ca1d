package main

import (
	"math/rand/v2"
	"time"
)

// drillFaultKind is what is done to a process.
type drillFaultKind string

const (
	killFlusher  drillFaultKind = "kill -9 flusher"
	killAPI      drillFaultKind = "kill -9 API"
	killRedis    drillFaultKind = "kill -9 Redis"
	killPostgres drillFaultKind = "kill -9 PostgreSQL"
	stopFlusher  drillFaultKind = "SIGSTOP flushers"
	stopRedis    drillFaultKind = "SIGSTOP Redis"
	stopPostgres drillFaultKind = "SIGSTOP PostgreSQL"
	fillBacklog  drillFaultKind = "PostgreSQL away until the backlog is full"
)

// drillFaults are all kinds: how often each happens in a long and in a short
// drill, and how much time it gets, in units.
var drillFaultKinds = []struct {
	kind        drillFaultKind
	long, short int
	units       float64
}{
	{killFlusher, 12, 2, 1},
	{killAPI, 2, 1, 1},
	{killRedis, 2, 1, 1.5},
	{killPostgres, 2, 1, 1.5},
	{stopFlusher, 1, 0, 1.5},
	{stopRedis, 1, 0, 1.5},
	{stopPostgres, 1, 0, 1.5},
	{fillBacklog, 1, 0, 4},
}

// drillFault is one fault that is to come.
type drillFault struct {
	kind    drillFaultKind
	at      time.Duration // since the start of the load
	lasts   time.Duration // of a SIGSTOP
	process int           // which of the processes
	all     bool          // all of them at once
}

const (
	longDrill  = 40 * time.Second // from here on a drill has every kind of fault
	quietShare = 0.08             // of the time, before the first fault and after the last
	mostStop   = 3 * time.Second
)

// planDrill draws the faults of a drill. The same seed gives the same plan. A
// drill of more than two minutes has more of each.
func planDrill(seed uint64, lasts time.Duration) (plan []drillFault) {
	r := rand.New(rand.NewPCG(seed, 1<<32)) //nolint:gosec // no secret
	times := max(1, int(lasts/(2*time.Minute)))
	var units []float64
	sum := 0.0
	for _, k := range drillFaultKinds {
		n := k.long * times
		if lasts < longDrill {
			n = k.short
		}
		for range n {
			plan = append(plan, drillFault{kind: k.kind, process: r.IntN(drillProcesses), all: k.kind == killFlusher && r.IntN(2) == 0})
			units = append(units, k.units)
			sum += k.units
		}
	}
	r.Shuffle(len(plan), func(i, j int) {
		plan[i], plan[j] = plan[j], plan[i]
		units[i], units[j] = units[j], units[i]
	})
	at, unit := quietShare*lasts.Seconds(), (1-2*quietShare)*lasts.Seconds()/sum
	for i := range plan {
		slot := units[i] * unit
		plan[i].at = seconds(at + slot*0.2*r.Float64())
		plan[i].lasts = min(seconds(slot*0.6), mostStop)
		at += slot
	}
	return plan
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
