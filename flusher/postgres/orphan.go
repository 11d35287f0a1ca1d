package postgres

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/flusher"
)

const foreignKeyViolation = "23503"

// orphanage decides what becomes of a batch with a row that refers to a missing
// one, or that others refer to: nil makes it a dead letter, an error ends the
// flush. again: the row is tried once more when the rest of the batch is written.
type orphanage func(ctx context.Context, pg *pgconn.PgError, again bool) error

// orphans asks the job, once. A row of a table that refers to itself may wait
// for another row of the same batch, so there the last try is what counts. For
// a row that others refer to (a delete before those of its children), the parent
// is the job's own table, which is tried a few times more. It uses a connection
// of its own: the job's transaction has failed.
func (s *Store) orphans(job flusher.Batch) orphanage {
	asked := false
	return func(ctx context.Context, pg *pgconn.PgError, again bool) error {
		if asked || pg.Code != foreignKeyViolation {
			return nil
		}
		child, parent, err := s.relatives(ctx, pg)
		if err != nil || again && child == parent {
			return err
		}
		asked = true
		return job.Orphan(ctx, parent)
	}
}

// relatives are the tables, by their names in paths, of a foreign key and of
// what it refers to; empty when there is no such key.
func (s *Store) relatives(ctx context.Context, pg *pgconn.PgError) (child, parent string, err error) {
	rows, err := s.pool.Query(ctx, `
		select n.nspname, c.relname, pn.nspname, p.relname
		from pg_catalog.pg_constraint k
		join pg_catalog.pg_class c on c.oid = k.conrelid
		join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		join pg_catalog.pg_class p on p.oid = k.confrelid
		join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
		where k.conname = $1 and c.relname = $2 and n.nspname = $3`, pg.ConstraintName, pg.TableName, pg.SchemaName)
	if err != nil {
		return "", "", err
	}
	defer rows.Close()
	if !rows.Next() {
		return "", "", rows.Err()
	}
	var schema, rel, parentSchema, parentRel string
	if err := rows.Scan(&schema, &rel, &parentSchema, &parentRel); err != nil {
		return "", "", err
	}
	return pathName(schema, rel), pathName(parentSchema, parentRel), nil
}
