package main_test

import (
	"cmp"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// guard is a line that keeps a race from being lost. Taken out, the tests that
// are named must go red.
type guard struct {
	name, file, line, instead string
	in, tests                 string
}

var guards = []guard{
	{"a fill needs its lease", "buffer/scripts/fill.lua", `if there ~= found then return 0 end`, ``,
		"./api", "TestTwoFills|TestExpiryDuringLoad|TestNoCache"},
	{"a fill needs that something is there", "buffer/scripts/fill.lua", `if not there then return 0 end`, `if not there then there = found end`,
		"./api", "TestReloadAgainstWrite|TestSlowLoad"},
	{"a row that is loaded again replaces that row alone", "buffer/scripts/fill.lua", `elseif string.sub(there, 1, #found) ~= found then`, `elseif false then`,
		"./api", "TestReloadAgainstWrite|TestEndDuringLoad|TestRefreshAgainstWrite"},
	{"a write takes the lease away", "buffer/scripts/append.lua", `if n > 0 then redis.call('UNLINK', unpack(drop)) end`, ``,
		"./api", "TestSlowLoad|TestNegative|TestReloadAgainstWrite"},
	{"an invalidation takes the lease away", "buffer/scripts/outdate.lua", `elseif kind ~= '' then`, `elseif kind ~= '' and kind ~= 'L' then`,
		"./api", "TestInvalidateAgainstFill"},
	{"a lease for who wants it fresh", "buffer/scripts/read.lua", `elseif kind == 'L' and not string.find(ARGV[6], 't', 1, true) then`, `elseif kind == 'L' then`,
		"./api", "TestNoCache"},
	{"one loads a row again", "buffer/scripts/read.lua", `token, 'NX', 'PX', ARGV[3]) then`, `token, 'PX', ARGV[3]) then`,
		"./api", "TestRefreshAhead"},
	{"one of all processes loads a row", "buffer/scripts/read.lua", `elseif kind == 'L' and not string.find(ARGV[6], 't', 1, true) then`, `elseif false then`,
		"./api", "TestStampede"},
	{"the index comes before clean rows", "buffer/look.go", `if empty := m[4] == nil && (m[0] == nil || m[0] == m[1]) && (m[2] == nil || m[2] == "0"); !empty {`, `if false {`,
		"./buffer", "TestIndexBeforeCleanRow"},
	{"a marker stands before the COMMIT", "buffer/scripts/hold.lua", `redis.call('SET', ARGV[1] .. 'row:' .. ARGV[i], 'W' .. ARGV[3], 'PX', ARGV[4])`, ``,
		"./api", "TestDirectWritersAgree|TestFillAgainstDirectWrite"},
	{"no lease under a marker", "buffer/scripts/read.lua", `elseif kind == 'W' then`, `elseif false then`,
		"./api", "TestFillAgainstDirectWrite|TestDirectCommitUnknown"},
	{"a later writer's marker stays", "buffer/scripts/release.lua", `if redis.call('GET', row) == 'W' .. ARGV[2] then`, `if true then`,
		"./api", "TestDirectReleaseInOrder"},
	{"rows are locked before they are changed", "flusher/postgres/direct.go", `" for update of t"`, `""`,
		"./api", "TestDirectWritersAgree"},
	{"a marker stays while the COMMIT may come", "api/direct.go", `if !errors.Is(err, buffer.ErrCommitUnknown) {`, `if true {`,
		"./api", "TestDirectCommitUnknown"},
	{"what waits in the log is flushed before a direct write", "buffer/scripts/hold.lua", `if tonumber(m[3]) > tonumber(m[4] or '0') then return {'B', m[3]} end`, ``,
		"./api", "TestStrategySwitchUnderLoad"},
	{"appends follow the strategy in force", "buffer/scripts/append.lua", `if m[10] and m[10] ~= '' and m[10] ~= 'write-behind' and not back then return {'X', m[10]} end`, ``,
		"./api", "TestStrategySwitchUnderLoad"},
	{"direct writes follow the strategy in force", "buffer/scripts/hold.lua", `if strategy ~= ARGV[2] then return {'X', strategy} end`, ``,
		"./api", "TestStrategySwitchUnderLoad"},
	{"an answer of a direct write that writes nothing counts what waits in the log", "api/direct.go", `if g.sure {`, `if true {`,
		"./api", "TestSwitchWithRowsThatWait"},
	{"a request does not go together with itself", "api/direct_queue.go", `if names[idem.key] {`, `if false && names[idem.key] {`,
		"./api", "TestDirectIdempotent"},
	{"what processes of another database acknowledged does not count", "buffer/tally.go", `if !slices.Contains(dead, process) {`, `if false {`,
		"./buffer", "TestLossIsCounted"},
	{"a call that was sent twice is applied once", "buffer/scripts/append.lua", `if tonumber(last) == number then return {'K', e, first, '1'} end`, ``,
		"./buffer", "TestReplyLost|TestRedisStops|TestConnectionsBreak"},
	{"a call older than the last one is not applied", "buffer/scripts/append.lua", `if tonumber(last) > number then return {'S'} end`, ``,
		"./buffer", "TestProducerSentTwice"},
	{"a cap that was reached refuses until the backlog has fallen", "buffer/caps.go", `case value <= resume:`, `default:`,
		"./buffer", "TestCapsDoNotFlap|TestMemoryCap"},
	{"a request that is refused may have been done before", "buffer/pressure.go", `if c.full == nil || len(c.marks) > 0 {`, `if c.full == nil {`,
		"./api", "TestBacklogResumes"},
	{"Redis is never full", "buffer/refusal.go", `case p.memory.shut:`, `case false:`,
		"./api", "TestRedisNearlyFull"},
	{"what can be evicted does not count", "buffer/memory.go", `worst.Pinned = min(worst.fixed+pinned/int64(max(nodes, 1)), worst.Used)`, `_ = pinned`,
		"./api", "TestRedisNearlyFull"},
	{"a body comes at its rate", "api/slow.go", `_ = p.control.SetReadDeadline(due)`, `_ = due`,
		"./api", "TestSlowBodyIsTaken"},
}

// TestGuards takes guards out, one after the other, and runs the tests that must
// notice. A race is given three chances to be lost. HEADPOND_LONG=1 only: it
// builds the tests anew each time.
func TestGuards(t *testing.T) {
	if os.Getenv("HEADPOND_LONG") == "" {
		for _, g := range everyGuard() { // the lines are there
			g.broken(t)
		}
		return
	}
	takeGuardsOut(t, regexp.MustCompile(""))
}

func takeGuardsOut(t *testing.T, which *regexp.Regexp) {
	for _, g := range everyGuard() {
		if !which.MatchString(g.name) {
			continue
		}
		t.Run(g.name, func(t *testing.T) {
			by := g.noticed(t)
			results.mu.Lock()
			defer results.mu.Unlock()
			if results.guards == nil {
				results.guards = make(map[string]string)
			}
			results.guards[g.name] = by
		})
	}
}

func everyGuard() []lossGuard {
	all := slices.Clone(lossGuards)
	for _, g := range guards {
		all = append(all, lossGuard{guard: g})
	}
	return all
}

// noticed gives the test that went red without the guard.
func (g lossGuard) noticed(t *testing.T) (by string) {
	t.Helper()
	overlay := g.broken(t)
	limit := "90s"
	if g.chaos != "" {
		limit = "4m"
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout="+limit, "-run", g.tests, g.in)
		cmd.Dir = filepath.Join("..", "..")
		// In the environment it reaches the program that a test builds, too.
		cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false -overlay="+overlay, "HEADPOND_CHAOS="+g.chaos, "HEADPOND_NOT_YET=1", "HEADPOND_LONG=", "HEADPOND_RUNS=")
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			red := regexp.MustCompile(`(?:--- FAIL: |running tests:\s+)(\w+)`).FindStringSubmatch(string(out)) // one that hangs has noticed too
			require.NotNil(t, red, "it fails for another reason: %s", out)
			if g.chaos != "" {
				return red[1] + ", " + g.chaos
			}
			return red[1]
		}
		require.NotContains(t, string(out), "no tests to run")
	}
	t.Error("nothing goes red without it")
	return ""
}

// broken gives an overlay (go help build) in which the guard is missing.
func (g lossGuard) broken(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	replaced := make(map[string]string) // file: copy
	for i, e := range append([]guard{g.guard}, g.too...) {
		file, err := filepath.Abs(filepath.Join("..", "..", e.file))
		require.NoError(t, err)
		from := cmp.Or(replaced[file], file)
		text, err := os.ReadFile(from)
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(text), e.line), "%s: the line of the guard is in %s", g.name, e.file)
		replaced[file] = filepath.Join(dir, strconv.Itoa(i)+filepath.Base(e.file))
		require.NoError(t, os.WriteFile(replaced[file], []byte(strings.Replace(string(text), e.line, e.instead, 1)), 0o600))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	return filepath.Join(dir, "overlay.json")
}
