package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
)

func outputFlag() cli.Flag { return outputFlagOf("table") }

// outputFlagOf what is for people, or json for programs.
func outputFlagOf(people string) cli.Flag {
	return &cli.StringFlag{Name: "output", Usage: people + " or json", Value: people, Validator: func(output string) error {
		if output != people && output != "json" {
			return fmt.Errorf("it must be %s or json, not %q", people, output)
		}
		return nil
	}}
}

func apiFlag() cli.Flag {
	return &cli.StringFlag{Name: "api", Usage: "the API's `URL`", Value: "http://127.0.0.1:8080", Sources: cli.EnvVars("HEADPOND_API")}
}

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:        "status",
		Usage:       "show how far behind Postgres is; exit 1 when the API cannot be reached or is blocked",
		Description: "Exit codes: 0 ok or behind, 1 stalled, blocked or not reachable.",
		Flags:       []cli.Flag{apiFlag(), outputFlag(), &cli.BoolFlag{Name: "watch", Usage: "show it again every second until Ctrl-C"}},
		Action:      showStatus,
	}
}

// statusView is what the command reads of GET /admin/v1/status.
type statusView struct {
	Verdict string                   `json:"verdict"`
	Why     string                   `json:"why"`
	Level   string                   `json:"durability"`
	Oldest  int64                    `json:"oldest_unflushed_ms"`
	Ledger  ledgerView               `json:"ledger"`
	Letters int64                    `json:"dead_letters"`
	Tables  map[string]tableView     `json:"tables"`
	Workers []struct{ State string } `json:"flush_workers"`
	Warn    []string                 `json:"warnings"`
}

type ledgerView struct {
	Accepted  int64 `json:"accepted"`
	Committed int64 `json:"committed"`
	Pending   int64 `json:"pending"`
	Dead      int64 `json:"dead_lettered"`
	Coalesced int64 `json:"coalesced"`
	Lost      int64 `json:"lost"`
}

type tableView struct {
	Verdict string     `json:"verdict"`
	Why     string     `json:"why"`
	Paused  *struct{}  `json:"paused"`
	Oldest  int64      `json:"oldest_unflushed_ms"`
	Ledger  ledgerView `json:"ledger"`
	Lag     struct {
		P50 *float64 `json:"p50"`
		P99 *float64 `json:"p99"`
	} `json:"durability_lag_ms"`
	Rates struct {
		In  float64 `json:"in_rows_per_s"`
		Out float64 `json:"out_rows_per_s"`
	} `json:"rates"`
	Cache *struct {
		HitRate   *float64 `json:"hit_rate"`
		Effective *float64 `json:"effective_latency_ms"`
	} `json:"cache"`
}

func showStatus(ctx context.Context, c *cli.Command) error {
	if c.Bool("watch") {
		return watchAPI(ctx, c)
	}
	text, v, err := readStatus(ctx, c.String("api"))
	if err != nil {
		return cli.Exit(err.Error(), exitFailed)
	}
	w := c.Root().Writer
	if c.String("output") == "json" {
		_, err = fmt.Fprintln(w, strings.TrimSpace(string(text)))
	} else {
		err = screenOf(os.Stdout).print(w, v, nil)
	}
	if err == nil && (v.Verdict == "blocked" || v.Verdict == "stalled") {
		return cli.Exit("", exitFailed)
	}
	return err
}

// watchAPI shows the status every second. While the API cannot be reached it goes on
// to show what it said last, and says so.
func watchAPI(ctx context.Context, c *cli.Command) error {
	var last *statusView
	var at time.Time
	var oldest []int64
	for ; ctx.Err() == nil; pause(ctx, time.Second) {
		text, v, err := readStatus(ctx, c.String("api"))
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			last, at = v, time.Now()
			oldest = append(oldest[max(len(oldest)-59, 0):], v.Oldest)
		}
		if c.String("output") == "json" {
			if err != nil {
				_, _ = fmt.Fprintln(c.Root().ErrWriter, "headpond:", err)
			} else if _, err := fmt.Fprintln(c.Root().Writer, strings.TrimSpace(string(text))); err != nil {
				return err
			}
			continue
		}
		s := screenOf(os.Stdout)
		var page strings.Builder
		if err != nil {
			page.WriteString(s.paint("UNKNOWN", "blocked") + ": " + plain(err.Error()) + "\n")
			if last != nil {
				fmt.Fprintf(&page, "What it said %s ago:\n\n", time.Since(at).Round(time.Second))
			}
		}
		if last != nil {
			_ = s.print(&page, last, oldest) // to memory
		}
		if _, err := io.WriteString(c.Root().Writer, s.frame(page.String())); err != nil {
			return err
		}
	}
	return nil
}

// frame puts a page over the one before, on a terminal.
func (s screen) frame(page string) string {
	if s.width == 0 {
		return page + "\n"
	}
	return "\x1b[H" + strings.ReplaceAll(page, "\n", "\x1b[K\n") + "\x1b[J" // to the top left; what was there goes line by line
}

func readStatus(ctx context.Context, api string) ([]byte, *statusView, error) {
	text, err := fetchStatus(ctx, api)
	if err != nil {
		return nil, nil, err
	}
	v := &statusView{}
	if err := json.Unmarshal(text, v); err != nil {
		return nil, nil, fmt.Errorf("the API answered what is no status: %w", err)
	}
	return text, v, nil
}

func fetchStatus(ctx context.Context, api string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(api, "/")+"/admin/v1/status", nil)
	if err != nil {
		return nil, fmt.Errorf("ask the API: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the API cannot be reached: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the API answered %s", resp.Status)
	}
	return text, err
}
