package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"
)

func benchTelemetryCommand() *cli.Command {
	return &cli.Command{
		Name:  "telemetry",
		Usage: "measure what traces, metrics and the dashboard cost",
		Description: "Single POSTs without telemetry, with all metrics and 1 % of the requests traced, and with every\n" +
			"request traced, in rounds side by side; an endpoint of the bench takes what is exported. Then the CPU of\n" +
			"open dashboards, and the time of the status with a small and a large backlog, under load.",
		Flags: append(urlFlags(), outputFlag(),
			&cli.BoolFlag{Name: "quick", Usage: "a short run: good for a look, not for figures to quote"},
			&cli.StringFlag{Name: "out", Usage: "write the figures as JSON to `FILE`"},
		),
		Action: func(ctx context.Context, c *cli.Command) error {
			return benchRun(ctx, c, (*bench).telemetryPlan)
		},
	}
}

// Many short rounds: the differences are small, and the noise is not.
const (
	telemetryRounds = 21
	telemetryLoad   = 2 * time.Second
)

func (b *bench) telemetryPlan() (steps []step) {
	rounds := telemetryRounds
	if b.rounds < fullExtent.rounds {
		rounds = b.rounds
	}
	for r := range rounds {
		round := []step{
			{title: "Headpond without telemetry", run: b.underTelemetry("t_off", "OTEL_SDK_DISABLED=true")},
			{title: "Headpond, metrics and 1 % of the traces", run: b.underTelemetry("t_one", "OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.01")},
			{title: "Headpond, metrics and every trace", run: b.underTelemetry("t_all", "OTEL_TRACES_SAMPLER=parentbased_always_on")},
		}
		if r%2 == 1 {
			slices.Reverse(round)
		}
		for _, s := range round {
			s.round, s.title = r, fmt.Sprintf("round %d of %d: %s", r+1, rounds, s.title)
			steps = append(steps, s)
		}
	}
	return append(steps,
		step{title: "the CPU of open dashboards", run: b.openPages},
		step{title: "the status with a backlog", run: b.statusUnderLoad})
}

// underTelemetry is (d) of a process of its own, whose spans and metrics go to an
// endpoint that takes them and does nothing with them.
func (b *bench) underTelemetry(key string, env ...string) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		endpoint, stop, err := startSink()
		if err != nil {
			return err
		}
		defer stop()
		child, err := b.stack.spawn(ctx, residentConfig, append(env, "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_METRIC_EXPORT_INTERVAL=1000")...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, child.stop()) }()
		load := &benchLoad{addr: child.addr, requests: posts(benchTable, echo.MIMEApplicationJSON, b.rows.single), conns: 64}
		load.lasts = b.warm
		warm, err := load.run(ctx)
		if err != nil {
			return err
		}
		load.lasts = min(b.load, telemetryLoad)
		peak, err := load.run(ctx)
		if err != nil {
			return err
		}
		b.results.add(key, peak.perSecond())
		return b.stack.verify(ctx, benchTable, warm.requests+peak.requests)
	}
}

// startSink takes OTLP over HTTP.
func startSink() (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		return "", nil, fmt.Errorf("start an endpoint: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-protobuf")
	})}
	go func() { _ = server.Serve(l) }()
	return "http://" + l.Addr().String(), func() { _ = server.Close() }, nil
}

// The dashboards are open on so many tables of eight partitions each.
const (
	pageTables = 8
	openPages  = 100
)

// openPages is the CPU of open event streams, of each, in percent of one core.
func (b *bench) openPages(ctx context.Context) (err error) {
	if !canReadProc() {
		b.progress.say("the CPU of dashboards needs /proc, which this system has not: skipped")
		return nil
	}
	if err := b.stack.idleTables(ctx); err != nil {
		return err
	}
	names := make([]string, pageTables)
	for i := range names {
		names[i] = fmt.Sprintf("%s.t%d", idleSchema, i)
	}
	child, err := b.stack.spawn(ctx, "expose: ["+strings.Join(names, ", ")+"]\n")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, child.stop()) }()
	pause(ctx, b.settle)
	idle, err := cpuPercent(ctx, child.PID(), b.idle)
	if err != nil {
		return err
	}
	streaming, end := context.WithCancel(ctx)
	var pages errgroup.Group
	defer end()
	for range openPages {
		pages.Go(func() error { return follow(streaming, "http://"+child.addr+"/admin/v1/events") })
	}
	pause(ctx, b.settle)
	busy, err := cpuPercent(ctx, child.PID(), b.idle)
	if err != nil {
		return err
	}
	if end(); pages.Wait() != nil && !errors.Is(pages.Wait(), context.Canceled) {
		return pages.Wait()
	}
	b.results.add("t_pages", max(busy-idle, 0)/openPages)
	return nil
}

func follow(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("follow events: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("follow events: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("follow events: %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// statusUnderLoad is the time of GET /admin/v1/status while rows are posted and none
// is committed, with a thousand of them waiting and with millions.
func (b *bench) statusUnderLoad(ctx context.Context) (err error) {
	child, err := b.stack.spawn(ctx, residentConfig+"limits: {backlog_rows: 50000000, backlog_bytes: 20GB, memory: 8GB}\n")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, child.stop()) }()
	large := 5_000_000
	if b.rounds < fullExtent.rounds {
		large = b.backlog
	}
	return b.stack.holdWatermarks(ctx, func() error {
		waits := 0
		for _, at := range []struct {
			key  string
			rows int
		}{{"t_status_small", bulkSize}, {"t_status_large", large}} {
			if _, err := b.fill(ctx, child.addr, benchTable, at.rows-waits); err != nil {
				return err
			}
			waits = at.rows
			pause(ctx, b.settle)
			if err := b.timeStatus(ctx, child.addr, at.key); err != nil {
				return err
			}
		}
		return nil
	})
}

// statusRate is what is posted meanwhile, rows a second.
const statusRate = 2000

func (b *bench) timeStatus(ctx context.Context, addr, key string) error {
	writing, end := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error {
		l := &benchLoad{addr: addr, requests: posts(benchTable, echo.MIMEApplicationJSON, b.rows.single), conns: 16, rate: statusRate}
		_, err := l.run(writing)
		if writing.Err() != nil {
			err = nil
		}
		return err
	})
	got, err := timeGets(ctx, "http://"+addr+"/admin/v1/status", b.load)
	end()
	if err = errors.Join(err, g.Wait()); err != nil {
		return err
	}
	b.results.latency(key, got)
	b.results.add(key, float64(got.latency.ValueAtQuantile(50))/1000)
	return nil
}

// timeGets asks fifty times a second.
func timeGets(ctx context.Context, url string, lasts time.Duration) (*benchAnswer, error) {
	a := &benchAnswer{latency: newLatency()}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	start := time.Now()
	for due := start; due.Sub(start) < lasts && ctx.Err() == nil; due = due.Add(20 * time.Millisecond) {
		pause(ctx, time.Until(due))
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, fmt.Errorf("ask for the status: %w", err)
		}
		began := time.Now()
		resp, err := client.Do(req)
		if err != nil {
			return nil, fmt.Errorf("ask for the status: %w", err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("ask for the status: %s", resp.Status)
		}
		_ = a.latency.RecordValue(max(time.Since(began).Microseconds(), 1))
		a.requests++
	}
	a.took = time.Since(start)
	return a, nil
}

// environment of a process that is measured: OTEL_* variables of this one would count.
func environment(env ...string) []string {
	clean := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "OTEL_") })
	return append(clean, env...)
}
