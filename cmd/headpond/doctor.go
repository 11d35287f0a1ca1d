package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/urfave/cli/v3"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/flusher/postgres"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "check Redis, PostgreSQL, the tables and Headpond, and say what mends what is wrong",
		Description: "Looks at DATABASE_URL and REDIS_URL, whether Headpond runs or not; of an API that answers it shows the status too.\n" +
			"It changes nothing. Exit codes: 0 all is well, or there are only warnings; 1 something is wrong; 2 it could not look.",
		Flags:  append(urlFlags(), apiFlag(), configFlag(), outputFlag()),
		Action: doctor,
	}
}

// diagnosis is what the doctor found.
type diagnosis struct {
	OK     bool           `json:"ok"`
	Checks []buffer.Check `json:"checks"`
	// MayBeDown is how long Postgres may be away at the present rate before writes
	// are refused, in ms, as the API says; null when no API answers, or it cannot tell.
	MayBeDown *int64 `json:"postgres_may_be_down_for_ms"`

	asked  bool // the API was, and answered
	blind  bool // a server could not be asked
	hide   func(string) string
	config *config
}

// doctorTime is how long the doctor may look: a server that hangs is a finding.
const doctorTime = time.Minute

func doctor(ctx context.Context, c *cli.Command) error {
	dsn, redisURL := c.String("database-url"), c.String("redis-url")
	if dsn == "" || redisURL == "" {
		return usage(errors.New("doctor needs DATABASE_URL and REDIS_URL (or --database-url and --redis-url)"))
	}
	cfg, err := readConfig(c.String("config"))
	if err != nil {
		return usage(err)
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	redis.SetLogger(driverLog{slog.New(slog.DiscardHandler)})
	d := &diagnosis{hide: hider(dsn, redisURL), config: cfg}
	b := d.lookAtRedis(ctx, redisURL)
	d.lookAtPostgres(ctx, dsn, b)
	d.lookAtAPI(ctx, c.String("api"))
	d.OK = !d.blind && !slices.ContainsFunc(d.Checks, func(c buffer.Check) bool { return c.Severity == buffer.CheckError })
	for i := range d.Checks {
		d.Checks[i].Text, d.Checks[i].Mend = d.hide(d.Checks[i].Text), d.hide(d.Checks[i].Mend)
	}
	if err := d.show(c); err != nil {
		return err
	}
	switch {
	case d.blind:
		return cli.Exit("", exitUsage)
	case !d.OK:
		return cli.Exit("", exitFailed)
	}
	return nil
}

func (d *diagnosis) show(c *cli.Command) error {
	if c.String("output") == "json" {
		return json.NewEncoder(c.Root().Writer).Encode(d)
	}
	return d.print(c.Root().Writer)
}

func (d *diagnosis) add(checks ...buffer.Check) { d.Checks = append(d.Checks, checks...) }

// lookAtRedis gives what reads the buffer, or nil.
func (d *diagnosis) lookAtRedis(ctx context.Context, url string) *buffer.Buffer {
	rdb, err := buffer.Open(url)
	var b *buffer.Buffer
	if err == nil {
		b, err = buffer.New(buffer.Config{}, rdb, nil, slog.New(slog.DiscardHandler))
	}
	if err == nil {
		context.AfterFunc(ctx, func() { _ = rdb.Close() })
		if err = b.CheckDurability(ctx); errors.Is(err, buffer.ErrUnsafeRedis) {
			err = nil // it is among the checks
		}
	}
	if err != nil {
		d.blind = true
		why, mend := explainRedis(err)
		d.add(buffer.Wrong(buffer.GroupRedis, "connection", mend, "%s", why))
		return nil
	}
	d.add(b.Durability().Checks...)
	return b
}

func (d *diagnosis) lookAtPostgres(ctx context.Context, dsn string, b *buffer.Buffer) {
	pool, err := postgres.NewPool(ctx, dsn, postgres.PoolOptions{MaxConns: 2, ApplicationName: "headpond doctor"})
	if err == nil {
		defer pool.Close()
		named := slices.Sorted(maps.Keys(d.config.Tables))
		checks := postgres.NewChecks(pool, connections(d.config))
		tables, failed := postgres.LoadCatalog(ctx, pool, postgres.Selection{Expose: d.config.Expose, Tables: named})
		if err = failed; err == nil {
			var found []buffer.Check
			if found, err = checkPostgres(ctx, checks, dsn, tables, named); err == nil {
				d.add(found...)
			}
		}
	}
	if err != nil {
		d.blind = true
		why, mend := explainPostgres(err)
		d.add(buffer.Wrong(buffer.GroupPostgres, "connection", mend, "%s", why))
		return
	}
	if b != nil {
		d.lookAtFlushers(ctx, b, postgres.NewWatermarks(pool))
	}
}

// lookAtFlushers compares what waits with who works on it.
func (d *diagnosis) lookAtFlushers(ctx context.Context, b *buffer.Buffer, watermarks *postgres.Watermarks) {
	const group = buffer.GroupHeadpond
	progress, err := watermarks.Progress(ctx)
	if err != nil {
		return // the migrations are missing
	}
	places, waiting, behind := make([]buffer.Place, len(progress)), int64(0), 0
	for i := range progress {
		places[i] = progress[i].Place
	}
	tails, err := b.Tails(ctx, places)
	flushers, err2 := b.Flushers(ctx)
	if err := errors.Join(err, err2); err != nil {
		d.add(buffer.Wrong(group, "flushers", "", "%s", err))
		return
	}
	for i, t := range tails {
		if n := int64(t.Last.Seq) - int64(progress[i].Watermark.Seq); n >= 0 { //nolint:gosec // below 2^53
			waiting += n
		} else {
			behind++
		}
	}
	if behind > 0 {
		d.add(buffer.Risk(group, "redis", "headpond verify shows what differs; the next write opens a new epoch",
			"Redis has lost data: %d of %d partitions are behind what is committed.", behind, len(tails)))
	}
	switch {
	case len(flushers) == 0 && waiting > 0:
		d.add(buffer.Risk(group, "flushers", "headpond serve --role flusher", "No flusher reports, and %d rows wait.", waiting))
	default:
		d.add(buffer.Fine(group, "flushers", "Flushers that report: %d. Rows that wait: %d.", len(flushers), waiting))
	}
	for _, f := range flushers {
		for _, name := range slices.Sorted(maps.Keys(f.Tables)) {
			if t := f.Tables[name]; t.Error != "" && t.Halted {
				d.add(buffer.Wrong(group, name, "", "Table %s is halted: %s", name, t.Error))
			}
		}
	}
}

// lookAtAPI adds what only a running API knows. That none answers is no
// fault: the doctor works when nothing runs.
func (d *diagnosis) lookAtAPI(ctx context.Context, url string) {
	const group = buffer.GroupHeadpond
	text, err := fetchStatus(ctx, url)
	var v struct {
		statusView
		Pressure struct {
			MayBeDown *int64 `json:"postgres_may_be_down_for_ms"`
		} `json:"pressure"`
	}
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		d.add(buffer.Fine(group, "api", "No API answers at %s; with --api the doctor looks at one that runs elsewhere.", url))
		return
	}
	d.asked, d.MayBeDown = true, v.Pressure.MayBeDown
	switch v.Verdict {
	case "ok":
		d.add(buffer.Fine(group, "api", "The API at %s says: %s", url, v.Why))
	case "behind":
		d.add(buffer.Risk(group, "api", "", "The API at %s says: %s", url, v.Why))
	default:
		d.add(buffer.Wrong(group, "api", "", "The API at %s says: %s", url, v.Why))
	}
	known := buffer.Sentences(d.Checks)
	for _, warning := range v.Warn {
		if !slices.Contains(known, warning) && d.Checks != nil && !d.seenAbout(warning) {
			d.add(buffer.Risk(group, "api", "", "%s", warning))
		}
	}
}

// seenAbout: a number in a sentence may have changed since the API looked.
func (d *diagnosis) seenAbout(warning string) bool {
	return slices.ContainsFunc(d.Checks, func(c buffer.Check) bool {
		return c.Severity != buffer.CheckOK && withoutDigits(c.Sentence()) == withoutDigits(warning)
	})
}

func withoutDigits(s string) string {
	out := make([]rune, 0, len(s))
	for _, r := range s {
		if r < '0' || r > '9' {
			out = append(out, r)
		}
	}
	return string(out)
}

// downText says how long Postgres may be down, by the caps and rates of the API.
func (d *diagnosis) downText() string {
	switch {
	case !d.asked:
		return "How long Postgres may be down cannot be told: no API answers, which knows the limits and the rates."
	case d.MayBeDown == nil:
		return "At the present rate nothing fills the backlog: how long Postgres may be down cannot be told."
	case *d.MayBeDown == 0:
		return "Writes are refused now, of one table at least."
	case *d.MayBeDown > (365 * 24 * time.Hour).Milliseconds():
		return "Postgres may be down for more than a year at the present rate, before writes are refused."
	}
	down := time.Duration(*d.MayBeDown) * time.Millisecond
	return fmt.Sprintf("Postgres may be down for %s at the present rate, before writes are refused.", down.Round(time.Second))
}
