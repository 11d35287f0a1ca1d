//go:build linux

package main_test

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestFaults makes faults happen, takes guards out, and writes what came of it to
// HEADPOND_FAULTS: make faults. HEADPOND_CHAOS and HEADPOND_GUARDS (a regular
// expression) choose; of all others the page keeps what it says.
func TestFaults(t *testing.T) {
	file := os.Getenv("HEADPOND_FAULTS")
	if file == "" {
		t.Skip("HEADPOND_FAULTS=FAULTS.md writes the page: make faults")
	}
	file = filepath.Join("..", "..", file)
	program := buildProgram(t)
	chosen := strings.Split(cmp.Or(os.Getenv("HEADPOND_CHAOS"), "all"), ",")
	if n := slices.Index(chosen, soakFault.id); n >= 0 || chosen[0] == "all" {
		chosen = slices.DeleteFunc(chosen, func(id string) bool { return id == soakFault.id })
		d, err := time.ParseDuration(cmp.Or(os.Getenv("HEADPOND_SOAK"), "5m"))
		require.NoError(t, err)
		t.Run("soak", func(t *testing.T) { soak(t, program, d) })
	}
	runChaos(t, program, chosen)
	which := regexp.MustCompile(os.Getenv("HEADPOND_GUARDS"))
	t.Run("guards", func(t *testing.T) { takeGuardsOut(t, which) })
	if t.Failed() {
		t.Log("something went wrong: the page is written all the same, and says so")
	}
	old, err := os.ReadFile(file)
	if err != nil {
		old = nil // the first one
	}
	require.NoError(t, os.WriteFile(file, faultsPage(string(old)), 0o644)) //nolint:gosec // a document
}

const pageHead = `# Faults

What breaks, and what was lost. Every row was made to happen to the real program (two APIs, two flushers, Redis, PostgreSQL) under a load of single rows, batches, PUTs and increments, each write unique. Afterwards the history of all clients is compared with Postgres, the dead letters, Redis and what the APIs serve: ` + "`chaos_check_test.go`" + `. A run in which too little was acknowledged before, during or after the fault fails.

Written by ` + "`make faults`" + ` on %s: %s, %d cores, %s, %s. Do not edit. A row is of the last run in which it happened. One fault again, with the same choices: ` + "`make chaos FAULTS=F22 HEADPOND_SEED=…`" + `.

Modes: S one Redis with fsync before each answer; R with a replica; E fsync each second. Rows are counted; *lost* were acknowledged and are gone, *reported* is what Headpond says it lost, *twice* were applied more than once, *unknown* had no answer that says (each of them is there once or not at all). *Recovery* is the time from the end of the fault until a write got from the API into Postgres, the slowest run.

| fault | what | how | mode | runs | acknowledged | lost | reported | twice | unknown | recovery | promise |
| --- | --- | --- | --- | --: | --: | --: | --: | --: | --: | --: | --- |
`

// faultsPage takes the lines of what did not happen now from the old page.
func faultsPage(old string) []byte {
	results.mu.Lock()
	defer results.mu.Unlock()
	lines := make(map[string]string) // of the old page, by their first cell
	for line := range strings.Lines(old) {
		if cell, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " |"); ok && strings.HasPrefix(line, "| ") {
			lines[cell] = strings.TrimSpace(line)
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, pageHead, time.Now().UTC().Format("2006-01-02"), runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU(),
		firstLine("redis-server", "--version"), firstLine("postgres", "--version"))
	var missing []*fault
	for _, f := range append(slices.Clone(faults), soakFault) {
		switch runs, line := results.runs[f.id], lines[f.id]; {
		case len(runs) > 0:
			fmt.Fprintln(&b, f.line(runs))
		case line != "" && notYet[f.id] == "":
			fmt.Fprintln(&b, line)
		default:
			missing = append(missing, f)
		}
	}
	fmt.Fprint(&b, "\n## Not made to happen\n\n| fault | why |\n| --- | --- |\n")
	for _, f := range missing {
		why := "**it was not run**"
		if missing := notYet[f.id]; missing != "" {
			why = "the promise is not kept yet: " + missing
		} else if f.without != nil {
			why = cmp.Or(f.without(), why)
		}
		fmt.Fprintf(&b, "| %s %s | %s |\n", f.id, f.what, why)
	}
	for _, e := range elsewhere {
		fmt.Fprintf(&b, "| %s | %s |\n", e.id, e.why)
	}
	fmt.Fprint(&b, "\n## Guards taken out\n\nEach guard was taken out of the program in turn; the tests must notice.\n\n| guard | where | noticed by |\n| --- | --- | --- |\n")
	for _, g := range everyGuard() {
		by, now := results.guards[g.name]
		if line := lines[g.name]; !now && line != "" {
			fmt.Fprintln(&b, line)
			continue
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s |\n", g.name, g.file, cmp.Or(by, "**nothing**"))
	}
	return b.Bytes()
}

// line of the table.
func (f *fault) line(runs []*faultRun) string {
	var sum faultRun
	for _, r := range runs {
		sum.Acked += r.Acked
		sum.Lost += r.Lost
		sum.Reported += r.Reported
		sum.Twice += r.Twice
		sum.Unknown += r.Unknown
		sum.Recovery = max(sum.Recovery, r.Recovery)
		sum.Problems = append(sum.Problems, r.Problems...)
	}
	promise, how := f.promise(), f.how
	if f == soakFault {
		how = "for " + runs[0].Took.Round(time.Second).String() + ": " + how
	}
	if len(sum.Problems) > 0 {
		promise = "**broken**: " + promise
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %d | %d | %d | %d | %d | %d | %.1f s | %s |",
		f.id, f.what, how, f.mode, len(runs), sum.Acked, sum.Lost, sum.Reported, sum.Twice, sum.Unknown, sum.Recovery.Seconds(), promise)
}

func firstLine(program string, args ...string) string {
	out, err := exec.Command(program, args...).Output() //nolint:noctx // it ends at once
	if err != nil {
		return program
	}
	line, _, _ := strings.Cut(string(out), "\n")
	line, _, _ = strings.Cut(line, " sha=")
	return strings.TrimSpace(line)
}

// TestFaultsPage: FAULTS.md has a row for each fault and each guard there is, and
// for no others: make faults.
func TestFaultsPage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "FAULTS.md"))
	require.NoError(t, err)
	page := string(text)
	var want []string
	for _, f := range append(slices.Clone(faults), soakFault) {
		want = append(want, f.id)
	}
	for _, e := range elsewhere {
		want = append(want, e.id)
	}
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^\| (F\d+[a-z]?)\b`).FindAllStringSubmatch(page, -1) {
		got = append(got, m[1])
	}
	require.ElementsMatch(t, want, got, "FAULTS.md is old: make faults")
	for _, g := range everyGuard() {
		require.Contains(t, page, "| "+g.name+" |", "FAULTS.md is old: make faults")
	}
	require.NotContains(t, page, "**", "FAULTS.md tells of something broken")
}

// TestEveryFaultIsThere: F1 to F52, each made to happen or explained; none twice.
func TestEveryFaultIsThere(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	number := regexp.MustCompile(`^F\d+`)
	numbers := make(map[string]bool)
	add := func(id string) {
		require.False(t, seen[id], "%s is there twice", id)
		seen[id] = true
		numbers[number.FindString(id)] = true
	}
	for _, f := range append(slices.Clone(faults), soakFault) {
		add(f.id)
	}
	for _, e := range elsewhere {
		add(e.id)
	}
	for n := 1; n <= 52; n++ {
		require.True(t, numbers[fmt.Sprint("F", n)], "F%d is missing", n)
	}
	for id := range notYet {
		require.True(t, seen[id], "%s", id)
	}
}
