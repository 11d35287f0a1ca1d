package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func canReadProc() bool {
	_, err := os.Stat("/proc/self/stat")
	return err == nil
}

// procStat is what proc_pid_stat(5) says of a process.
type procStat struct {
	parent   int
	own      time.Duration // CPU time
	children time.Duration // of children that have ended
}

// The kernel counts for programs in ticks, a hundred a second.
const procTick = 10 * time.Millisecond

func readStat(pid int) (s procStat, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, fmt.Errorf("read CPU time: %w", err)
	}
	// The name, in brackets, may hold anything: count from behind it.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 15 {
		return s, fmt.Errorf("read CPU time: %q", text)
	}
	n := func(i int) time.Duration {
		v, _ := strconv.ParseInt(fields[i], 10, 64) // the kernel prints numbers here
		return time.Duration(v)
	}
	return procStat{parent: int(n(1)), own: (n(11) + n(12)) * procTick, children: (n(13) + n(14)) * procTick}, nil
}

// processMemory is in MiB.
type processMemory struct{ resident, peak float64 }

func memoryOf(pid int) (m processMemory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, fmt.Errorf("read memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kib, _ := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
		switch name {
		case "VmRSS":
			m.resident = kib / 1024
		case "VmHWM":
			m.peak = kib / 1024
		}
	}
	return m, nil
}
