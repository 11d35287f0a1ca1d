package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/urfave/cli/v3"

	"github.com/headpond/headpond/migrations"
)

func urlFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "database-url", Usage: "PostgreSQL `URL`", Sources: cli.EnvVars("HEADPOND_DATABASE_URL", "DATABASE_URL")},
		&cli.StringFlag{Name: "redis-url", Usage: "Redis `URL`", Sources: cli.EnvVars("HEADPOND_REDIS_URL", "REDIS_URL")},
	}
}

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Usage: "read this headpond.yaml `FILE`", Sources: cli.EnvVars("HEADPOND_CONFIG")}
}

func listenFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "listen", Usage: "serve HTTP at `ADDRESS`; port 0 picks one",
		Value: "127.0.0.1:8080", Sources: cli.EnvVars("HEADPOND_LISTEN"),
	}
}

func readOnlyFlag() cli.Flag {
	return &cli.BoolFlag{
		Name: "dashboard-read-only", Usage: "refuse what changes something under /admin/v1", Sources: cli.EnvVars("HEADPOND_DASHBOARD_READ_ONLY"),
	}
}

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run the API, the flusher or both against DATABASE_URL and REDIS_URL",
		Flags: append(urlFlags(), listenFlag(), configFlag(), logFlag(), readOnlyFlag(),
			&cli.StringFlag{Name: "role", Usage: "all, api or flusher", Value: "all", Sources: cli.EnvVars("HEADPOND_ROLE")},
			&cli.StringFlag{Name: "state-dir", Usage: "note in `DIR` how far this process has acknowledged writes (default: in the user's cache directory)", Sources: cli.EnvVars("HEADPOND_STATE_DIR")},
			&cli.BoolFlag{Name: "migrate", Usage: "create or update the headpond schema first", Sources: cli.EnvVars("HEADPOND_MIGRATE")},
		),
		Action: serve,
	}
}

func serve(ctx context.Context, c *cli.Command) error {
	s, err := readSettings(c)
	if err != nil {
		return err
	}
	if c.Bool("migrate") {
		if err := migrations.Up(ctx, s.databaseURL); err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
	}
	a, err := newApp(ctx, s)
	if err != nil {
		return err
	}
	return a.run(ctx)
}

func readSettings(c *cli.Command) (settings, error) {
	s := settings{
		role: role(c.String("role")), listen: c.String("listen"),
		databaseURL: c.String("database-url"), redisURL: c.String("redis-url"), log: newLog(c.String("log-level")),
		readOnly: c.Bool("dashboard-read-only"),
	}
	switch s.role {
	case roleAll, roleAPI:
	case roleFlusher:
		if !c.IsSet("listen") {
			s.listen = "" // a flusher serves HTTP only when it is told where
		}
	default:
		return s, usage(fmt.Errorf("--role must be all, api or flusher, not %q", s.role))
	}
	if s.databaseURL == "" || s.redisURL == "" {
		return s, usage(fmt.Errorf("serve needs DATABASE_URL and REDIS_URL (or --database-url and --redis-url); `headpond up` starts both for you"))
	}
	if s.listen != "" {
		if _, _, err := net.SplitHostPort(s.listen); err != nil {
			return s, usage(fmt.Errorf("--listen must be host:port: %w", err))
		}
	}
	cfg, err := readConfig(c.String("config"))
	if err != nil {
		return s, usage(err)
	}
	s.config = cfg
	s.stateDir = stateDir(c.String("state-dir"), s)
	return s, nil
}

// stateDir is where processes of this database on this machine note what they
// acknowledged.
func stateDir(given string, s settings) string {
	if given != "" {
		return given
	}
	base, err := os.UserCacheDir()
	if err != nil {
		base = filepath.Join(os.TempDir(), "headpond-"+strconv.Itoa(os.Getuid()))
	}
	of := s.databaseURL
	if u, err := url.Parse(of); err == nil { // the password may change
		of = u.Host + u.Path
	}
	sum := sha256.Sum256([]byte(of))
	return filepath.Join(base, "headpond", hex.EncodeToString(sum[:6]))
}
