package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/flusher"
)

// A COMMIT that waits for a synchronous standby and is cancelled, by a timeout or
// by somebody, has committed all the same: it answers with success, and a warning
// says that no standby may know. Source: PostgreSQL 15, syncrep.c.

// unreplicatedKey is where a connection keeps that it was warned.
const unreplicatedKey = "headpond: the commit was not replicated"

// hearNotice is called while an answer is read. Warnings are known by where they
// come from: their text may be in any language, and 01000 is that of every trigger.
func hearNotice(conn *pgconn.PgConn, n *pgconn.Notice) {
	if n.Routine == "SyncRepWaitForLSN" {
		conn.CustomData()[unreplicatedKey] = true
	}
}

// commit reports whether the commit may be on this server alone.
func commit(ctx context.Context, conn *pgx.Conn, tx pgx.Tx) (unreplicated bool, err error) {
	heard := conn.PgConn().CustomData()
	delete(heard, unreplicatedKey)
	err = tx.Commit(ctx)
	_, unreplicated = heard[unreplicatedKey]
	return unreplicated, err
}

// touch writes something when a batch does not: a COMMIT without a change waits for
// no standby, and what was found committed (by a worker that died, or by us when
// the answer was lost) may not have reached it. A later commit that has proves that
// all before it have.
func touch(ctx context.Context, tx pgx.Tx, found []flusher.Part) error {
	if len(found) == 0 {
		return nil
	}
	var parts []int32
	for i := range found {
		parts = append(parts, int32(found[i].Place.Partition)) //nolint:gosec // partitions are few
	}
	_, err := tx.Exec(ctx, "update headpond.watermarks set updated_at = now() where table_name = $1 and partition = any ($2)",
		found[0].Place.Table, parts)
	return err
}
