package main_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// TestUpKilled: `headpond up` is killed in the midst of a load. It leaves no
// process, starts again on its data, and has all that it has acknowledged.
func TestUpKilled(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	r, seed := seeded(t)
	dir := uptest.Dir(t)
	h := startUp(t, program, "--split", "--data-dir", dir)
	h.create(t, loadTables, loadNames...)
	const rows = 40_000
	l := newLoad(t, rows, func() string { return h.api })
	l.start(seed)
	l.allow(rows)
	await(t, "rows", l.ackedAtLeast(rows/8+r.Int64N(rows/2)))
	left := h.family(t)
	require.Greater(t, len(left), 4, "Redis, the flusher, the postmaster and its children")
	h.kill()
	await(t, "every process to be gone", func() bool {
		for pid, program := range left {
			if comm(pid) == program {
				return false
			}
		}
		return true
	})
	l.wait()
	l.only("202", "no answer", "not connected")

	h = startUp(t, program, "--data-dir", dir)
	h.settled(t)
	l.arrived(t, h.database)
	a, err := h.post("load_keyed", typeJSON, line("load_keyed", 0, 1<<40))
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, a.code, "%s", a.body)
	h.settled(t)
}

// family is every process of the stack but `up` itself: pid and program.
func (h *headpond) family(t *testing.T) map[int]string {
	t.Helper()
	all := make(map[int]string)
	for _, pid := range h.status(t).Stack {
		all[pid] = comm(pid)
		for _, kid := range childrenOf(t, pid) {
			all[kid] = comm(kid)
		}
	}
	delete(all, h.pid())
	return all
}

// comm is the name of a process, empty when it has ended: a zombie that nobody
// has waited for yet is nothing that runs.
func comm(pid int) string {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if _, err := os.Readlink(filepath.Join(proc, "exe")); err != nil {
		return ""
	}
	name, err := os.ReadFile(filepath.Join(proc, "comm"))
	if err != nil {
		return ""
	}
	return string(name)
}
