package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
)

// drillReport is what a drill found out. Times are seconds.
type drillReport struct {
	Passed   bool         `json:"passed"`
	Seed     uint64       `json:"seed"`
	Rate     int          `json:"rate"`
	Machine  benchMachine `json:"machine"`
	Seconds  float64      `json:"seconds"` // of load
	Requests int64        `json:"requests"`
	Unsent   int64        `json:"unsent"` // writes that were offered while all clients waited

	Counts  drillCounts    `json:"history"`
	Verdict *drillVerdict  `json:"verdict"`
	Ledger  ledgerView     `json:"ledger"`
	Traffic drillTraffic   `json:"traffic"`
	Lag     drillLagReport `json:"durability_lag_s"`
	CalmLag float64        `json:"normal_lag_s"`

	Events  []drillEvent  `json:"faults"`
	Samples []drillSample `json:"samples"`
}

type drillLagReport struct {
	Longest float64 `json:"longest"`
	Median  float64 `json:"median"` // over time
}

// describe fills in what is left, and judges.
func (r *drillReport) describe(ctx context.Context, d *drill) {
	r.Machine = benchMachine{
		At: time.Now().UTC().Truncate(time.Second), Headpond: version(),
		OS: runtime.GOOS + "/" + runtime.GOARCH, CPU: cpuModel(), Cores: runtime.NumCPU(), Go: runtime.Version(), FSync: "always",
	}
	if conn, err := pgx.Connect(ctx, d.end.database); err == nil {
		_ = conn.QueryRow(ctx, "show server_version").Scan(&r.Machine.Postgres) // left empty if it fails
		_ = conn.Close(ctx)
	}
	r.Requests, r.Unsent, r.Counts = d.load.requests.Load(), d.load.unsent.Load(), d.load.history.counts()
	var lags []float64
	for _, s := range r.Samples {
		lags = append(lags, s.Lag)
		r.Lag.Longest = max(r.Lag.Longest, s.Lag)
	}
	r.Lag.Median, _ = median(lags)
	least := d.least()
	if len(r.Events) == 0 {
		least = 0 // nothing was to happen
	}
	for _, what := range r.Traffic.missing(r.Counts, least) {
		r.Verdict.problem("%s", what)
	}
	r.Passed = r.Verdict.passed()
}

func (r *drillReport) json() ([]byte, error) {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	return append(text, '\n'), nil
}

// publish prints the report, and draws the picture if a file is given.
func (r *drillReport) publish(w io.Writer, output, file string) error {
	if file != "" {
		if err := os.WriteFile(file, drawDrill(r), 0o644); err != nil { //nolint:gosec // for everybody
			return fmt.Errorf("draw picture: %w", err)
		}
	}
	if output == "json" {
		text, err := r.json()
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	}
	return r.print(w)
}

func (r *drillReport) print(w io.Writer) error {
	word := "PASSED"
	if !r.Passed {
		word = "FAILED"
	}
	v, c := r.Verdict, r.Counts
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	p("headpond drill: %s (seed %d; %.0f s at %d writes/s offered; %d cores, PostgreSQL %s)\n", word, r.Seed, r.Seconds, r.Rate, r.Machine.Cores, r.Machine.Postgres)
	n := func(name string, n int64, format string, args ...any) {
		p("%-17s %11s  %s", name, grouped(n), fmt.Sprintf(format, args...))
	}
	n("acknowledged", c.Acknowledged, "in %s requests; %s more were offered while every client waited", grouped(r.Requests), grouped(r.Unsent))
	n("refused", c.Refused, "certainly not applied, and not there")
	n("unknown outcomes", c.Resolved+c.Unknown, "%s resolved by a repeat with their Idempotency-Key, %s sent without one:", grouped(c.Resolved), grouped(c.Unknown))
	n("", v.Applied, "of these are there, and %s are not, or were written over", grouped(v.NotApplied))
	n("committed", r.Ledger.Committed, "of all that was accepted")
	n("coalesced", r.Ledger.Coalesced, "into a later write of the same key")
	n("dead-lettered", r.Ledger.Dead, "the rows that were sent to be refused by PostgreSQL")
	n("LOST", v.Lost, "acknowledged, and not there")
	n("DUPLICATED", v.Duplicated+v.Phantoms, "there twice, or although refused\n")
	p("ledger: %s\n", r.Ledger)
	p("longest durability lag %.1f s, median over time %.2f s; normal is below %.2f s", r.Lag.Longest, r.Lag.Median, r.CalmLag)
	p("acknowledged before, between and after the faults: %s, %s, %s\n", grouped(r.Traffic.Before), grouped(r.Traffic.Between), grouped(r.Traffic.After))
	if err := r.printFaults(w); err != nil {
		return err
	}
	for _, problem := range v.Problems {
		p("PROBLEM: %s", problem)
	}
	return nil
}

// drillRecovery is how the faults of a kind went.
type drillRecovery struct {
	kind                         drillFaultKind
	times, processes             int
	healed, writes, lag, peakLag []float64
}

func (r *drillReport) recoveries() (out []drillRecovery) {
	for _, k := range drillFaultKinds {
		g := drillRecovery{kind: k.kind}
		for _, e := range r.Events {
			if e.Fault != k.kind {
				continue
			}
			g.times++
			g.processes += e.Processes
			g.healed, g.writes = append(g.healed, e.Healed), append(g.writes, e.WritesBack)
			g.lag, g.peakLag = append(g.lag, e.LagBack), append(g.peakLag, e.PeakLag)
		}
		if g.times > 0 {
			out = append(out, g)
		}
	}
	return out
}

func (r *drillReport) printFaults(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "fault\ttimes\tprocesses\thealed after\tall writes accepted after\tlag normal after\tlongest lag")
	for _, g := range r.recoveries() {
		_, _ = fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%s\t%.1f s\n", g.kind, g.times, g.processes, spread(g.healed), spread(g.writes), spread(g.lag), slices.Max(g.peakLag))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	_, err := fmt.Fprintln(w, "(median, worst, in seconds since the fault; 0: no write was refused or delayed, the lag stayed normal)")
	return err
}

// spread is median and worst.
func spread(v []float64) string {
	m, _ := median(v)
	if len(v) == 1 {
		return fmt.Sprintf("%.1f", m)
	}
	return fmt.Sprintf("%.1f, %.1f", m, slices.Max(v))
}

// grouped writes thousands apart: 224,774.
func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for at := len(text) - 3; at > 0 && text[at-1] != '-'; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}
