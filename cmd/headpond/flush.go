package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v3"
)

func flushCommand() *cli.Command {
	return &cli.Command{
		Name:      "flush",
		Usage:     "wait until all that was accepted before is in PostgreSQL: of all tables, or of those that are named",
		ArgsUsage: "[TABLE…]",
		Description: "It hurries nobody: the flushers are at work already. What PostgreSQL refused lies in the dead letters, and is waited for no longer.\n" +
			"Exit codes: 0 all is committed; 1 not in time (what is left is told), no such table, or the API cannot be reached; 2 wrong flags.",
		Flags: []cli.Flag{
			apiFlag(), outputFlag(),
			&cli.DurationFlag{Name: "wait", Usage: "wait so long, at most the API's limits.wait", Value: 10 * time.Second},
		},
		Action: flush,
	}
}

// flushed is what came of one request, and the sum of several.
type flushed struct {
	Flushed bool          `json:"flushed"`
	Tables  []flushedRows `json:"tables"`  // that had rows to flush, and have none of them left
	Pending []string      `json:"pending"` // what is left, in sentences
}

type flushedRows struct {
	Table string `json:"table"`
	Rows  int64  `json:"rows"`
}

// flush asks for all tables at once: each is to have the whole time.
func flush(ctx context.Context, c *cli.Command) error {
	wait, base := c.Duration("wait"), strings.TrimSuffix(c.String("api"), "/")+"/v1"
	if wait < 0 {
		return usage(errors.New("--wait must not be negative"))
	}
	paths := []string{"/flush"}
	if tables := c.Args().Slice(); len(tables) > 0 {
		paths = nil
		for _, t := range tables {
			paths = append(paths, "/"+url.PathEscape(t)+"/flush")
		}
	}
	parts, errs := make([]flushed, len(paths)), make([]error, len(paths))
	var asked sync.WaitGroup
	for i, path := range paths {
		asked.Go(func() {
			if parts[i], errs[i] = askToFlush(ctx, base+path, wait); errs[i] != nil && c.Args().Present() {
				errs[i] = fmt.Errorf("flush table=%s: %w", c.Args().Get(i), errs[i])
			}
		})
	}
	asked.Wait()
	if err := errors.Join(errs...); err != nil {
		return cli.Exit(err.Error(), exitFailed)
	}
	sum := flushed{Flushed: true, Tables: []flushedRows{}, Pending: []string{}}
	for _, p := range parts {
		sum.Flushed = sum.Flushed && p.Flushed
		sum.Tables, sum.Pending = append(sum.Tables, p.Tables...), append(sum.Pending, p.Pending...)
	}
	return sum.show(c)
}

// askToFlush gives what is left when the time is over; other refusals are errors.
func askToFlush(ctx context.Context, address string, wait time.Duration) (f flushed, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait+60*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"?wait="+wait.String(), nil)
	if err != nil {
		return f, fmt.Errorf("ask the API: %w", err)
	}
	a, text, err := answerOf(r)
	if err != nil {
		return f, err
	}
	var late struct {
		Code   string
		Errors []struct{ Detail string }
	}
	switch {
	case a.StatusCode == http.StatusOK:
		err = json.Unmarshal(text, &f)
	case json.Unmarshal(text, &late) == nil && late.Code == "flush_timeout":
		for _, e := range late.Errors {
			f.Pending = append(f.Pending, e.Detail)
		}
	default:
		err = errors.New(problemText(a.Status, text))
	}
	return f, err
}

func (f *flushed) show(c *cli.Command) error {
	w := c.Root().Writer
	var err error
	if c.String("output") == "json" {
		err = json.NewEncoder(w).Encode(f)
	} else {
		for _, t := range f.Tables {
			_, _ = fmt.Fprintf(w, "%s: %d rows\n", tame(t.Table), t.Rows)
		}
		if f.Flushed {
			_, err = fmt.Fprintln(w, "All that was accepted before is committed, or lies in the dead letters.")
		}
	}
	if err == nil && !f.Flushed {
		return cli.Exit("not all is committed yet, it waits in Redis\n  "+plain(strings.Join(f.Pending, "\n  ")), exitFailed)
	}
	return err
}
