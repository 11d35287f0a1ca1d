package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed sql/*.sql
var embedded embed.FS

// versions is goose's own table. It lies beside ours so that the user's
// schemas stay as they were.
const versions = "headpond.migrations"

// lockID is the advisory lock under which migrations run: "headpond" in ASCII.
const lockID = 0x68656164706f6e64

// Up brings the schema headpond to the version this program needs. Safe to
// call at any time from any number of processes. When there is nothing to do
// it takes no lock and needs no privilege but to read headpond.migrations.
func Up(ctx context.Context, databaseURL string) error {
	return with(ctx, databaseURL, func(db *sql.DB, p *goose.Provider) error {
		current, err := applied(ctx, db)
		if err != nil {
			return err
		}
		if current == latest(p) {
			return nil
		}
		if current > latest(p) {
			return fmt.Errorf("the database is at version %d of the schema headpond and this program knows versions up to %d: run the newer program",
				current, latest(p))
		}
		if err := ensureSchema(ctx, db); err != nil {
			return err
		}
		if _, err := p.Up(ctx); err != nil {
			return fmt.Errorf("migrate the schema headpond: %w", err)
		}
		return nil
	})
}

// with opens the database for as long as do runs. goose speaks database/sql,
// and writes the time in the session's zone.
func with(ctx context.Context, databaseURL string, do func(*sql.DB, *goose.Provider) error) error {
	cfg, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		// The driver's error quotes the URL, and leaves the password out only as well as it can.
		return errors.New("read the database URL: it is not one such as postgres://user:password@host:5432/database; special characters of a password must be percent-encoded")
	}
	cfg.RuntimeParams["application_name"] = "headpond migrate"
	cfg.RuntimeParams["timezone"] = "UTC"
	db := stdlib.OpenDB(*cfg)
	defer func() { _ = db.Close() }()
	if err := db.PingContext(ctx); err != nil {
		return fmt.Errorf("connect for migrations: %w", err)
	}
	p, err := provider(db)
	if err != nil {
		return err
	}
	return do(db, p)
}

func provider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(embedded, "sql")
	if err != nil {
		return nil, fmt.Errorf("read embedded migrations: %w", err)
	}
	// One try a second for five minutes: a process that comes second waits
	// until the first is done.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(lockID), lock.WithLockTimeout(1, 300))
	if err != nil {
		return nil, fmt.Errorf("prepare the lock of migrations: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName(versions),
		goose.WithSessionLocker(locker),
		goose.WithLogger(goose.NopLogger()),
		goose.WithDisableGlobalRegistry(true),
	)
	if err != nil {
		return nil, fmt.Errorf("prepare migrations: %w", err)
	}
	return p, nil
}

// latest is the newest version that this program brings with it.
func latest(p *goose.Provider) int64 {
	sources := p.ListSources()
	return sources[len(sources)-1].Version
}

// applied is the version that the database is at, 0 when it has none. goose
// would create its table to find out.
func applied(ctx context.Context, db *sql.DB) (int64, error) {
	var there bool
	if err := db.QueryRowContext(ctx, `select to_regclass('headpond.migrations') is not null`).Scan(&there); err != nil {
		return 0, fmt.Errorf("look for headpond.migrations: %w", err)
	}
	if !there {
		return 0, nil
	}
	var version int64
	err := db.QueryRowContext(ctx, `select coalesce(max(version_id), 0) from headpond.migrations where is_applied`).Scan(&version)
	if err != nil {
		return 0, fmt.Errorf("read headpond.migrations: %w", err)
	}
	return version, nil
}

// ensureSchema makes the schema that goose's own table lies in. IF NOT EXISTS
// is neither safe against another process nor free of the privilege to create,
// hence the lock and the look.
func ensureSchema(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, `select pg_advisory_xact_lock($1)`, int64(lockID)); err != nil {
		return fmt.Errorf("lock migrations: %w", err)
	}
	var there bool
	if err := tx.QueryRowContext(ctx, `select to_regnamespace('headpond') is not null`).Scan(&there); err != nil {
		return fmt.Errorf("look for the schema headpond: %w", err)
	}
	if there {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `create schema headpond`); err != nil {
		return fmt.Errorf("create the schema headpond (as the owner of the database: CREATE SCHEMA headpond AUTHORIZATION the_role): %w", err)
	}
	return tx.Commit()
}
