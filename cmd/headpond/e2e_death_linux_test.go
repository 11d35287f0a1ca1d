package main_test

import "syscall"

// dieWithUs makes the kernel end a child when this test binary dies, however
// it dies: a test that runs into its timeout leaves nothing behind.
func dieWithUs(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
