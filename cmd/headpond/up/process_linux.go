package up

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// startTime tells one user of a process id from the next: clock ticks since
// boot, field 22 of /proc/<pid>/stat (proc(5)). The second field may hold
// spaces and brackets, so counting begins after its closing one.
func startTime(pid int) string {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// worksIn tells whether a process runs one of the programs in the directory or
// below it. Its working directory is asked, not its command line, because both
// Redis and PostgreSQL overwrite the latter. A zombie has none, and is none.
func worksIn(pid int, dir string, programs []string) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
	if err != nil || (cwd != dir && !strings.HasPrefix(cwd, dir+"/")) {
		return false
	}
	name, err := os.ReadFile(filepath.Join(proc, "comm"))
	if err != nil {
		return false
	}
	for _, program := range programs {
		if strings.TrimSpace(string(name)) == program {
			return true
		}
	}
	return false
}

// workers lists the processes for which worksIn holds, parents or not.
func workers(dir string, programs []string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && worksIn(pid, dir, programs) {
			pids = append(pids, pid)
		}
	}
	return pids
}
