//go:build !linux

package up

import "syscall"

// dieWithUs can do nothing here: only Linux has a parent-death signal. A server
// that outlives us is ended by the next start on its directory.
func dieWithUs(*syscall.SysProcAttr, syscall.Signal) {}
