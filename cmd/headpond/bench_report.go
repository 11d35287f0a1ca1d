package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// benchFigures are the lines of the first table.
var benchFigures = []struct{ key, title, unit string }{
	{"a64", "(a) Echo that only parses, 64 connections", "/s"},
	{"b64", "(b) an INSERT per POST, pool of 64, 64 connections", "/s"},
	{"c64", "(c) HSET + XADD per POST, 64 connections", "/s"},
	{"d1", "(d) Headpond, single rows, 1 connection", "/s"},
	{"d16", "(d) Headpond, single rows, 16 connections", "/s"},
	{"d64", "(d) Headpond, single rows, 64 connections", "/s"},
	{"d256", "(d) Headpond, single rows, 256 connections", "/s"},
	{"m64", "(m) Headpond, single PUTs, 64 connections", "/s"},
	{"n64", "(n) Headpond, GETs of rows in the cache, 64 connections", "/s"},
	{"o64", "(o) Echo that answers with a constant row, 64 connections", "/s"},
	{"p64", "(p) a SELECT per GET, pool of 64, 64 connections", "/s"},
	{"p_pool", "    the same SELECT without HTTP, pool of 64", "/s"},
	{"k", "(k) Headpond, changes of 1,000 rows, to committed", "/s"},
	{"k_update", "    an UPDATE per POST, pool of 64", "/s"},
	{"l", "(l) Headpond, PUTs through _bulk, to committed", "rows/s"},
	{"l_upsert", "    COPY + INSERT ON CONFLICT by one session", "rows/s"},
	{"e_none", "(e) NDJSON to committed, cache: none", "rows/s"},
	{"e_none_accepted", "    to accepted", "rows/s"},
	{"e_index", "(e) NDJSON to committed, all in the index", "rows/s"},
	{"e_index_accepted", "    to accepted", "rows/s"},
	{"f", "(f) COPY by one session", "rows/s"},
	{"g", "(g) the flusher alone, on a full log", "rows/s"},
	{"q", "(q) NDJSON, one row in 10,000 refused by Postgres", "rows/s"},
	{"q_clean", "    the same, none refused", "rows/s"},
	{"h_bulk", "(h) Redis memory per row, NDJSON of 1,000", "B"},
	{"h_single", "(h) Redis memory per row, single POSTs", "B"},
	{"i", "(i) idle CPU, 100 tables × 8 partitions", "% of a core"},
	{"j_idle", "(j) resident memory, idle", "MiB"},
	{"j_backlog", "(j) resident memory while the backlog waits", "MiB"},
	{"j_cpu", "(j) CPU while the backlog waits", "% of a core"},
	{"j_peak", "(j) resident memory, highest, filling and draining", "MiB"},
	{"t_off", "single POSTs, 64 connections, OTEL_SDK_DISABLED", "/s"},
	{"t_one", "    with metrics, and 1 % of the requests traced", "/s"},
	{"t_all", "    with metrics, and every request traced", "/s"},
	{"t_pages", "an open dashboard, 8 tables × 8 partitions", "% of a core"},
	{"t_status_small", "the status under load, 1,000 rows waiting", "ms"},
	{"t_status_large", "    with 5,000,000 rows waiting (--quick: 200,000)", "ms"},
}

// benchFigure is one figure in the JSON.
type benchFigure struct {
	Key    string    `json:"key"`
	Title  string    `json:"title"`
	Unit   string    `json:"unit"`
	Median float64   `json:"median"`
	Rounds []float64 `json:"rounds"`
	P50    *float64  `json:"latency_p50_ms,omitempty"`
	P99    *float64  `json:"latency_p99_ms,omitempty"`
}

// benchRatio is one target in the JSON.
type benchRatio struct {
	Title   string    `json:"title"`
	Value   float64   `json:"value"`
	Unit    string    `json:"unit,omitempty"`
	Rounds  []float64 `json:"rounds"`
	Target  float64   `json:"target,omitempty"`
	Aim     float64   `json:"aim,omitempty"`
	Verdict string    `json:"verdict,omitempty"`
}

type benchReport struct {
	Machine benchMachine  `json:"machine"`
	Figures []benchFigure `json:"figures"`
	Ratios  []benchRatio  `json:"ratios"`
	Others  []benchNoise  `json:"other_programs"`
}

func (r *benchResults) report() *benchReport {
	out := &benchReport{Machine: r.machine, Figures: []benchFigure{}, Ratios: []benchRatio{}, Others: r.others}
	for _, f := range benchFigures {
		m, ok := r.median(f.key)
		if !ok {
			continue
		}
		figure := benchFigure{Key: f.key, Title: f.title, Unit: f.unit, Median: m, Rounds: r.values[f.key]}
		if r.latencies[f.key] != nil {
			p50, p99 := r.quantile(f.key, 50), r.quantile(f.key, 99)
			figure.P50, figure.P99 = &p50, &p99
		}
		out.Figures = append(out.Figures, figure)
	}
	for _, t := range benchTargets {
		rounds := t.values(r)
		if m, ok := median(rounds); ok {
			out.Ratios = append(out.Ratios, benchRatio{
				Title: t.name, Value: m, Unit: t.unit, Rounds: rounds, Target: t.target, Aim: t.aim, Verdict: t.verdict(m),
			})
		}
	}
	return out
}

// publish prints what a bench gave, and writes it to a file if one is named.
func publish(w io.Writer, report interface{ print(w io.Writer) error }, output, file string) error {
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	text = append(text, '\n')
	if file != "" {
		if err := os.WriteFile(file, text, 0o644); err != nil { //nolint:gosec // figures are no secret
			return fmt.Errorf("write figures: %w", err)
		}
	}
	if output == "json" {
		_, err = w.Write(text)
		return err
	}
	return report.print(w)
}

func (b *benchReport) print(w io.Writer) error {
	m := b.Machine
	_, _ = fmt.Fprintf(w, "%s  headpond %s\n%d cores, %s, %s, %s, PostgreSQL %s, Redis %s (appendfsync %s)\n\n",
		m.At.Format("2006-01-02 15:04 MST"), m.Headpond, m.Cores, m.CPU, m.OS, m.Go, m.Postgres, m.Redis, m.FSync)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "what\tmedian\t\tp50\tp99\trounds")
	for _, f := range b.Figures {
		p50, p99 := "", ""
		if f.P50 != nil {
			p50, p99 = fmt.Sprintf("%.2f ms", *f.P50), fmt.Sprintf("%.2f ms", *f.P99)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Title, digits(f.Median), f.Unit, p50, p99, allDigits(f.Rounds))
	}
	_, _ = fmt.Fprintf(t, "\nwhat\tvalue\t\tat least\taim\tverdict\trounds\n")
	for _, x := range b.Ratios {
		target, aim := digits(x.Target), digits(x.Aim)
		if x.Verdict == "" {
			target, aim = "", ""
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.Title, digits(x.Value), x.Unit, target, aim, x.Verdict, allDigits(x.Rounds))
	}
	_, _ = fmt.Fprintf(t, "\nLatencies count from the intended send time. At 64 connections they are taken at %.0f %% of the peak.\n", 100*pacedShare)
	if err := t.Flush(); err != nil {
		return err
	}
	return b.printNoise(w)
}

// Below quietPercent the figures stand; above, the run should be repeated on a
// machine that has nothing else to do. No round is left out for it.
const quietPercent = 5

func (b *benchReport) printNoise(w io.Writer) error {
	if len(b.Others) == 0 {
		return nil
	}
	loud, worst := 0, benchNoise{}
	for _, o := range b.Others {
		if o.Percent > quietPercent {
			loud++
		}
		if o.Percent >= worst.Percent {
			worst = o
		}
	}
	_, err := fmt.Fprintf(w, "Other programs took more than %d %% of the machine in %d of %d steps (at most %.0f %%, in %s).\n",
		quietPercent, loud, len(b.Others), worst.Percent, worst.Step)
	if err == nil && loud > 0 {
		_, err = fmt.Fprintln(w, "These figures are DISTURBED: do not quote them.")
	}
	return err
}

// digits prints three of them, or all before the point.
func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func allDigits(v []float64) string {
	if len(v) < 2 {
		return ""
	}
	out := make([]string, len(v))
	for i := range v {
		out[i] = digits(v[i])
	}
	return strings.Join(out, " ")
}
