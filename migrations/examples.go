package migrations

import (
	"context"
	_ "embed" // the example tables
	"fmt"

	"github.com/jackc/pgx/v5"
)

//go:embed examples/examples.sql
var examples string

// Examples creates the three example tables if the schema public holds no
// table at all, and reports whether it did. Safe to call from several
// processes at once.
func Examples(ctx context.Context, databaseURL string) (created bool, err error) {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return false, fmt.Errorf("connect for the example tables: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1)`, int64(lockID)); err != nil {
			return fmt.Errorf("lock migrations: %w", err)
		}
		var empty bool
		if err := tx.QueryRow(ctx, `
			select to_regnamespace('public') is not null and not exists (select from pg_class
				where relnamespace = to_regnamespace('public') and relkind in ('r', 'p', 'v', 'm', 'f'))`).Scan(&empty); err != nil {
			return fmt.Errorf("look for tables: %w", err)
		}
		if !empty {
			return nil
		}
		if _, err := tx.Conn().PgConn().Exec(ctx, examples).ReadAll(); err != nil {
			return fmt.Errorf("create the example tables: %w", err)
		}
		created = true
		return nil
	})
	return created && err == nil, err
}
