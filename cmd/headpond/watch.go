package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/urfave/cli/v3"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher/postgres"
)

func watchCommand() *cli.Command {
	return &cli.Command{
		Name:  "watch",
		Usage: "let rows that others change in PostgreSQL leave the cache",
		Description: "Installs triggers on tables that have `watch: notify` in the configuration: for each statement they note the\n" +
			"primary keys of the rows that it changed, in headpond.changes, and the flusher drops those from the cache.\n" +
			"Connect as the owner of the tables.",
		Commands: []*cli.Command{
			{
				Name: "install", Usage: "make the triggers of tables, or mend them", ArgsUsage: "TABLE...", Flags: urlFlags()[:1],
				Action: func(ctx context.Context, c *cli.Command) error {
					return eachWatch(ctx, c, "watched", func(w *postgres.Watches, t *table.Table) error { return w.Install(ctx, t) })
				},
			},
			{
				Name: "remove", Usage: "take the triggers of tables away", ArgsUsage: "TABLE...", Flags: urlFlags()[:1],
				Action: func(ctx context.Context, c *cli.Command) error {
					return eachWatch(ctx, c, "not watched any more", func(w *postgres.Watches, t *table.Table) error { return w.Remove(ctx, t) })
				},
			},
			{
				Name: "status", Usage: "show the watched tables, and how much waits; exit 1 when something is wrong",
				Flags: append(urlFlags()[:1], outputFlag()), Action: watchStatus,
			},
		},
	}
}

func watchPool(ctx context.Context, c *cli.Command) (*pgxpool.Pool, error) {
	dsn, err := databaseURL(c)
	if err != nil {
		return nil, err
	}
	pool, err := postgres.NewPool(ctx, dsn, postgres.PoolOptions{MaxConns: 2, ApplicationName: "headpond watch"})
	if err != nil {
		return nil, usage(err)
	}
	return pool, nil
}

// eachWatch does something to each table that is named. What fails for one does
// not keep the others from it.
func eachWatch(ctx context.Context, c *cli.Command, done string, do func(*postgres.Watches, *table.Table) error) error {
	names := c.Args().Slice()
	if len(names) == 0 {
		return usage(errors.New("name at least one table: headpond watch " + c.Name + " orders"))
	}
	pool, err := watchPool(ctx, c)
	if err != nil {
		return err
	}
	defer pool.Close()
	for i := range names {
		names[i] = strings.TrimPrefix(names[i], "public.")
	}
	read, err := postgres.LoadCatalog(ctx, pool, postgres.Selection{Tables: names})
	if err != nil {
		return fmt.Errorf("read the catalog: %w", err)
	}
	var errs []error
	for _, name := range names {
		t := read[name]
		if t == nil || t.OID == 0 {
			errs = append(errs, fmt.Errorf("there is no table %q in this database", name))
			continue
		}
		if err := do(postgres.NewWatches(pool), t); err != nil {
			errs = append(errs, err)
			continue
		}
		_, _ = fmt.Fprintf(c.Root().Writer, "%s is %s\n", name, done)
	}
	return errors.Join(errs...)
}

func watchStatus(ctx context.Context, c *cli.Command) error {
	pool, err := watchPool(ctx, c)
	if err != nil {
		return err
	}
	defer pool.Close()
	states, size, err := postgres.NewWatches(pool).Status(ctx)
	if err != nil {
		return err
	}
	w := c.Root().Writer
	if c.String("output") == "json" {
		err = json.NewEncoder(w).Encode(map[string]any{"tables": states, "bytes": size})
	} else {
		err = printWatches(w, states, size)
	}
	for _, s := range states {
		if err == nil && s.Problem != "" {
			return cli.Exit("", exitFailed)
		}
	}
	return err
}

func printWatches(w io.Writer, states []postgres.WatchState, size int64) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "table\twaiting entries\toldest\tconflicts\tstate")
	for _, s := range states {
		oldest := "-"
		if !s.Oldest.IsZero() {
			oldest = time.Since(s.Oldest).Round(time.Millisecond).String()
		}
		_, _ = fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%s\n", s.Table, s.Entries, oldest, s.Conflicts, or(s.Problem, "watched"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "headpond.changes takes %d kB. It empties only while a flusher runs.\n", size/1024)
	return err
}
