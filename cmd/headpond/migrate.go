package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/headpond/headpond/migrations"
)

func migrateCommand() *cli.Command {
	return &cli.Command{
		Name:  "migrate",
		Usage: "create or update the headpond schema in PostgreSQL",
		Commands: []*cli.Command{
			{Name: "up", Usage: "apply what is missing", Flags: urlFlags()[:1], Action: func(ctx context.Context, c *cli.Command) error {
				url, err := databaseURL(c)
				if err != nil {
					return err
				}
				return migrations.Up(ctx, url)
			}},
			{Name: "status", Usage: "list the migrations; exit 1 when one is missing", Flags: urlFlags()[:1], Action: migrateStatus},
		},
	}
}

func databaseURL(c *cli.Command) (string, error) {
	if url := c.String("database-url"); url != "" {
		return url, nil
	}
	return "", usage(fmt.Errorf("DATABASE_URL (or --database-url) is needed"))
}
