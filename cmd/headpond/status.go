package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/urfave/cli/v3"
	"maps"
	"os"
)

func outputFlag() cli.Flag {
	return &cli.StringFlag{Name: "output", Usage: "table or json", Value: "table"}
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
	Oldest int64      `json:"oldest_unflushed_ms"`
	Ledger ledgerView `json:"ledger"`
	Lag    struct {
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
	for {
		text, err := fetchStatus(ctx, c.String("api"))
		if err != nil && !c.Bool("watch") {
			return cli.Exit(err.Error(), exitFailed)
		}
		var v statusView
		if err == nil {
			err = json.Unmarshal(text, &v)
		}
		w := c.Root().Writer
		if c.Bool("watch") && isatty.IsTerminal(os.Stdout.Fd()) {
			_, _ = fmt.Fprint(w, "\x1b[H\x1b[2J") // to the top left, and clear
		}
		switch {
		case err != nil:
			_, _ = fmt.Fprintln(w, err)
		case c.String("output") == "json":
			_, err = fmt.Fprintln(w, strings.TrimSpace(string(text)))
		default:
			err = printStatus(w, &v)
		}
		if !c.Bool("watch") {
			if v.Verdict == "blocked" || v.Verdict == "stalled" {
				return cli.Exit("", exitFailed)
			}
			return err
		}
		if pause(ctx, time.Second); ctx.Err() != nil {
			return nil
		}
	}
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

func printStatus(w io.Writer, v *statusView) error {
	_, _ = fmt.Fprintf(w, "%s: %s\n", strings.ToUpper(v.Verdict), v.Why)
	l := v.Ledger
	_, _ = fmt.Fprintf(w, "accepted %d = committed %d + pending %d + dead-lettered %d + coalesced %d + lost %d\n",
		l.Accepted, l.Committed, l.Pending, l.Dead, l.Coalesced, l.Lost)
	if v.Letters > 0 {
		_, _ = fmt.Fprintf(w, "dead letters now: %d; headpond dead-letters ls\n", v.Letters)
	}
	_, _ = fmt.Fprintf(w, "durability of an answer: %s; flush workers: %d\n", v.Level, len(v.Workers))
	for _, warning := range v.Warn {
		_, _ = fmt.Fprintf(w, "warning: %s\n", warning)
	}
	_, _ = fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "table\tbacklog\toldest\tlag p50\tlag p99\tin/s\tout/s\tcommitted\tdead\thits\tread\t")
	for _, name := range slices.Sorted(maps.Keys(v.Tables)) {
		x := v.Tables[name]
		_, _ = fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%.0f\t%.0f\t%d\t%d\t%s\t\n", name, x.Ledger.Pending, ms(float64(x.Oldest)),
			lagText(x.Lag.P50), lagText(x.Lag.P99), x.Rates.In, x.Rates.Out, x.Ledger.Committed, x.Ledger.Dead, x.reads())
	}
	return t.Flush()
}

// reads is the hit rate and the effective latency, when there were reads.
func (x *tableView) reads() string {
	if x.Cache == nil || x.Cache.HitRate == nil || x.Cache.Effective == nil {
		return "-\t-"
	}
	return fmt.Sprintf("%.1f %%\t%.2f ms", 100**x.Cache.HitRate, *x.Cache.Effective)
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
