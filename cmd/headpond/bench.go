package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v3"
)

func benchCommand() *cli.Command {
	return &cli.Command{
		Name:  "bench",
		Usage: "measure Headpond against plain INSERTs, a naive write-behind and COPY, on this machine",
		Description: "Starts a private Redis (fsync before every answer) and PostgreSQL, unless DATABASE_URL or\n" +
			"REDIS_URL is set, and measures in rounds, so that noise hits all alike. Sections: " + allSections + ".\n" +
			"On a server of yours it makes the tables headpond_bench and headpond_bench_log and the schema\n" +
			"headpond_bench_idle, and removes them at the end. Exit code 1 when a row was lost.",
		Flags: append(urlFlags(), outputFlag(),
			&cli.BoolFlag{Name: "quick", Usage: "a short run of under a minute: good for a look, not for figures to quote"},
			&cli.StringFlag{Name: "only", Usage: "measure these `SECTIONS` alone, for example a,d,e"},
			&cli.StringFlag{Name: "out", Usage: "write the figures as JSON to `FILE`"},
			&cli.StringFlag{Name: "cpuprofile", Usage: "write CPU profiles of the last round to `FILE`.d64, .e_none, .e_index, .g, .k, .l, .m64 and .n64"},
		),
		Action:   runBench,
		Commands: []*cli.Command{benchCacheCommand(), benchTelemetryCommand()},
	}
}

const allSections = "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q"

// bench is one run of the command.
type bench struct {
	extent
	stack    *benchStack
	rows     *benchRows
	results  *benchResults
	progress *benchProgress
	profile  string
	round    int
}

func runBench(ctx context.Context, c *cli.Command) error {
	only, err := readSections(c.String("only"))
	if err != nil {
		return usage(err)
	}
	return benchRun(ctx, c, func(b *bench) []step { return b.plan(only) })
}

// benchRun starts the servers, makes the steps of a plan, and prints the figures.
func benchRun(ctx context.Context, c *cli.Command, plan func(*bench) []step) (err error) {
	b := &bench{extent: fullExtent, results: newBenchResults(), profile: c.String("cpuprofile")}
	if c.Bool("quick") {
		b.extent = quickExtent
	}
	steps := plan(b)
	b.progress = newBenchProgress(os.Stderr, len(steps))
	if b.rows, err = newBenchRows(b.bulkRows); err != nil {
		return err
	}
	defer b.rows.close()
	b.progress.say("starting the servers")
	if b.stack, err = startBenchStack(ctx, c.String("database-url"), c.String("redis-url")); err != nil {
		return installHint(err)
	}
	defer func() { err = errors.Join(err, b.stack.stop()) }()
	if err := b.measure(ctx, steps); err != nil {
		if ctx.Err() != nil {
			return cli.Exit("bench: stopped before the end", exitFailed)
		}
		return err
	}
	b.results.describe(ctx, b.stack, c.Bool("quick"))
	b.progress.clear()
	return publish(c.Root().Writer, b.results.report(), c.String("output"), c.String("out"))
}

// step is one measurement of one round.
type step struct {
	round int
	title string
	run   func(context.Context) error
}

// measure makes every step on empty tables.
func (b *bench) measure(ctx context.Context, steps []step) error {
	b.progress.say("warming up")
	if err := b.warmUp(ctx); err != nil {
		return err
	}
	for _, s := range steps {
		b.round = s.round
		b.progress.step(s.title)
		if err := b.stack.reset(ctx); err != nil {
			return err
		}
		others := watchOthers()
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("bench %s: %w", s.title, err)
		}
		if b.stack.private() {
			percent, known := others.share()
			b.results.disturbed(s.title, percent, known)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// readSections gives the sections that were asked for; all when only is empty.
func readSections(only string) (map[string]bool, error) {
	if only == "" {
		only = allSections
	}
	known := "," + allSections + ","
	out := make(map[string]bool)
	for _, s := range strings.Split(only, ",") {
		s = strings.ToLower(strings.TrimSpace(s))
		if len(s) != 1 || !strings.Contains(known, ","+s+",") {
			return nil, fmt.Errorf("--only takes letters of %s, not %q", allSections, s)
		}
		out[s] = true
	}
	return out, nil
}
