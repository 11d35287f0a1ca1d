package main_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
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
	{"the index comes before clean rows", "buffer/look.go", `if empty := (m[0] == nil || m[0] == m[1]) && (m[2] == nil || m[2] == "0"); !empty {`, `if false {`,
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
	{"appends follow the strategy in force", "buffer/scripts/append.lua", `if m[10] and m[10] ~= '' and m[10] ~= 'write-behind' then return {'X', m[10]} end`, ``,
		"./api", "TestStrategySwitchUnderLoad"},
	{"direct writes follow the strategy in force", "buffer/scripts/hold.lua", `if strategy ~= ARGV[2] then return {'X', strategy} end`, ``,
		"./api", "TestStrategySwitchUnderLoad"},
	{"a request does not go together with itself", "api/direct_queue.go", `if names[idem.key] {`, `if false && names[idem.key] {`,
		"./api", "TestDirectIdempotent"},
}

// TestGuards takes guards out, one after the other, and runs the tests that must
// notice. A race is given three chances to be lost. HEADPOND_LONG=1 only: it
// builds the tests anew each time.
func TestGuards(t *testing.T) {
	if os.Getenv("HEADPOND_LONG") == "" {
		for _, g := range guards { // the lines are there
			g.broken(t)
		}
		return
	}
	for _, g := range guards {
		t.Run(g.name, func(t *testing.T) {
			overlay := g.broken(t)
			for range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout=2m", "-overlay", overlay, "-run", g.tests, g.in)
				cmd.Dir = filepath.Join("..", "..")
				out, err := cmd.CombinedOutput()
				cancel()
				if err != nil {
					// Some wait for ever for what the guard would have let happen.
					require.Regexp(t, "--- FAIL|panic: test timed out after", string(out), "it fails for another reason")
					return
				}
				require.NotContains(t, string(out), "no tests to run")
			}
			t.Error("nothing goes red without it")
		})
	}
}

// broken gives an overlay (go help build) in which the guard is missing.
func (g guard) broken(t *testing.T) string {
	t.Helper()
	file, err := filepath.Abs(filepath.Join("..", "..", g.file))
	require.NoError(t, err)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(text), g.line), "%s: the line of the guard is in %s", g.name, g.file)
	dir := t.TempDir()
	replaced := filepath.Join(dir, filepath.Base(g.file))
	require.NoError(t, os.WriteFile(replaced, []byte(strings.Replace(string(text), g.line, g.instead, 1)), 0o600))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: replaced}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	return filepath.Join(dir, "overlay.json")
}
