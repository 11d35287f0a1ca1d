package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// difference is one thing that is not as it should be.
type difference struct {
	What      string          `json:"what"` // ledger, log, index, clean row …
	Severity  buffer.Severity `json:"severity"`
	Table     string          `json:"table"`
	Partition int             `json:"partition"`
	Key       string          `json:"key,omitempty"`
	Text      string          `json:"text"`
	Redis     string          `json:"redis,omitempty"`
	Postgres  string          `json:"postgres,omitempty"`
}

func differs(p buffer.Place, what, key, format string, args ...any) difference {
	return difference{
		What: what, Severity: buffer.CheckError, Table: p.Table, Partition: p.Partition, Key: key, Text: fmt.Sprintf(format, args...),
	}
}

// verified is what verify tells.
type verified struct {
	Same        bool             `json:"same"`
	Partitions  int64            `json:"partitions"`
	LogRows     int64            `json:"log_rows"`
	IndexRows   int64            `json:"index_entries"`
	CachedRows  int64            `json:"cached_rows"` // and what says that there is no row
	WaitingKeys int64            `json:"waiting_keys"`
	Seconds     float64          `json:"seconds"`
	Differences int64            `json:"differences"`
	Warnings    int64            `json:"warnings"`
	Counts      map[string]int64 `json:"counts"` // by what
	Found       []difference     `json:"found"`  // the first ones of each
}

// mostShown of each kind are named; the others are counted.
const mostShown = 20

func (r *verified) note(d difference) {
	if d.Severity == buffer.CheckError {
		r.Differences++
	} else {
		r.Warnings++
	}
	if r.Counts[d.What]++; r.Counts[d.What] <= mostShown {
		r.Found = append(r.Found, d)
	}
}

func (r *verified) show(c *cli.Command) error {
	if c.String("output") == "json" {
		return json.NewEncoder(c.Root().Writer).Encode(r)
	}
	w := bufio.NewWriter(c.Root().Writer)
	for i := range r.Found {
		d := &r.Found[i]
		where := fmt.Sprintf("%s partition %d", d.Table, d.Partition)
		if d.Key != "" {
			where += fmt.Sprintf(" key %q", d.Key)
		}
		_, _ = fmt.Fprintf(w, "%s: %s: %s\n", d.What, where, d.Text)
		for _, side := range []struct{ name, has string }{{"Redis", d.Redis}, {"Postgres", d.Postgres}} {
			if side.has != "" {
				_, _ = fmt.Fprintf(w, "    %-8s  %s\n", side.name, side.has)
			}
		}
	}
	for _, what := range slices.Sorted(maps.Keys(r.Counts)) {
		if more := r.Counts[what] - mostShown; more > 0 {
			_, _ = fmt.Fprintf(w, "%s: %d more\n", what, more)
		}
	}
	word := "the same"
	if !r.Same {
		word = fmt.Sprintf("%d differences", r.Differences)
	}
	_, _ = fmt.Fprintf(w, "%s; %d warnings; compared %d partitions, %d rows of the logs, %d index entries, %d cached rows, %d waiting keys in %.1f s\n",
		word, r.Warnings, r.Partitions, r.LogRows, r.IndexRows, r.CachedRows, r.WaitingKeys, r.Seconds)
	return w.Flush()
}

// mostText of one value that is shown.
const mostText = 80

// contrast names the columns in which two rows differ, on both sides. A cell that
// one of them does not have is no difference.
func contrast(t *table.Table, redis, postgres table.Row) (a, b string) {
	var left, right []string
	for i := range t.Columns {
		if redis[i].State == table.Missing || postgres[i].State == table.Missing || sameCell(redis[i], postgres[i]) {
			continue
		}
		left, right = append(left, cellText(t, i, redis[i])), append(right, cellText(t, i, postgres[i]))
	}
	return strings.Join(left, " "), strings.Join(right, " ")
}

func sameCell(a, b table.Cell) bool { return a.State == b.State && string(a.Text) == string(b.Text) }

func cellText(t *table.Table, column int, c table.Cell) string {
	text := "null"
	if c.State == table.Set {
		text = fmt.Sprintf("%q", string(c.Text[:min(len(c.Text), mostText)]))
		if len(c.Text) > mostText {
			text += "…"
		}
	}
	return t.Columns[column].Name + "=" + text
}
