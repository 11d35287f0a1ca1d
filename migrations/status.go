package migrations

import (
	"context"
	"database/sql"
	"fmt"
	"path"
	"time"

	"github.com/pressly/goose/v3"
)

// Migration is one step of the schema headpond.
type Migration struct {
	Version   int64
	Name      string    // file name
	AppliedAt time.Time // zero when it has not been applied
}

// Applied reports whether the database has this step.
func (m Migration) Applied() bool { return !m.AppliedAt.IsZero() }

// Status lists the steps that this program knows, oldest first, and which of
// them the database has. It changes nothing.
func Status(ctx context.Context, databaseURL string) ([]Migration, error) {
	var out []Migration
	err := with(ctx, databaseURL, func(db *sql.DB, p *goose.Provider) error {
		done, err := appliedAt(ctx, db)
		if err != nil {
			return err
		}
		for _, s := range p.ListSources() {
			out = append(out, Migration{Version: s.Version, Name: path.Base(s.Path), AppliedAt: done[s.Version]})
		}
		return nil
	})
	return out, err
}

func appliedAt(ctx context.Context, db *sql.DB) (map[int64]time.Time, error) {
	done := make(map[int64]time.Time)
	if current, err := applied(ctx, db); err != nil || current == 0 {
		return done, err
	}
	rows, err := db.QueryContext(ctx, `select version_id, max(tstamp) from headpond.migrations where is_applied group by 1`)
	if err != nil {
		return nil, fmt.Errorf("read headpond.migrations: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var version int64
		var at time.Time
		if err := rows.Scan(&version, &at); err != nil {
			return nil, fmt.Errorf("read headpond.migrations: %w", err)
		}
		done[version] = at
	}
	return done, rows.Err()
}
