package postgres

import (
	"context"
	"regexp"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// try copies rows from up to and without to, and sets bad ones aside. Before
// every COPY but the first of a transaction it moves the savepoint, so that an
// error undoes only that COPY: neither the lock on the watermark nor the good
// rows before it.
func (r *run) try(ctx context.Context, from, to int) error {
	if from == to {
		return nil
	}
	if r.b.copied {
		if err := r.b.exec(ctx, "release savepoint headpond; savepoint headpond"); err != nil {
			return err
		}
	}
	r.b.copied = true
	err := r.copy(ctx, from, to)
	if err == nil {
		return nil
	}
	c, pg := classify(err)
	if c != rowError {
		return err
	}
	if err := r.b.orphan(ctx, pg); err != nil {
		return err
	}
	if err := r.b.exec(ctx, "rollback to savepoint headpond"); err != nil {
		return err
	}
	return r.isolate(ctx, from, to, pg)
}

// isolate finds the bad row of a COPY that failed and does the rest again. The
// server names the line for most errors; that row is then judged alone, never
// on the word of a message. Errors without a line (foreign keys, constraint
// triggers) are found by halving.
func (r *run) isolate(ctx context.Context, from, to int, pg *pgconn.PgError) error {
	if to-from == 1 {
		return r.setAside(from, pg)
	}
	cuts := []int{from, (from + to) / 2, to}
	if line, ok := lineOf(pg); ok && from+line <= to {
		cuts = []int{from, from + line - 1, from + line, to}
	}
	for i := range len(cuts) - 1 {
		if err := r.try(ctx, cuts[i], cuts[i+1]); err != nil {
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
