package postgres

import (
	"context"
	"regexp"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/flusher"
)

// stretch is rows that are written together, numbered from 0.
type stretch interface {
	// write writes rows from up to and without to, or none of them.
	write(ctx context.Context, from, to int) error
	// refuse takes a row that Postgres has refused by itself.
	refuse(n int, pg *pgconn.PgError) error
}

// try writes rows from up to and without to, and sets bad ones aside. Before
// every write but the first of a transaction it moves the savepoint, so that an
// error undoes only that write: neither the lock on the watermark nor the good
// rows before it.
func (b *batch) try(ctx context.Context, s stretch, from, to int) error {
	if from == to {
		return nil
	}
	if b.wrote {
		if err := b.exec(ctx, "release savepoint headpond; savepoint headpond"); err != nil {
			return err
		}
	}
	b.wrote = true
	if err := flusher.FailWriting.Reach(); err != nil {
		return err
	}
	err := s.write(ctx, from, to)
	if err == nil {
		return nil
	}
	c, pg := classify(err)
	if c != rowError {
		return err
	}
	if err := b.orphan(ctx, pg, b.again); err != nil {
		return err
	}
	if err := b.exec(ctx, "rollback to savepoint headpond"); err != nil {
		return err
	}
	return b.isolate(ctx, s, from, to, pg)
}

// isolate finds the bad row of a write that failed and does the rest again. The
// server names the line for most errors of a COPY; that row is then judged
// alone, never on the word of a message. Errors without a line (foreign keys,
// constraint triggers, all that is not a COPY) are found by halving.
func (b *batch) isolate(ctx context.Context, s stretch, from, to int, pg *pgconn.PgError) error {
	if to-from == 1 {
		return s.refuse(from, pg)
	}
	cuts := []int{from, (from + to) / 2, to}
	if line, ok := lineOf(pg); ok && from+line <= to {
		cuts = []int{from, from + line - 1, from + line, to}
	}
	for i := range len(cuts) - 1 {
		if err := b.try(ctx, s, cuts[i], cuts[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) exec(ctx context.Context, sql string) error {
	_, err := b.conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// copyContext is the CONTEXT of a COPY error: `COPY orders, line 3, column
// total: "x"`. A table's name may hold anything, so the numbers are looked for
// at the end of the name.
var copyContext = regexp.MustCompile(`(?m)^COPY .*, line (\d+)(?:, column ([^:\n]+))?(?::|$)`)

func lineOf(pg *pgconn.PgError) (int, bool) {
	m := copyContext.FindStringSubmatch(pg.Where)
	if m == nil {
		return 0, false
	}
	n, err := strconv.Atoi(m[1])
	return n, err == nil && n > 0
}

func columnOf(pg *pgconn.PgError) string {
	if pg.ColumnName != "" {
		return pg.ColumnName
	}
	if m := copyContext.FindStringSubmatch(pg.Where); m != nil {
		return m[2]
	}
	return ""
}
