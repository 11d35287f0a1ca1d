//go:build unix

package main

import "syscall"

// mostFiles is how many files the process may have open.
func mostFiles() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(uint64(l.Cur), 1<<20)) //nolint:gosec,unconvert // of another type elsewhere
}
