package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/headpond/headpond/cmd/headpond/up"
)

func drillCommand() *cli.Command {
	return &cli.Command{
		Name:  "drill",
		Usage: "kill everything under load, again and again, and prove that nothing was lost or applied twice",
		Description: "Starts a private Redis and PostgreSQL, two API and two flusher processes, writes to them, and\n" +
			"meanwhile kills each with SIGKILL (flushers at least ten times), stops them with SIGSTOP, and keeps\n" +
			"PostgreSQL away until the backlog is full. Then it compares the tables with what the clients know.\n" +
			"Exit code 0: nothing lost, nothing twice, the ledger closes; 1: not so, or too little was written for\n" +
			"the run to mean anything. Then the history and all logs are kept.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "api", Usage: "use the Headpond at this `URL`, after a question, and kill nothing"},
			&cli.StringFlag{Name: "database-url", Usage: "with --api: its PostgreSQL `URL`", Sources: cli.EnvVars("HEADPOND_DATABASE_URL", "DATABASE_URL")},
			&cli.BoolFlag{Name: "yes", Usage: "with --api: do not ask"},
			&cli.BoolFlag{Name: "yes-kill", Usage: "with --api: kill what a `headpond up` on this machine starts again"},
			&cli.IntFlag{Name: "rate", Usage: "offer `N` writes per second", Value: 2000},
			&cli.DurationFlag{Name: "duration", Usage: "write for so long", Value: 2 * time.Minute},
			&cli.Uint64Flag{Name: "seed", Usage: "draw writes and faults from `N`, to repeat a run"},
			&cli.StringFlag{Name: "out", Usage: "keep history, report and logs in `DIR`, also when all went well"},
			outputFlagOf("text"),
			&cli.StringFlag{Name: "picture", Usage: "draw lag and backlog over time as SVG into `FILE`"},
		},
		Action: runDrill,
	}
}

// drill is one run of the command.
type drill struct {
	rate  int
	lasts time.Duration
	seed  uint64
	dir   string
	kept  bool // dir was given

	yours *drillYours // nil for a private stack
	kills bool

	live  *drillLive
	load  *drillLoad
	watch *drillWatch
	end   *drillEnd
}

func readDrill(c *cli.Command) (*drill, error) {
	d := &drill{rate: c.Int("rate"), lasts: c.Duration("duration"), seed: c.Uint64("seed"), dir: c.String("out"), live: newDrillLive(os.Stderr)}
	d.kept, d.kills = d.dir != "", !c.IsSet("api") || c.Bool("yes-kill")
	if !c.IsSet("seed") {
		d.seed = rand.Uint64N(1_000_000) //nolint:gosec // no secret
	}
	var errs []error
	if d.rate < 100 || d.rate > 100_000 {
		errs = append(errs, fmt.Errorf("--rate must be from 100 to 100000, not %d", d.rate))
	}
	if d.lasts < time.Second || d.lasts > 24*time.Hour {
		errs = append(errs, fmt.Errorf("--duration must be from 1s to 24h, not %s", d.lasts))
	}
	return d, errors.Join(errs...)
}

func runDrill(ctx context.Context, c *cli.Command) error {
	d, err := readDrill(c)
	if err != nil {
		return usage(err)
	}
	if c.IsSet("api") {
		if d.yours, err = newDrillYours(ctx, c, d); err != nil {
			return err
		}
	}
	if err := d.makeDir(); err != nil {
		return err
	}
	report, err := d.run(ctx)
	d.live.clear()
	if missing := new(up.NotInstalledError); errors.As(err, &missing) {
		d.remains(true)
		return installHint(err)
	}
	if err != nil {
		d.remains(false)
		if ctx.Err() != nil {
			return cli.Exit("drill: stopped before the end", exitFailed)
		}
		return err
	}
	if err := report.publish(c.Root().Writer, c.String("output"), c.String("picture")); err != nil {
		return err
	}
	d.remains(report.Passed)
	if !report.Passed {
		return cli.Exit("", exitFailed)
	}
	return nil
}

// makeDir makes the directory for everything. The servers of root run as
// another user, who must be able to enter it.
func (d *drill) makeDir() (err error) {
	if d.kept {
		d.dir, err = filepath.Abs(d.dir)
		return errors.Join(err, os.MkdirAll(d.dir, 0o755)) //nolint:gosec // see above
	}
	if d.dir, err = os.MkdirTemp("", "headpond-drill-"); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return os.Chmod(d.dir, 0o755) //nolint:gosec // see above
}

// remains says where the artefacts are, or removes them: nobody needs those of a
// drill that passed.
func (d *drill) remains(passed bool) {
	if passed && !d.kept {
		_ = os.RemoveAll(d.dir)
		return
	}
	fmt.Fprintf(os.Stderr, "History, logs and data are kept in %s\n", d.dir)
	if !passed {
		fmt.Fprintf(os.Stderr, "The same writes and faults again: headpond drill --seed %d --rate %d --duration %s\n", d.seed, d.rate, d.lasts)
	}
}

// run the drill. The error is one of the drill itself: what Headpond did wrong
// is in the report.
func (d *drill) run(ctx context.Context) (_ *drillReport, err error) {
	plan := planDrill(d.seed, d.lasts)
	if d.yours != nil {
		return d.runYours(ctx, plan)
	}
	d.live.say(fmt.Sprintf("drill with seed %d: starting Redis, PostgreSQL, %d API and %d flusher processes", d.seed, drillProcesses, drillProcesses))
	// A backlog of four seconds of all writes is full, in one of the tables,
	// some seconds after Postgres has gone.
	stack, err := startDrillStack(ctx, d.dir, int64(4*d.rate))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stack.stop()) }()
	if d.load, err = newDrillLoad(d.rate, d.seed, "http://headpond", stack.addrs); err != nil {
		return nil, err
	}
	d.end = &drillEnd{api: "http://" + stack.addrs[0], database: stack.postgres.URL(), client: d.load.client}
	return d.report(ctx, plan, stack.strike)
}

func (d *drill) runYours(ctx context.Context, plan []drillFault) (r *drillReport, err error) {
	if plan, err = d.yours.plan(ctx, plan); err != nil {
		return nil, err
	}
	if !d.kills {
		plan = nil
	}
	if err := d.yours.open(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if r == nil || r.Passed { // else somebody will want to look at the tables
			err = errors.Join(err, d.yours.close(ctx))
		}
	}()
	if d.load, err = newDrillLoad(d.rate, d.seed, d.yours.api, nil); err != nil {
		return nil, err
	}
	d.end = &drillEnd{api: d.yours.api, database: d.yours.database, client: d.load.client}
	return d.report(ctx, plan, d.yours.strike)
}

// report of a load during which the faults of a plan happen.
func (d *drill) report(ctx context.Context, plan []drillFault, how strike) (*drillReport, error) {
	if err := d.end.begin(ctx); err != nil {
		return nil, err
	}
	d.watch = &drillWatch{load: d.load, database: d.end.database}
	r := &drillReport{Seed: d.seed, Rate: d.rate, Events: []drillEvent{}, Verdict: &drillVerdict{Problems: []string{}}}
	s := &striker{load: d.load, watch: d.watch, lasts: d.lasts, least: d.least(), say: d.live.say, strike: how}
	if err := d.exercise(ctx, r, s, plan); err != nil {
		return nil, errors.Join(err, d.save(r))
	}
	if err := d.judge(ctx, r); err != nil {
		r.Verdict.problem("%v", err)
	}
	r.describe(ctx, d)
	return r, d.save(r)
}

// exercise writes, and makes the faults happen.
func (d *drill) exercise(ctx context.Context, r *drillReport, s *striker, plan []drillFault) error {
	watching, end := context.WithCancel(ctx)
	defer end()
	d.load.start(ctx)
	var watchers sync.WaitGroup
	watchers.Go(func() { d.watch.run(watching) })
	watchers.Go(func() { d.live.follow(watching, d.watch, d.lasts) })
	events, err := s.run(ctx, plan)
	healed, acked := d.load.now(), d.load.acked.Load()
	if err == nil {
		s.rest(ctx, max(d.lasts, healed+seconds(quietShare*d.lasts.Seconds())))
		s.acknowledged(ctx, acked+2*d.least()) // some of them began before
	}
	r.Seconds = d.load.now().Seconds()
	d.live.say("stopping the load")
	d.load.stop()
	if len(plan) == 0 {
		d.watch.settle()
	}
	s.calm(ctx, d.load.acked.Load()-1)
	end()
	watchers.Wait()
	r.Events, r.Samples, r.CalmLag = append(r.Events, events...), d.watch.all(), d.watch.normal()
	if err != nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	first := healed
	if len(events) > 0 {
		recovered(r.Events, r.Samples, r.CalmLag, r.Seconds)
		first = seconds(events[0].At)
	}
	r.Traffic = d.load.history.traffic(first, healed)
	return nil
}

// least is how many writes must be acknowledged before the faults, between
// them and after them, for the drill to mean anything.
func (d *drill) least() int64 {
	return max(20, int64(float64(d.rate)*d.lasts.Seconds()*quietShare/20))
}

// judge resolves what is unknown, drains, and compares.
func (d *drill) judge(ctx context.Context, r *drillReport) error {
	d.live.say(fmt.Sprintf("repeating %d requests of unknown outcome", len(d.load.open)))
	if err := d.load.resolve(ctx); err != nil {
		return err
	}
	ledger, err := d.end.drain(ctx, func(pending int64) { d.live.say(fmt.Sprintf("draining: %d rows are pending", pending)) })
	if err != nil {
		return err
	}
	d.live.say("comparing PostgreSQL with the history")
	found, err := d.end.find(ctx)
	if err != nil {
		return err
	}
	found.Ledger = ledger
	r.Ledger, r.Verdict = ledger, d.load.history.check(found)
	d.end.reads(ctx, found, r.Verdict)
	return nil
}

// save keeps the history and the report beside the logs.
func (d *drill) save(r *drillReport) error {
	file, err := os.Create(filepath.Join(d.dir, "history.ndjson"))
	if err != nil {
		return fmt.Errorf("save history: %w", err)
	}
	defer func() { _ = file.Close() }()
	text, err := r.json()
	return errors.Join(d.load.history.save(file), err, os.WriteFile(filepath.Join(d.dir, "report.json"), text, 0o600))
}
