//go:build !linux

package main_test

import "syscall"

// dieWithUs does nothing: only Linux has a parent-death signal.
func dieWithUs(*syscall.SysProcAttr) {}
