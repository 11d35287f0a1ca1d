//go:build !unix

package main

// mostFiles is not bounded here.
func mostFiles() int { return 1 << 20 }
