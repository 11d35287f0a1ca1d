package main

import (
	"context"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/urfave/cli/v3"

	"github.com/headpond/headpond/flusher"
	"github.com/headpond/headpond/migrations"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "look at the configuration",
		Commands: []*cli.Command{
			{Name: "print", Usage: "print the effective configuration as YAML", Flags: []cli.Flag{configFlag()}, Action: printConfig},
			{Name: "check", Usage: "check headpond.yaml; exit 2 when it is wrong", Flags: []cli.Flag{configFlag()}, Action: func(_ context.Context, c *cli.Command) error {
				if _, err := readConfig(c.String("config")); err != nil {
					return usage(err)
				}
				_, err := fmt.Fprintln(c.Root().Writer, "ok")
				return err
			}},
		},
	}
}

func printConfig(_ context.Context, c *cli.Command) error {
	cfg, err := readConfig(c.String("config"))
	if err != nil {
		return usage(err)
	}
	cfg.Defaults = cfg.table("")
	cfg.Flusher.Workers = or(cfg.Flusher.Workers, flusher.DefaultWorkers)
	cfg.Flusher.Drain = or(cfg.Flusher.Drain, flusher.DefaultDrain)
	for name := range cfg.Tables {
		cfg.Tables[name] = cfg.table(name)
	}
	text, err := yaml.Marshal(cfg)
	if err != nil {
		return fmt.Errorf("print config: %w", err)
	}
	_, err = c.Root().Writer.Write(text)
	return err
}

func migrateStatus(ctx context.Context, c *cli.Command) error {
	url, err := databaseURL(c)
	if err != nil {
		return err
	}
	all, err := migrations.Status(ctx, url)
	if err != nil {
		return err
	}
	missing := 0
	for _, m := range all {
		state := "missing"
		if m.Applied() {
			state = "applied " + m.AppliedAt.UTC().Format("2006-01-02 15:04:05")
		} else {
			missing++
		}
		if _, err := fmt.Fprintf(c.Root().Writer, "%d  %-40s %s\n", m.Version, m.Name, state); err != nil {
			return err
		}
	}
	if missing > 0 {
		return cli.Exit(fmt.Sprintf("%d migrations are missing: headpond migrate up", missing), exitFailed)
	}
	return nil
}
