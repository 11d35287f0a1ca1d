package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"
)

// letterView is what the command reads of a dead letter.
type letterView struct {
	ID         int64              `json:"id"`
	Table      string             `json:"table"`
	Receipt    string             `json:"receipt"`
	Key        string             `json:"key"`
	Operation  string             `json:"operation"`
	Group      string             `json:"group"`
	SQLState   string             `json:"sqlstate"`
	Constraint string             `json:"constraint"`
	Column     string             `json:"column"`
	Reason     string             `json:"reason"`
	Advice     string             `json:"advice"`
	Message    string             `json:"message"`
	Detail     string             `json:"detail"`
	Accepted   time.Time          `json:"accepted_at"`
	Died       time.Time          `json:"dead_lettered_at"`
	Replayed   *time.Time         `json:"replayed_at"`
	Replays    int                `json:"replays"`
	Behind     string             `json:"parked_behind"`
	BehindID   int64              `json:"parked_behind_id"`
	Parked     int                `json:"parked"`
	Row        json.RawMessage    `json:"row"`
	Writes     map[string]*string `json:"writes"`
}

type letterPage struct {
	Groups []struct {
		Table   string `json:"table"`
		Group   string `json:"group"`
		Letters int64  `json:"dead_letters"`
		Reason  string `json:"reason"`
	} `json:"groups"`
	Letters []letterView `json:"dead_letters"`
	Next    string       `json:"next"`
}

// page of the dead letters that the flags choose, with the groups of all.
func (l *letters) page(ctx context.Context, limit int) (*letterPage, error) {
	text, err := l.ask(ctx, http.MethodGet, l.query("limit", strconv.Itoa(limit)), "", 0)
	if err != nil {
		return nil, err
	}
	p := &letterPage{}
	if err := json.Unmarshal(text, p); err != nil {
		return nil, fmt.Errorf("the API's answer cannot be read: %w", err)
	}
	return p, nil
}

func listDeadLetters(ctx context.Context, c *cli.Command) error {
	l, limit := lettersOf(c), c.Int("limit")
	if c.Args().Present() {
		return usage(errors.New("ls takes no arguments; choose with --table and --group"))
	}
	if limit < 1 {
		return usage(errors.New("--limit must be 1 at least"))
	}
	w := c.Root().Writer
	if c.String("output") == "json" {
		text, err := l.ask(ctx, http.MethodGet, l.query("limit", strconv.Itoa(limit)), "", 0)
		if err == nil {
			_, err = fmt.Fprintln(w, strings.TrimSpace(string(text)))
		}
		return err
	}
	p, err := l.page(ctx, limit)
	if err != nil {
		return err
	}
	if len(p.Letters) == 0 {
		_, err = fmt.Fprintln(w, "there are no dead letters")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "count\ttable\tgroup\treason")
	for _, g := range p.Groups {
		_, _ = fmt.Fprintf(t, "%d\t%s\t%s\t%s\n", g.Letters, tame(g.Table), tame(g.Group), tame(g.Reason))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(w)
	_, _ = fmt.Fprintln(t, "id\ttable\tkey\toperation\tgroup\taccepted\tstate")
	for i := range p.Letters {
		d := &p.Letters[i]
		_, _ = fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", d.ID, tame(d.Table), tame(d.Key), d.Operation, tame(d.Group),
			d.Accepted.Format(time.RFC3339), d.state())
	}
	if p.Next != "" {
		_, _ = fmt.Fprintf(t, "…\t\t\t\t\t\tmore than --limit %d\n", limit)
	}
	return t.Flush()
}

func (d *letterView) state() string {
	switch {
	case d.BehindID != 0:
		return fmt.Sprintf("parked behind %d", d.BehindID)
	case d.Replayed != nil:
		return "being replayed"
	case d.Parked > 0:
		return fmt.Sprintf("%d parked behind it", d.Parked)
	case d.Replays > 0:
		return fmt.Sprintf("refused %d times", d.Replays+1)
	}
	return ""
}

// tame keeps what came from a client from driving the terminal.
func tame(text string) string {
	const most = 60
	text = escaped(text)
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// escaped leaves all as it is that can be seen, quotes too.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		if strconv.IsGraphic(r) {
			b.WriteRune(r)
			continue
		}
		q := strconv.QuoteRuneToGraphic(r)
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}

func showDeadLetter(ctx context.Context, c *cli.Command) error {
	l := lettersOf(c)
	id := c.Args().First()
	if n, err := strconv.ParseUint(id, 10, 63); err != nil || n == 0 || c.Args().Len() > 1 {
		return usage(errors.New("show takes the number of a dead letter: headpond dead-letters show 17"))
	}
	text, err := l.ask(ctx, http.MethodGet, "/"+id, "", 0)
	if err != nil {
		return err
	}
	w := c.Root().Writer
	if c.String("output") == "json" {
		_, err = fmt.Fprintln(w, strings.TrimSpace(string(text)))
		return err
	}
	var d letterView
	if err := json.Unmarshal(text, &d); err != nil {
		return fmt.Errorf("the API's answer cannot be read: %w", err)
	}
	return printLetter(w, &d)
}

func printLetter(w io.Writer, d *letterView) error {
	_, _ = fmt.Fprintf(w, "%s\n%s\n\n", d.Reason, d.Advice)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"dead letter", strconv.FormatInt(d.ID, 10)}, {"receipt", d.Receipt}, {"table", d.Table}, {"key", d.Key}, {"operation", d.Operation},
		{"SQLSTATE", d.SQLState}, {"constraint", d.Constraint}, {"column", d.Column}, {"Postgres said", d.Message}, {"in detail", d.Detail},
		{"accepted", d.Accepted.Format(time.RFC3339Nano)}, {"refused", d.Died.Format(time.RFC3339Nano)}, {"parked behind", d.Behind}, {"state", d.state()},
	} {
		if line[1] != "" {
			_, _ = fmt.Fprintf(t, "%s\t%s\n", line[0], escaped(line[1]))
		}
	}
	_, _ = fmt.Fprintln(t, "\na replay writes")
	for _, name := range slices.Sorted(maps.Keys(d.Writes)) {
		value := "NULL"
		if v := d.Writes[name]; v != nil {
			value = strconv.QuoteToGraphic(*v)
		}
		_, _ = fmt.Fprintf(t, "  %s\t%s\n", tame(name), value)
	}
	return t.Flush()
}

func printReplayed(c *cli.Command, sum *replayed) error {
	w := c.Root().Writer
	if c.String("output") == "json" {
		return json.NewEncoder(w).Encode(sum)
	}
	state := "accepted; the flush will tell"
	if sum.Committed {
		state = "committed"
	}
	_, _ = fmt.Fprintf(w, "replayed %d (%d were on their way before), failed %d: %s\n", sum.Replayed, sum.Again, sum.Failed, state)
	for _, e := range sum.Errors {
		_, _ = fmt.Fprintf(w, "  %d: %s (%s)\n", e.ID, e.Detail, e.Code)
	}
	return nil
}
