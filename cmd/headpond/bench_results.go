package main

import (
	"context"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// benchResults is every figure of a run: one value a round.
type benchResults struct {
	values    map[string][]float64
	latencies map[string][]*hdrhistogram.Histogram
	machine   benchMachine
	others    []benchNoise
}

// benchNoise is how much of the machine went to other programs during a step,
// in percent of all cores.
type benchNoise struct {
	Step    string  `json:"step"`
	Percent float64 `json:"percent"`
}

// benchMachine says what the figures were measured on.
type benchMachine struct {
	At       time.Time `json:"at"`
	Headpond string    `json:"headpond"`
	Quick    bool      `json:"quick"`
	OS       string    `json:"os"`
	CPU      string    `json:"cpu"`
	Cores    int       `json:"cores"`
	Go       string    `json:"go"`
	Postgres string    `json:"postgres"`
	Redis    string    `json:"redis"`
	FSync    string    `json:"redis_appendfsync"`
}

func newBenchResults() *benchResults {
	return &benchResults{values: make(map[string][]float64), latencies: make(map[string][]*hdrhistogram.Histogram)}
}

func (r *benchResults) add(key string, v float64) { r.values[key] = append(r.values[key], v) }

func (r *benchResults) latency(key string, a *benchAnswer) {
	r.latencies[key] = append(r.latencies[key], a.latency)
}

func (r *benchResults) disturbed(step string, percent float64, known bool) {
	if known {
		r.others = append(r.others, benchNoise{step, percent})
	}
}

// quantile of a latency in milliseconds: the median of the rounds' quantiles.
// In a histogram of all rounds together, one bad round would be the p99.
func (r *benchResults) quantile(key string, q float64) float64 {
	var rounds []float64
	for _, h := range r.latencies[key] {
		rounds = append(rounds, float64(h.ValueAtQuantile(q))/1000)
	}
	m, _ := median(rounds)
	return m
}

// median of the rounds; ok is false when there was none.
func (r *benchResults) median(key string) (float64, bool) { return median(r.values[key]) }

func median(v []float64) (float64, bool) {
	if len(v) == 0 {
		return 0, false
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2, true
}

// ratios of two figures, round by round.
func (r *benchResults) ratios(over, under string) (out []float64) {
	a, b := r.values[over], r.values[under]
	for i := range min(len(a), len(b)) {
		out = append(out, a[i]/b[i])
	}
	return out
}

func (r *benchResults) describe(ctx context.Context, s *benchStack, quick bool) {
	r.machine = benchMachine{
		At: time.Now().UTC().Truncate(time.Second), Headpond: version(), Quick: quick,
		OS: runtime.GOOS + "/" + runtime.GOARCH, CPU: cpuModel(), Cores: runtime.NumCPU(), Go: runtime.Version(),
	}
	_ = s.pool.QueryRow(ctx, "show server_version").Scan(&r.machine.Postgres) // left empty if it fails
	info := s.rdb.Info(ctx, "server").Val()
	_, after, _ := strings.Cut(info, "redis_version:")
	r.machine.Redis, _, _ = strings.Cut(after, "\r")
	r.machine.FSync = s.rdb.ConfigGet(ctx, "appendfsync").Val()["appendfsync"]
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(text), "model name")
	line, _, _ := strings.Cut(after, "\n")
	return strings.Trim(line, "\t :")
}
