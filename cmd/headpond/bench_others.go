package main

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// benchOthers measures what other programs use while a step runs: a figure
// taken on a machine that was busy elsewhere must be seen to be one.
type benchOthers struct {
	start     time.Time
	all, ours time.Duration
	known     bool
}

func watchOthers() *benchOthers {
	o := &benchOthers{start: time.Now()}
	o.all, o.ours, o.known = cpuOfAllAndOurs()
	return o
}

// share in percent of all cores; known is false where there is no /proc.
func (o *benchOthers) share() (percent float64, known bool) {
	all, ours, known := cpuOfAllAndOurs()
	foreign := (all - o.all) - (ours - o.ours)
	machine := time.Since(o.start) * time.Duration(runtime.NumCPU())
	return max(100*foreign.Seconds()/machine.Seconds(), 0), known && o.known
}

// cpuOfAllAndOurs gives the CPU time of the whole machine, what its host took
// away included, and that of this process with all below it.
func cpuOfAllAndOurs() (all, ours time.Duration, known bool) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, false
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line) {
		// cpu user nice system idle iowait irq softirq steal: all but the idle two.
		if i >= 1 && i <= 8 && i != 4 && i != 5 {
			n, _ := strconv.ParseInt(field, 10, 64)
			all += time.Duration(n) * procTick
		}
	}
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return 0, 0, false
	}
	stats := make(map[int]procStat)
	for _, d := range dirs {
		if pid, err := strconv.Atoi(d.Name()); err == nil {
			if s, err := readStat(pid); err == nil { // else it has just ended
				stats[pid] = s
			}
		}
	}
	for pid, s := range stats {
		if descends(stats, pid, os.Getpid()) {
			ours += s.own + s.children
		}
	}
	return all, ours, true
}

func descends(stats map[int]procStat, pid, from int) bool {
	for ; pid > 1; pid = stats[pid].parent {
		if pid == from {
			return true
		}
	}
	return false
}
