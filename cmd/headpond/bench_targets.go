package main

import "math"

// benchTarget is a figure that Headpond must reach.
type benchTarget struct {
	name         string
	values       func(*benchResults) []float64
	target, aim  float64
	most         bool // target and aim are upper bounds
	unit         string
	informsAlone bool // shown without a verdict
}

func ratio(over, under string) func(*benchResults) []float64 {
	return func(r *benchResults) []float64 { return r.ratios(over, under) }
}

func value(key string) func(*benchResults) []float64 {
	return func(r *benchResults) []float64 { return r.values[key] }
}

// growth of the resident memory, in MiB; a process that shrank did not grow.
func growth(r *benchResults) (out []float64) {
	idle, waiting := r.values["j_idle"], r.values["j_backlog"]
	for i := range min(len(idle), len(waiting)) {
		out = append(out, math.Max(waiting[i]-idle[i], 0))
	}
	return out
}

var benchTargets = []benchTarget{
	{name: "(d) single POSTs over (a), 64 connections", values: ratio("d64", "a64"), target: 0.40, aim: 0.70},
	{name: "(d) single POSTs over (b), 64 connections", values: ratio("d64", "b64"), target: 3, aim: 5},
	{name: "(d) single POSTs over (c), 64 connections", values: ratio("d64", "c64"), informsAlone: true},
	{name: "(e) NDJSON to committed, cache: none, over (f)", values: ratio("e_none", "f"), target: 0.7, aim: 1.0},
	{name: "(e) NDJSON to committed, all in the index, over (f)", values: ratio("e_index", "f"), target: 0.5, aim: 0.75},
	{name: "(g) flusher alone over (f)", values: ratio("g", "f"), target: 0.9, aim: 1.2},
	{name: "(k) changes of hot rows over an UPDATE per request", values: ratio("k", "k_update"), target: 5, aim: 10},
	{name: "(k) rows written per change", values: value("k_written"), target: 0.05, aim: 0.02, most: true},
	{name: "(l) PUTs through _bulk over COPY + INSERT ON CONFLICT", values: ratio("l", "l_upsert"), target: 0.5, aim: 0.8},
	{name: "(m) single PUT over single POST, 64 connections", values: ratio("m64", "d64"), target: 0.8, aim: 0.95},
	{name: "(n) GET hits over (o), 64 connections", values: ratio("n64", "o64"), target: 0.5, aim: 0.75},
	{name: "(n) GET hits over (p), a SELECT per GET", values: ratio("n64", "p64"), target: 3, aim: 5},
	{name: "(n) GET hits over (p), the pool without HTTP", values: ratio("n64", "p_pool"), informsAlone: true},
	{name: "(q) one row in 10,000 refused over none", values: ratio("q", "q_clean"), target: 0.8, aim: 0.9},
	{name: "(h) Redis bytes per row, NDJSON of 1,000", values: value("h_bulk"), target: 320, aim: 255, most: true, unit: "B"},
	{name: "(h) Redis bytes per row, single POSTs", values: value("h_single"), target: 320, aim: 255, most: true, unit: "B"},
	{name: "(i) idle CPU, 100 tables × 8 partitions", values: value("i"), target: 2, aim: 1, most: true, unit: "%"},
	{name: "(j) memory that a waiting backlog adds", values: growth, target: 64, aim: 64, most: true, unit: "MiB"},
	{name: "metrics and 1 % of the traces over none", values: ratio("t_one", "t_off"), target: 0.95, aim: 0.98},
	{name: "metrics and every trace over none", values: ratio("t_all", "t_off"), target: 0.75, aim: 0.85},
	{name: "CPU of an open dashboard", values: value("t_pages"), target: 1, aim: 0.1, most: true, unit: "%"},
	{name: "the status with a large backlog over a small one", values: ratio("t_status_large", "t_status_small"), target: 2, aim: 1.2, most: true},
}

// verdict of a target, in the words of the report.
func (t *benchTarget) verdict(v float64) string {
	reached := func(bound float64) bool { return t.most && v <= bound || !t.most && v >= bound }
	switch {
	case t.informsAlone:
		return ""
	case reached(t.aim):
		return "aim reached"
	case reached(t.target):
		return "reached"
	}
	return "MISSED"
}
