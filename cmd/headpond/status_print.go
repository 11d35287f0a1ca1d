package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// screen is how a status is shown.
type screen struct {
	width int  // characters; 0: any
	color bool // and sparklines
}

// screenOf a file: no terminal has colours and a width only if somebody says so.
func screenOf(f *os.File) screen {
	fd := int(f.Fd()) //nolint:gosec // descriptors are small
	if !term.IsTerminal(fd) {
		return screen{}
	}
	s := screen{color: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	if width, _, err := term.GetSize(fd); err == nil {
		s.width = width
	}
	return s
}

// colors of verdicts. The word is always there too.
var colors = map[string]string{"ok": "32", "behind": "33", "stalled": "31", "blocked": "31", "paused": "36"}

func (s screen) paint(text, verdict string) string {
	if code := colors[verdict]; s.color && code != "" {
		return "\x1b[1;" + code + "m" + text + "\x1b[0m"
	}
	return text
}

// print shows a status; oldest are the ages of the oldest unflushed write, a second
// apart, the last one now.
func (s screen) print(w io.Writer, v *statusView, oldest []int64) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", s.paint(strings.ToUpper(v.Verdict), v.Verdict), plain(v.Why))
	l := v.Ledger
	fmt.Fprintf(&b, "accepted %d = committed %d + pending %d + dead-lettered %d + coalesced %d + lost %d\n",
		l.Accepted, l.Committed, l.Pending, l.Dead, l.Coalesced, l.Lost)
	fmt.Fprintf(&b, "oldest unflushed write: %s", ms(float64(v.Oldest)))
	if len(oldest) > 1 {
		room := 60
		if s.width > 0 {
			room = min(room, s.width-34)
		}
		if room > 4 {
			fmt.Fprintf(&b, "  %s", sparkline(oldest[max(len(oldest)-room, 0):]))
		}
	}
	b.WriteByte('\n')
	if v.Letters > 0 {
		fmt.Fprintf(&b, "dead letters now: %d; headpond dead-letters ls\n", v.Letters)
	}
	fmt.Fprintf(&b, "durability of an answer: %s; flush workers: %d\n", v.Level, len(v.Workers))
	for _, warning := range v.Warn {
		fmt.Fprintf(&b, "warning: %s\n", plain(warning))
	}
	b.WriteByte('\n')
	s.table(&b, v.Tables)
	for _, name := range slices.Sorted(maps.Keys(v.Tables)) {
		if x := v.Tables[name]; x.Verdict != "" && x.Verdict != "ok" {
			fmt.Fprintf(&b, "%s: %s\n", plain(name), plain(x.Why))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// statusColumns of the table. Where it is too wide those with the highest rank go first.
var statusColumns = []struct {
	title string
	rank  int
	text  func(name string, x *tableView) string
}{
	{"table", 0, func(name string, _ *tableView) string { return plain(name) }},
	{"verdict", 1, func(_ string, x *tableView) string { return x.state() }},
	{"backlog", 3, func(_ string, x *tableView) string { return fmt.Sprint(x.Ledger.Pending) }},
	{"oldest", 2, func(_ string, x *tableView) string { return ms(float64(x.Oldest)) }},
	{"lag p50", 8, func(_ string, x *tableView) string { return lagText(x.Lag.P50) }},
	{"lag p99", 5, func(_ string, x *tableView) string { return lagText(x.Lag.P99) }},
	{"in/s", 6, func(_ string, x *tableView) string { return fmt.Sprintf("%.0f", x.Rates.In) }},
	{"out/s", 7, func(_ string, x *tableView) string { return fmt.Sprintf("%.0f", x.Rates.Out) }},
	{"committed", 9, func(_ string, x *tableView) string { return fmt.Sprint(x.Ledger.Committed) }},
	{"dead", 4, func(_ string, x *tableView) string { return fmt.Sprint(x.Ledger.Dead) }},
	{"hits", 10, func(_ string, x *tableView) string { return x.hits() }},
	{"read", 11, func(_ string, x *tableView) string { return x.read() }},
}

// table lays the columns out, as many as there is room for. A name that is too long
// for the rest is cut.
func (s screen) table(b *strings.Builder, tables map[string]tableView) {
	names := slices.Sorted(maps.Keys(tables))
	cells := make([][]string, len(statusColumns))
	widths := make([]int, len(statusColumns))
	for c, column := range statusColumns {
		cells[c] = append(cells[c], column.title)
		for _, name := range names {
			x := tables[name]
			cells[c] = append(cells[c], column.text(name, &x))
		}
		for _, text := range cells[c] {
			widths[c] = max(widths[c], utf8.RuneCountInString(text))
		}
	}
	shown := s.fit(widths)
	for row := range len(names) + 1 {
		var line strings.Builder
		for i, c := range shown {
			text := cut(cells[c][row], widths[c])
			room := strings.Repeat(" ", widths[c]-utf8.RuneCountInString(text))
			if row > 0 && c == 1 {
				text = s.paint(text, text)
			}
			if i > 0 {
				line.WriteString("  ")
			}
			if c == 0 {
				line.WriteString(text + room)
			} else {
				line.WriteString(room + text)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// fit chooses columns, and may narrow that of the names.
func (s screen) fit(widths []int) (shown []int) {
	total := -2
	for c := range widths {
		shown = append(shown, c)
		total += widths[c] + 2
	}
	for s.width > 0 && total > s.width {
		at := 0
		for i, c := range shown {
			if statusColumns[c].rank > statusColumns[shown[at]].rank {
				at = i
			}
		}
		if statusColumns[shown[at]].rank <= 2 { // what is left is the point of it: the name gives way
			widths[0] = max(widths[0]-(total-s.width), 8)
			return shown
		}
		total -= widths[shown[at]] + 2
		shown = slices.Delete(shown, at, at+1)
	}
	return shown
}

func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:max(width-1, 0)]) + "…"
}

// state of a table: its verdict, or that it is paused.
func (x *tableView) state() string {
	if x.Paused != nil {
		return "paused"
	}
	return or(x.Verdict, "-")
}

func (x *tableView) hits() string {
	if x.Cache == nil || x.Cache.HitRate == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100**x.Cache.HitRate)
}

// read is the effective latency of reads.
func (x *tableView) read() string {
	if x.Cache == nil || x.Cache.Effective == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f ms", *x.Cache.Effective)
}

var sparks = []rune("▁▂▃▄▅▆▇█")

// sparkline of ages in milliseconds: 0 is the lowest, the highest of them the top, which
// is never less than a second.
func sparkline(ages []int64) string {
	top := max(slices.Max(ages), 1000)
	out := make([]rune, len(ages))
	for i, age := range ages {
		out[i] = sparks[int(max(age, 0)*int64(len(sparks)-1)/top)]
	}
	return string(out)
}

func ms(v float64) string {
	return time.Duration(v * float64(time.Millisecond)).Round(time.Millisecond).String()
}

func lagText(v *float64) string {
	if v == nil {
		return "-"
	}
	return ms(*v)
}
