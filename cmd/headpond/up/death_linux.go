package up

import "syscall"

// dieWithUs makes the kernel signal the child when we die. Go sets it after it
// has changed the user, because the change clears it; the programs are not
// set-user-id, so exec keeps it.
func dieWithUs(attr *syscall.SysProcAttr, s syscall.Signal) { attr.Pdeathsig = s }
