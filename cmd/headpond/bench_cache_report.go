package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// cacheReport is the figures of a run, in milliseconds. A figure that does not
// exist or was not measured is nil.
type cacheReport struct {
	Machine  benchMachine  `json:"machine"`
	SlowMS   float64       `json:"slow_ms,omitempty"`   // each answer of Postgres
	ShortTTL float64       `json:"read_through_ttl_ms"` // of the table on which TTL only was measured for staleness
	Clients  int           `json:"reading_connections"` // at once
	Patterns []cacheFigure `json:"patterns"`
	Others   []benchNoise  `json:"other_programs"`
}

// cacheFigure is one pattern's.
type cacheFigure struct {
	Key       string         `json:"key"`
	Name      string         `json:"name"`
	Fault     string         `json:"not_measured,omitempty"` // why
	Write1    *cacheLatency  `json:"write_1_connection,omitempty"`
	Write64   *cacheLatency  `json:"write_64_connections,omitempty"`
	Hit       *float64       `json:"read_hit_ms,omitempty"`
	Miss      *float64       `json:"read_miss_ms,omitempty"`
	OwnHit    *float64       `json:"read_hit_in_headpond_ms,omitempty"` // without HTTP and the client
	OwnMiss   *float64       `json:"read_miss_in_headpond_ms,omitempty"`
	Stale     *float64       `json:"stale_at_most_ms,omitempty"` // the largest of all rounds
	Lost      *float64       `json:"lost,omitempty"`             // of the worst round
	LostOf    *float64       `json:"lost_of,omitempty"`
	RowsPerS  *float64       `json:"rows_per_second_to_postgres,omitempty"`
	Effective []cacheReading `json:"effective,omitempty"`
	Example   *cacheExample  `json:"example,omitempty"`
}

type cacheLatency struct {
	Mean float64 `json:"mean_ms"`
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
}

// cacheReading is what came of one hit rate.
type cacheReading struct {
	Wanted    float64   `json:"hit_rate_wanted"`
	Seen      float64   `json:"hit_rate_seen"`
	Measured  float64   `json:"measured_ms"`
	Predicted float64   `json:"predicted_ms"`
	Ratio     float64   `json:"measured_over_predicted"`
	Rounds    []float64 `json:"rounds"`
	Verdict   string    `json:"verdict"`
}

// cacheExample is the example of the documents with this machine's own times.
type cacheExample struct {
	HitMS       float64 `json:"hit_ms"`
	OverheadMS  float64 `json:"overhead_ms"` // of a miss beside the delay, measured without it
	PredictedMS float64 `json:"predicted_ms"`
	MeasuredMS  float64 `json:"measured_ms"`
}

// effectiveVerdict of measured over predicted, both ways.
func effectiveVerdict(ratio float64) string {
	t := benchTarget{target: 0.15, aim: 0.05, most: true}
	return t.verdict(math.Abs(ratio - 1))
}

func (b *cacheBench) report() *cacheReport {
	out := &cacheReport{Machine: b.results.machine, SlowMS: float64(b.delay.Microseconds()) / 1000, Others: b.results.others,
		ShortTTL: b.shortTTL.Seconds() * 1000, Clients: b.clients}
	for _, p := range cachePatterns {
		f := cacheFigure{Key: p.key, Name: p.name}
		if err := b.failed[p]; err != nil {
			f.Fault = err.Error()
		} else {
			b.fill(&f)
		}
		out.Patterns = append(out.Patterns, f)
	}
	return out
}

func (b *cacheBench) fill(f *cacheFigure) {
	get := func(key string) *float64 {
		if m, ok := b.results.median(f.Key + key); ok {
			return &m
		}
		return nil
	}
	write := func(key string) *cacheLatency {
		mean, p50, p99 := get(key), get(key+"_p50"), get(key+"_p99")
		if mean == nil || p50 == nil || p99 == nil {
			return nil
		}
		return &cacheLatency{*mean, *p50, *p99}
	}
	f.Write1, f.Write64 = write("_write1"), write("_write64")
	f.Hit, f.Miss, f.RowsPerS = get("_hit"), get("_miss"), get("_write64_rows")
	f.OwnHit, f.OwnMiss = get("_own_hit"), get("_own_miss")
	if v := b.results.values[f.Key+"_stale"]; len(v) > 0 {
		worst := slices.Max(v)
		f.Stale = &worst
	}
	if v := b.results.values[f.Key+"_lost"]; len(v) > 0 {
		worst := slices.Index(v, slices.Max(v))
		f.Lost, f.LostOf = &v[worst], &b.results.values[f.Key+"_lost_of"][worst]
	}
	for _, rate := range b.rates {
		name := rateName(rate)
		seen, measured, predicted, ratio := get("_rate"+name), get("_measured"+name), get("_predicted"+name), get("_ratio"+name)
		if ratio == nil {
			continue
		}
		f.Effective = append(f.Effective, cacheReading{
			Wanted: rate, Seen: *seen, Measured: *measured, Predicted: *predicted, Ratio: *ratio,
			Rounds: b.results.values[f.Key+"_ratio"+name], Verdict: effectiveVerdict(*ratio),
		})
	}
	if fast, measured := get("_fast_miss"), get("_measured"+rateName(exampleRate)); fast != nil && measured != nil && f.Hit != nil {
		delay := float64(b.delay.Microseconds()) / 1000
		f.Example = &cacheExample{HitMS: *f.Hit, OverheadMS: *fast, PredictedMS: effective(exampleRate, *f.Hit, delay+*fast), MeasuredMS: *measured}
	}
}

func (r *cacheReport) print(w io.Writer) error {
	m := r.Machine
	_, _ = fmt.Fprintf(w, "%s  headpond %s\n%d cores, %s, %s, %s, PostgreSQL %s, Redis %s (appendfsync %s)\n",
		m.At.Format("2006-01-02 15:04 MST"), m.Headpond, m.Cores, m.CPU, m.OS, m.Go, m.Postgres, m.Redis, m.FSync)
	if r.SlowMS > 0 {
		_, _ = fmt.Fprintf(w, "Each answer of PostgreSQL takes %s ms longer.\n", digits(r.SlowMS))
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprint(t, "\npattern\twrite, 1 connection\twrite, 64 connections\tread, hit\tread, miss\tstale at most\tlost if Redis dies\trows/s to PostgreSQL\n")
	_, _ = fmt.Fprint(t, "\tmean / p50 / p99\tmean / p50 / p99\t(in Headpond)\t(in Headpond)\t\t\t64 connections\n")
	for _, f := range r.Patterns {
		if f.Fault != "" {
			_, _ = fmt.Fprintf(t, "%s\tnot measured\n", f.Name)
			continue
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			f.Name, f.Write1, f.Write64, besides(f.Hit, f.OwnHit), besides(f.Miss, f.OwnMiss), staleText(f.Stale), f.lossText(), plainText(f.RowsPerS))
	}
	_, _ = fmt.Fprintf(t, "Reads by %d connection(s). With its TTL only, a row is stale for as long as that: here %s ms.\n", r.Clients, digits(r.ShortTTL))
	r.printEffective(t)
	r.printExample(t)
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range r.Patterns {
		if f.Fault != "" {
			_, _ = fmt.Fprintf(w, "\n%s was not measured: %s\n", f.Name, strings.TrimSpace(f.Fault))
		}
	}
	return (&benchReport{Others: r.Others}).printNoise(w)
}

func (r *cacheReport) printEffective(w io.Writer) {
	_, _ = fmt.Fprint(w, "\neffective latency of reads\thit rate seen\tmeasured\tpredicted\tmeasured / predicted\tverdict\trounds\n")
	for _, f := range r.Patterns {
		if f.Hit == nil { // the hit rate of what has no cache is 0, and the prediction idle
			continue
		}
		for _, e := range f.Effective {
			_, _ = fmt.Fprintf(w, "%s, %.0f %% hits\t%.1f %%\t%s\t%s\t%.3f\t%s\t%s\n",
				f.Name, 100*e.Wanted, 100*e.Seen, millis(&e.Measured), millis(&e.Predicted), e.Ratio, e.Verdict, allDigits(e.Rounds))
		}
	}
	_, _ = fmt.Fprint(w, "Predicted is hit rate × hit time + miss rate × miss time, with the times of reads that all hit or all missed.\n")
}

func (r *cacheReport) printExample(w io.Writer) {
	if r.SlowMS == 0 {
		return
	}
	_, _ = fmt.Fprintf(w, "\nthe documents: 0.9 × 1 ms + 0.1 × 50 ms = %s ms\tmeasured\n", digits(effective(exampleRate, 1, 50)))
	for _, f := range r.Patterns {
		if e := f.Example; e != nil {
			_, _ = fmt.Fprintf(w, "%s: 0.9 × %s ms + 0.1 × (%s ms + %s ms) = %s ms\t%s ms\n",
				f.Name, digits(e.HitMS), digits(r.SlowMS), digits(e.OverheadMS), digits(e.PredictedMS), digits(e.MeasuredMS))
		}
	}
}

// String is mean / p50 / p99.
func (l *cacheLatency) String() string {
	if l == nil {
		return "–"
	}
	return digits(l.Mean) + " / " + digits(l.P50) + " / " + digits(l.P99) + " ms"
}

func millis(v *float64) string {
	if v == nil {
		return "–"
	}
	return digits(*v) + " ms"
}

// besides is what a client measured, with what Headpond did.
func besides(client, own *float64) string {
	if client == nil || own == nil {
		return millis(client)
	}
	return millis(client) + " (" + digits(*own) + ")"
}

// staleText: a window of 0 was not seen at all.
func staleText(v *float64) string {
	if v != nil && *v == 0 {
		return "0"
	}
	return millis(v)
}

func plainText(v *float64) string {
	if v == nil {
		return "–"
	}
	return digits(*v)
}

func (f *cacheFigure) lossText() string {
	if f.Lost == nil {
		return "–"
	}
	return fmt.Sprintf("%.0f of %.0f", *f.Lost, *f.LostOf)
}
