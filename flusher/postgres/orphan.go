package postgres

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/flusher"
)

const foreignKeyViolation = "23503"

// orphans asks the job, once, what is to become of rows whose parent is
// missing. It uses a connection of its own: the job's transaction has failed.
func (s *Store) orphans(job flusher.Batch) func(context.Context, *pgconn.PgError) error {
	asked := false
	return func(ctx context.Context, pg *pgconn.PgError) error {
		if asked || pg.Code != foreignKeyViolation {
			return nil
		}
		asked = true
		parent, err := s.parent(ctx, pg)
		if err != nil {
			return err
		}
		return job.Orphan(ctx, parent)
	}
}

// parent is the table, by its name in paths, that a foreign key refers to;
// empty when there is no such key.
func (s *Store) parent(ctx context.Context, pg *pgconn.PgError) (string, error) {
	rows, err := s.pool.Query(ctx, `
		select pn.nspname, p.relname
		from pg_catalog.pg_constraint k
		join pg_catalog.pg_class c on c.oid = k.conrelid
		join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		join pg_catalog.pg_class p on p.oid = k.confrelid
		join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
		where k.conname = $1 and c.relname = $2 and n.nspname = $3`, pg.ConstraintName, pg.TableName, pg.SchemaName)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var schema, rel string
	if !rows.Next() {
		return "", rows.Err()
	}
	if err := rows.Scan(&schema, &rel); err != nil {
		return "", err
	}
	return pathName(schema, rel), nil
}
