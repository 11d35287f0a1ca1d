package postgres

import (
	"context"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

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

// The savepoint is moved before every write but the first of a transaction, so
// that an error undoes only that write: neither the lock on the watermark nor the
// good rows before it.
var (
	moveSavepoint = []string{"release savepoint headpond", "savepoint headpond"}
	undoWrite     = []string{"rollback to savepoint headpond"}
)

// takeFirst gives what is to be executed before this write.
func (b *batch) takeFirst() []string {
	first := slices.Clone(b.first)
	b.first = nil
	return first
}

// undoLast undoes the last write if it failed and none came after it.
func (b *batch) undoLast(ctx context.Context) error {
	if !slices.Equal(b.first, undoWrite) {
		return nil
	}
	b.first = moveSavepoint
	_, err := b.conn.PgConn().Exec(ctx, undoWrite[0]).ReadAll()
	return err
}

// try writes rows from up to and without to, and sets bad ones aside.
func (b *batch) try(ctx context.Context, s stretch, from, to int) error {
	if from == to {
		return nil
	}
	if step := b.step(); to-from > step {
		for ; from < to; from += step {
			if err := b.try(ctx, s, from, min(from+step, to)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := flusher.FailWriting.Reach(); err != nil {
		return err
	}
	err := s.write(ctx, from, to)
	if b.first = moveSavepoint; err == nil {
		return nil
	}
	c, pg := classify(err)
	if c != rowError {
		return err
	}
	if err := b.orphan(ctx, pg, b.again); err != nil {
		return err
	}
	b.first, b.careful = undoWrite, true
	return b.isolate(ctx, s, from, to, pg)
}

// isolate finds the bad row of a write that failed and does the rest again. The
// server names the line for most errors of a COPY; that row is then judged
// alone, never on the word of a message. Other errors may name a key; where that
// leads nowhere (constraint triggers) the row is found by halving.
func (b *batch) isolate(ctx context.Context, s stretch, from, to int, pg *pgconn.PgError) error {
	if to-from == 1 {
		return s.refuse(from, pg)
	}
	cuts := []int{from, (from + to) / 2, to}
	if line, ok := lineOf(pg); ok && from+line <= to {
		cuts = []int{from, from + line - 1, from + line, to}
	} else if g, ok := s.(*group); ok {
		if n, ok := g.named(pg, from, to); ok {
			cuts = []int{from, n, n + 1, to}
		}
	}
	for i := range len(cuts) - 1 {
		if err := b.try(ctx, s, cuts[i], cuts[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// carefulRows is how many rows are written at a time where rows are refused. What
// one bad row costs is to write those before it in its step once more, or, where
// nothing names it, twice as much; a step costs a round trip. BenchmarkPoison, with
// one bad row in 10,000, finds 1000 to 2500 alike. Postgres keeps 64 subtransactions
// of a session where others find them fast: a batch has no more than 50.
const carefulRows = 2000

// step is how many rows may be written at a time.
func (b *batch) step() int {
	if b.careful {
		return carefulRows
	}
	return math.MaxInt
}

// mayRefuse asks whether one more row may become a dead letter.
func (b *batch) mayRefuse(pg *pgconn.PgError) error {
	b.refused++
	if b.refuse == nil {
		return nil
	}
	rows := 0
	for i := range b.parts {
		rows += b.parts[i].Rows()
	}
	return b.refuse(b.refused, rows, strings.TrimSpace(pg.Code+" "+pg.ConstraintName))
}

// poisoned remembers which tables had rows refused a moment ago: what comes next
// is likely to hold such rows too. Safe for concurrent use.
type poisoned struct {
	mu sync.Mutex // guards at
	at map[string]time.Time
}

func (p *poisoned) note(table string, refused int) {
	if refused == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == nil {
		p.at = make(map[string]time.Time)
	}
	p.at[table] = time.Now()
}

func (p *poisoned) lately(table string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ever := p.at[table]
	return ever && time.Since(at) < time.Minute
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
