//go:build !linux

package up

import (
	"os/exec"
	"strconv"
	"strings"
)

// startTime tells one user of a process id from the next.
func startTime(pid int) string { return ps(pid, "lstart=") }

// worksIn tells whether a process runs one of the programs on the directory.
// The command lines of both servers begin with the program and name the
// directory: see their arguments.
func worksIn(pid int, dir string, programs []string) bool {
	line := ps(pid, "command=")
	if !strings.Contains(line, dir) {
		return false
	}
	for _, program := range programs {
		if strings.Contains(line, program) {
			return true
		}
	}
	return false
}

// workers needs a look at every process' working directory, which only Linux
// gives cheaply. The files that name a process id have to do.
func workers(string, []string) []int { return nil }

func ps(pid int, column string) string {
	out, err := exec.Command("ps", "-o", column, "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
