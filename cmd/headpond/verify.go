package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/urfave/cli/v3"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher/postgres"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:  "verify",
		Usage: "compare the log, the cache and PostgreSQL, and name what differs",
		Description: "Works on a running system: what moves meanwhile is looked at again. It changes nothing, and rests as long as it works.\n" +
			"Exit codes: 0 the same, 1 something differs, 2 it could not look.",
		Flags: append(urlFlags(), configFlag(), outputFlag(),
			&cli.StringFlag{Name: "table", Usage: "only this `TABLE`"},
			&cli.Int64Flag{Name: "sample", Usage: "at most `N` cached rows of each table and N waiting keys of each partition; 0 for all"},
		),
		Action: verify,
	}
}

func verify(ctx context.Context, c *cli.Command) error {
	dsn, redisURL := c.String("database-url"), c.String("redis-url")
	if dsn == "" || redisURL == "" {
		return usage(errors.New("verify needs DATABASE_URL and REDIS_URL (or --database-url and --redis-url)"))
	}
	if c.Int64("sample") < 0 {
		return usage(errors.New("--sample must not be negative"))
	}
	cfg, err := readConfig(c.String("config"))
	if err != nil {
		return usage(err)
	}
	redis.SetLogger(driverLog{slog.New(slog.DiscardHandler)})
	hide := hider(dsn, redisURL)
	rdb, err := buffer.Open(redisURL)
	if err != nil {
		return usage(errors.New(hide(err.Error())))
	}
	defer func() { _ = rdb.Close() }()
	b, err := buffer.New(buffer.Config{}, rdb, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	pool, err := postgres.NewPool(ctx, dsn, postgres.PoolOptions{MaxConns: 2, ApplicationName: "headpond verify"})
	if err != nil {
		return usage(errors.New(hide(err.Error())))
	}
	defer pool.Close()
	v := &verifier{
		b: b, pg: postgres.NewVerifier(pool), watermarks: postgres.NewWatermarks(pool),
		catalog: postgres.NewCatalog(pool, postgres.Selection{Expose: cfg.Expose, Tables: tablesOf(cfg, c.String("table"))}),
		only:    c.String("table"), sample: c.Int64("sample"), bar: newProgress(),
		report: verified{Counts: map[string]int64{}, Found: []difference{}},
	}
	began := time.Now()
	failed := v.run(ctx)
	v.bar.end()
	v.report.Seconds = time.Since(began).Seconds()
	v.report.Same = failed == nil && v.report.Differences == 0
	if err := v.report.show(c); err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return cli.Exit("stopped before the end", exitUsage)
	case failed != nil:
		return cli.Exit("verify could not look: "+hide(failed.Error()), exitUsage)
	case v.report.Differences > 0:
		return cli.Exit("", exitFailed)
	}
	return nil
}

// tablesOf names the tables of the configuration, and the one that was asked for.
func tablesOf(cfg *config, only string) (names []string) {
	for name := range cfg.Tables {
		names = append(names, name)
	}
	if only != "" {
		names = append(names, only)
	}
	return names
}

// verifier compares Redis with Postgres. It keeps no more than a batch of rows at
// a time, and eight bytes for each row of a log.
type verifier struct {
	b          *buffer.Buffer
	pg         *postgres.Verifier
	watermarks *postgres.Watermarks
	catalog    *postgres.Catalog
	tables     map[string]*table.Table
	only       string
	sample     int64
	bar        *progress
	report     verified
	suspects   []suspect
	doubtful   map[buffer.Place]map[string]bool // waiting keys that are suspects

	accounts map[buffer.Place]*postgres.Account
	done     int64 // of total
	total    int64
}

// suspect is a difference that was seen once. On a system that moves it counts
// only when it is there each time that it is looked at again.
type suspect struct {
	difference

	still func(context.Context) (bool, error)
}

// looksAgain are the pauses between the looks: a flush takes milliseconds, and
// what others change in a watched table leaves the cache within a second.
var looksAgain = []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, 800 * time.Millisecond, 1800 * time.Millisecond}

// mostSuspects are judged together.
const mostSuspects = 1000

func (v *verifier) suspect(ctx context.Context, d difference, still func(context.Context) (bool, error)) error {
	v.suspects = append(v.suspects, suspect{d, still})
	if len(v.suspects) < mostSuspects {
		return nil
	}
	return v.judge(ctx)
}

// judge notes those suspects that stay.
func (v *verifier) judge(ctx context.Context) error {
	left, waiting := v.suspects, v.doubtful
	v.suspects, v.doubtful = nil, nil
	var bad []difference
	for _, d := range looksAgain {
		if len(left)+len(waiting) == 0 {
			return nil
		}
		pause(ctx, d)
		kept := left[:0]
		for _, s := range left {
			is, err := s.still(ctx)
			if err != nil {
				return err
			}
			if is {
				kept = append(kept, s)
			}
		}
		left = kept
		var err error
		if bad, waiting, err = v.waitingStill(ctx, waiting); err != nil {
			return err
		}
	}
	for i := range left {
		v.report.note(left[i].difference)
	}
	return v.noteWaiting(ctx, bad)
}

// run compares all. An error means that it could not look.
func (v *verifier) run(ctx context.Context) error {
	var err error
	if v.tables, err = v.catalog.Load(ctx); err != nil {
		return err
	}
	if t := v.tables[v.only]; v.only != "" && (t == nil || t.Unusable != "") {
		return fmt.Errorf("there is no table %q that Headpond could serve in this database", v.only)
	}
	accounts, err := v.pg.Accounts(ctx)
	if err != nil {
		return err
	}
	v.accounts = make(map[buffer.Place]*postgres.Account, len(accounts))
	var places []buffer.Place
	for i := range accounts {
		v.accounts[accounts[i].Place] = &accounts[i]
		if v.of(accounts[i].Place.Table) {
			places = append(places, accounts[i].Place)
		}
	}
	if err := v.measure(ctx, places); err != nil {
		return err
	}
	for _, p := range places {
		v.report.Partitions++
		if err := v.partition(ctx, v.accounts[p]); err != nil {
			return err
		}
	}
	if err := v.keys(ctx); err != nil {
		return err
	}
	return v.judge(ctx)
}

// of reports whether a table is to be looked at.
func (v *verifier) of(name string) bool { return v.only == "" || v.only == name }

// measure tells how much there is to do: rows of the logs, and keys.
func (v *verifier) measure(ctx context.Context, places []buffer.Place) (err error) {
	if v.total, err = v.b.Keys(ctx); err != nil {
		return err
	}
	for _, p := range places {
		s, err := v.b.State(ctx, p)
		switch {
		case errors.Is(err, buffer.ErrDamaged): // partition says so
		case err != nil:
			return err
		case s.First.Seq > 0 && s.Last.Seq >= s.First.Seq:
			v.total += int64(s.Last.Seq-s.First.Seq) + max(int64(s.Last.Seq)-int64(s.Settled), 0) //nolint:gosec // below 2^53
		}
	}
	return nil
}

// progress tells that n more of rows and keys were looked at.
func (v *verifier) progress(n int64) {
	v.done += n
	v.bar.at(min(v.done, v.total), v.total, "rows of the logs and keys")
}

func (v *verifier) watermark(ctx context.Context, p buffer.Place) (table.ID, error) {
	return v.watermarks.Watermark(ctx, p)
}
