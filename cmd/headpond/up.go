package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/migrations"
)

func upCommand() *cli.Command {
	return &cli.Command{
		Name:  "up",
		Usage: "run everything on this machine: a private Redis and PostgreSQL, the API and the flusher",
		Description: "Keeps its data between runs. Ctrl-C stops everything. With DATABASE_URL or REDIS_URL set,\n" +
			"that server is used and only the other is started.",
		Flags: append(urlFlags(), listenFlag(), configFlag(), logFlag(), readOnlyFlag(),
			&cli.StringFlag{Name: "data-dir", Usage: "keep the data in `DIR`", Value: up.DefaultDataDir(), Sources: cli.EnvVars("HEADPOND_DATA_DIR")},
			&cli.BoolFlag{Name: "ephemeral", Usage: "keep the data in a temporary directory that is removed at the end"},
			&cli.BoolFlag{Name: "split", Usage: "run the flusher as a process of its own"},
			&cli.BoolFlag{Name: "json", Usage: "print one line of JSON on stdout when ready"},
		),
		Action: runUp,
	}
}

// stack is the private servers of `up`; nil where the user has their own.
type stack struct {
	redis    *up.Redis
	postgres *up.Postgres
	flusher  *up.Process
}

func runUp(ctx context.Context, c *cli.Command) error {
	cfg, err := readConfig(c.String("config"))
	if err != nil {
		return usage(err)
	}
	s := settings{
		role: roleAll, listen: c.String("listen"), config: cfg, log: newLog(c.String("log-level")),
		databaseURL: c.String("database-url"), redisURL: c.String("redis-url"), readOnly: c.Bool("dashboard-read-only"),
	}
	st := &stack{}
	defer st.stop(s.log)
	if err := st.start(ctx, c, &s); err != nil {
		return installHint(err)
	}
	if err := migrations.Up(ctx, s.databaseURL); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if _, err := migrations.Examples(ctx, s.databaseURL); err != nil {
		return err
	}
	// The children are kept alive until everything else has stopped: what is
	// in the buffer is flushed at the end, and that needs both.
	keeping, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	var g errgroup.Group
	if st.redis != nil {
		g.Go(func() error { return st.redis.Supervise(keeping) })
	}
	if st.postgres != nil {
		g.Go(func() error { return st.postgres.Supervise(keeping) })
	}
	if c.Bool("split") {
		s.role = roleAPI
		if err := st.startFlusher(ctx, c, &s); err != nil {
			return err
		}
		g.Go(func() error { return st.flusher.Supervise(keeping) })
		s.kill = st.killFlusher
	}
	s.local = st.status
	s.installs = st.postgres != nil
	s.ready = func(api string) error { return st.announce(c, &s, api) }
	a, err := newApp(ctx, s)
	if err != nil {
		return err
	}
	err = a.run(ctx)
	if st.flusher != nil {
		err = errors.Join(err, st.flusher.Stop()) // it drains before it ends
	}
	release()
	return errors.Join(err, g.Wait())
}

// start starts what the user does not have.
func (st *stack) start(ctx context.Context, c *cli.Command, s *settings) (err error) {
	dir, ephemeral := c.String("data-dir"), c.Bool("ephemeral")
	in := func(name string) string {
		if ephemeral {
			return ""
		}
		return filepath.Join(dir, name)
	}
	s.stateDir = in("state")
	if s.redisURL == "" {
		st.redis, err = up.StartRedis(ctx, up.RedisOptions{Dir: in("redis"), Ephemeral: ephemeral, Log: s.log})
		if err != nil {
			return fmt.Errorf("start Redis: %w", err)
		}
		s.redisURL = st.redis.URL()
	}
	if s.databaseURL == "" {
		st.postgres, err = up.StartPostgres(ctx, up.PostgresOptions{Dir: in("postgres"), Ephemeral: ephemeral, Log: s.log})
		if err != nil {
			return fmt.Errorf("start PostgreSQL: %w", err)
		}
		s.databaseURL = st.postgres.URL()
	}
	return nil
}

func (st *stack) startFlusher(ctx context.Context, c *cli.Command, s *settings) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start the flusher: %w", err)
	}
	args := []string{"serve", "--role", "flusher", "--log-level", c.String("log-level")}
	if file := c.String("config"); file != "" {
		args = append(args, "--config", file)
	}
	st.flusher, err = up.StartProcess(ctx, up.ProcessOptions{
		Name: "flusher", Program: self, Args: args, Log: s.log,
		Env: append(os.Environ(), "DATABASE_URL="+s.databaseURL, "REDIS_URL="+s.redisURL,
			"HEADPOND_DATABASE_URL="+s.databaseURL, "HEADPOND_REDIS_URL="+s.redisURL),
	})
	return err
}

func (st *stack) stop(log *slog.Logger) {
	if st.flusher != nil {
		_ = st.flusher.Stop()
	}
	if st.redis != nil {
		if err := st.redis.Stop(); err != nil {
			log.Error("stop Redis", "error", err)
		}
	}
	if st.postgres != nil {
		if err := st.postgres.Stop(); err != nil {
			log.Error("stop PostgreSQL", "error", err)
		}
	}
}

// errNoFlusher: it died a moment ago.
var errNoFlusher = errors.New("the flusher does not run at this moment")

// killFlusher sends SIGKILL; the supervisor starts the flusher again, when it has
// been away for so long.
func (st *stack) killFlusher(down time.Duration) (pid int, err error) {
	if pid = st.flusher.PID(); pid == 0 {
		return 0, errNoFlusher
	}
	return pid, st.flusher.KillFor(down)
}

// status is the local stack's part of /admin/v1/status.
func (st *stack) status() any {
	out := map[string]any{"can_kill_flusher": st.flusher != nil}
	for name, pid := range st.pids() {
		out[name] = pid
	}
	return out
}

// pids of the processes as they are now.
func (st *stack) pids() map[string]int {
	out := map[string]int{"flusher_pid": os.Getpid()}
	if st.flusher != nil {
		out["flusher_pid"] = st.flusher.PID()
	}
	if st.redis != nil {
		out["redis_pid"] = st.redis.PID()
	}
	if st.postgres != nil {
		out["postgres_pid"] = st.postgres.PID()
	}
	return out
}

// announce says that everything runs, and what to try.
func (st *stack) announce(c *cli.Command, s *settings, api string) error {
	url := "http://" + api
	if c.Bool("json") {
		line := map[string]any{
			"api": url, "dashboard": url + "/dashboard", "database_url": s.databaseURL, "redis_url": s.redisURL, "pid": os.Getpid(),
		}
		for name, pid := range st.pids() {
			line[name] = pid
		}
		text, err := json.Marshal(line)
		if err != nil {
			return fmt.Errorf("print the ready line: %w", err)
		}
		_, err = fmt.Fprintln(c.Root().Writer, string(text))
		return err
	}
	_, err := fmt.Fprintf(c.Root().Writer, `Headpond is up.

  API       %[1]s
  Dashboard %[1]s/dashboard
  Metrics   %[1]s/metrics
  Postgres  %[2]s
  Redis     %[3]s

Try it:

  curl -s %[1]s/v1/events -H 'Content-Type: application/json' -d '{"user_id":1,"kind":"click","payload":{"page":"/"}}'

Ctrl-C stops everything; the data is kept in %[4]s.
`, url, s.databaseURL, s.redisURL, where(c))
	return err
}

func where(c *cli.Command) string {
	if c.Bool("ephemeral") {
		return "nothing: this run is ephemeral"
	}
	return c.String("data-dir")
}

// installHint gives a missing program its own exit code.
func installHint(err error) error {
	var missing *up.NotInstalledError
	if errors.As(err, &missing) {
		return cli.Exit(missing.Error(), exitMissing)
	}
	return err
}
