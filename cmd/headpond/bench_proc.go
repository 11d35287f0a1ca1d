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

// cpuTime that a process has used, as proc_pid_stat(5) gives it: in ticks, of
// which Linux shows every program a hundred a second.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	// The name, in brackets, may hold anything: count from behind it.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("read CPU time: %q", text)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("read CPU time: %q", text)
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
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
