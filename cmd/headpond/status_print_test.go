package main

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func someStatus() *statusView {
	rate, lag := 0.998, 180.0
	v := &statusView{Verdict: "stalled", Why: "Nothing was committed for 12 s.", Oldest: 12345, Tables: map[string]tableView{
		"orders": {Verdict: "stalled", Why: "Nothing was committed for 12 s.", Oldest: 12345, Ledger: ledgerView{Pending: 1234567}},
		"events": {Verdict: "ok", Ledger: ledgerView{Committed: 9876543210}},
		"held":   {Verdict: "behind", Paused: &struct{}{}},
		"sales.\x1b[2Jlong" + strings.Repeat("g", 60): {Verdict: "ok"},
	}}
	x := v.Tables["events"]
	x.Lag.P50, x.Lag.P99, x.Rates.In, x.Rates.Out = &lag, &lag, 12345, 12345
	x.Cache = &struct {
		HitRate   *float64 `json:"hit_rate"`
		Effective *float64 `json:"effective_latency_ms"`
	}{&rate, &rate}
	v.Tables["events"] = x
	return v
}

var escape = regexp.MustCompile("\x1b\\[[0-9;]*m")

// TestStatusFits: whatever the width, no line of the table is longer, and each table
// keeps its verdict, its age and the beginning of its name.
func TestStatusFits(t *testing.T) {
	for _, width := range []int{40, 60, 80, 100, 140, 400} {
		for _, color := range []bool{false, true} {
			var b strings.Builder
			s := screen{width: width, color: color}
			s.table(&b, someStatus().Tables)
			require.Equal(t, color, strings.Contains(b.String(), "\x1b["), "colours")
			text := escape.ReplaceAllString(b.String(), "")
			lines := strings.Split(strings.TrimSpace(text), "\n")
			require.Len(t, lines, 5)
			for i, line := range lines {
				require.LessOrEqual(t, utf8.RuneCountInString(line), width, "%q", line)
				require.NotContains(t, line, "\x1b", "a name is obeyed")
				require.Contains(t, line, []string{"verdict", "ok", "paused", "stalled", "ok"}[i])
			}
			require.Contains(t, lines[3], "orders")
			require.Contains(t, lines[3], "12.345s")
			require.Equal(t, width == 400, strings.Contains(lines[0], "committed"))
		}
	}
}

// TestStatusColors: the word is there without colour, and NO_COLOR leaves no escapes.
func TestStatusColors(t *testing.T) {
	var plainly, colored strings.Builder
	ages := []int64{0, 400, 12345}
	require.NoError(t, screen{width: 100}.print(&plainly, someStatus(), ages))
	require.NoError(t, screen{width: 100, color: true}.print(&colored, someStatus(), ages))
	require.NotContains(t, plainly.String(), "\x1b")
	require.True(t, strings.HasPrefix(plainly.String(), "STALLED: Nothing was committed for 12 s.\naccepted 0 = "), plainly.String())
	require.Contains(t, plainly.String(), "\noldest unflushed write: 12.345s  ▁▁█\n")
	require.Equal(t, plainly.String(), escape.ReplaceAllString(colored.String(), ""))
	require.True(t, strings.HasPrefix(colored.String(), "\x1b[1;31mSTALLED\x1b[0m"))
	require.Contains(t, plainly.String(), "\norders: Nothing was committed for 12 s.\n")
	require.Equal(t, "▁▁▁", sparkline([]int64{0, 1, -5}), "a short wait is no mountain")
}
