package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher/postgres"
)

func warmCommand() *cli.Command {
	return &cli.Command{
		Name:      "warm",
		Usage:     "load rows of a table into the cache",
		ArgsUsage: "TABLE",
		Description: "Reads the keys from Postgres, and then each row through the API, which loads it as it would for anybody:\n" +
			"once, under a lease, so that no row that is written meanwhile is cached as it was before.",
		Flags: append(urlFlags()[:1], apiFlag(), configFlag(), outputFlag(),
			&cli.StringFlag{Name: "where", Usage: "only rows for which this `SQL` condition is true"},
			&cli.Int64Flag{Name: "limit", Usage: "at most so many rows; 0 for all"},
		),
		Action: warm,
	}
}

// warmed is what became of the keys.
type warmed struct {
	Rows   int64 `json:"rows"`   // keys that were asked for
	Stored int64 `json:"stored"` // loaded and stored now
	There  int64 `json:"there"`  // in Redis already
	Gone   int64 `json:"gone"`   // deleted meanwhile
	Passed int64 `json:"passed"` // not stored: being loaded or written by somebody else
}

func warm(ctx context.Context, c *cli.Command) error {
	name := c.Args().First()
	if name == "" || c.Args().Len() > 1 {
		return usage(errors.New("warm takes one table: headpond warm orders"))
	}
	if c.Int64("limit") < 0 {
		return usage(errors.New("--limit must not be negative"))
	}
	dsn, err := databaseURL(c)
	if err != nil {
		return err
	}
	pool, err := postgres.NewPool(ctx, dsn, postgres.PoolOptions{MaxConns: 2, ApplicationName: "headpond warm"})
	if err != nil {
		return usage(err)
	}
	defer pool.Close()
	t, err := warmTable(ctx, c, pool, name)
	if err != nil {
		return err
	}
	w := &warmer{base: strings.TrimSuffix(c.String("api"), "/") + "/v1/" + url.PathEscape(name) + "/"}
	if err := w.cacheable(ctx, name); err != nil {
		return err
	}
	edge := postgres.NewEdge(pool)
	w.total, err = edge.CountRows(ctx, t, c.String("where"), c.Int64("limit"))
	if err != nil {
		return readOnly(err)
	}
	began := time.Now()
	if err := w.run(ctx, edge, t, c.String("where"), c.Int64("limit")); err != nil {
		return readOnly(err)
	}
	out := warmed{w.done.Load(), w.stored.Load(), w.there.Load(), w.gone.Load(), w.passed.Load()}
	if c.String("output") == "json" {
		return json.NewEncoder(c.Root().Writer).Encode(out)
	}
	_, err = fmt.Fprintf(c.Root().Writer, "%d rows of %s in %s: %d stored, %d were there, %d are gone, %d left to others\n",
		out.Rows, name, time.Since(began).Round(time.Millisecond), out.Stored, out.There, out.Gone, out.Passed)
	return err
}

// readOnly tells of a condition that writes. The rest of Headpond takes this code
// for a server that became a standby; here the keys are read in a transaction that
// is read-only on purpose.
func readOnly(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "25006" {
		return fmt.Errorf("--where must not write: %s (SQLSTATE %s)", pg.Message, pg.Code)
	}
	return err
}

func warmTable(ctx context.Context, c *cli.Command, pool *pgxpool.Pool, name string) (*table.Table, error) {
	cfg, err := readConfig(c.String("config"))
	if err != nil {
		return nil, usage(err)
	}
	read, err := postgres.LoadCatalog(ctx, pool, postgres.Selection{Expose: cfg.Expose, Tables: []string{name}})
	if err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	t := read[name]
	switch {
	case t == nil:
		return nil, fmt.Errorf("there is no table %q in this database", name)
	case t.Unusable != "" || !t.HasKey():
		return nil, fmt.Errorf("the rows of %s cannot be cached: %s", name, or(t.Unusable, "it has no primary key"))
	}
	return t, nil
}

// warmer asks for rows, some at a time.
type warmer struct {
	base  string // of the table
	total int64
	http  http.Client

	done, stored, there, gone, passed atomic.Int64
}

// warmTogether requests at a time keep two cores busy.
const warmTogether = 32

func (w *warmer) run(ctx context.Context, edge *postgres.Edge, t *table.Table, where string, limit int64) error {
	transport := &http.Transport{MaxIdleConnsPerHost: warmTogether}
	defer transport.CloseIdleConnections()
	w.http = http.Client{Transport: transport, Timeout: 30 * time.Second}
	bar := newProgress()
	defer bar.end()
	g, ctx := errgroup.WithContext(ctx)
	paths := make(chan string, warmTogether)
	g.Go(func() error {
		defer close(paths)
		return edge.Keys(ctx, t, where, limit, func(row table.Row) error {
			bar.at(w.done.Load(), w.total, "rows")
			select {
			case paths <- t.PathKey(row):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for range warmTogether {
		g.Go(func() error {
			for path := range paths {
				if err := w.ask(ctx, path); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// cacheable asks whether the API keeps rows of the table: that is up to the
// configuration of the API, which this command may not have.
func (w *warmer) cacheable(ctx context.Context, name string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base+"_schema", nil)
	if err != nil {
		return err
	}
	ask := http.Client{Timeout: 30 * time.Second}
	a, err := ask.Do(r)
	if err != nil {
		return fmt.Errorf("ask the API: %w", err)
	}
	defer func() { _ = a.Body.Close() }()
	if a.StatusCode != http.StatusOK {
		return fmt.Errorf("the API answers %s for %s: is --api right, and does it serve this table?", a.Status, r.URL.Redacted())
	}
	var schema struct{ Cache string }
	if err := json.NewDecoder(a.Body).Decode(&schema); err != nil {
		return fmt.Errorf("read the answer of the API to %s: %w", r.URL.Redacted(), err)
	}
	if schema.Cache == "none" {
		return fmt.Errorf("the rows of %s are not cached: this table has cache: none", name)
	}
	return nil
}

// ask reads one row, which loads it.
func (w *warmer) ask(ctx context.Context, key string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, w.base+key, nil)
	if err != nil {
		return err
	}
	a, err := w.http.Do(r)
	if err != nil {
		return fmt.Errorf("ask the API: %w", err)
	}
	_, _ = io.Copy(io.Discard, a.Body)
	_ = a.Body.Close()
	w.done.Add(1)
	status := a.Header.Get("Cache-Status")
	switch {
	case a.StatusCode == http.StatusNotFound && status != "":
		w.gone.Add(1)
	case a.StatusCode != http.StatusOK:
		return fmt.Errorf("the API answers %s for %s%s: is --api right, and does it serve this table?", a.Status, w.base, key)
	case strings.Contains(status, "stored"):
		w.stored.Add(1)
	case strings.Contains(status, "hit"), strings.Contains(status, "collapsed"):
		w.there.Add(1)
	default:
		w.passed.Add(1)
	}
	return nil
}
