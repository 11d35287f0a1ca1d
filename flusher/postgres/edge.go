package postgres

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Edge asks Postgres what only Postgres can know while a request waits: what a
// value means, what a default gives, the next ids of a sequence, a row that is
// not in the buffer. Safe for concurrent use.
type Edge struct{ pool *pgxpool.Pool }

// NewEdge on a pool made by NewPool: canonical text needs its settings.
func NewEdge(pool *pgxpool.Pool) *Edge { return &Edge{pool: pool} }

// Oids of the types of parameters, fixed in every PostgreSQL.
const (
	oidInt4  = 23
	oidText  = 25
	oidJSON  = 114
	oidJSONB = 3802
)

// question is one statement. Parameters and results are text, so that values
// pass through the types' own input and output functions and no driver's idea
// of a type comes in between. That is not what a cast gives: bool::text is
// true and not t, bpchar::text has no padding, inet::text always has a mask.
type question struct {
	sql    string
	params [][]byte
	oids   []uint32
}

// answer is the rows of one question, or why the server refused it. One
// refused question does not touch the others.
type answer struct {
	fields []pgconn.FieldDescription
	rows   [][][]byte // a nil value is NULL
	err    *pgconn.PgError
}

// askTimeout bounds the answers that a request waits for: a server that hangs
// answers nothing, and its statement_timeout hangs with it.
const askTimeout = 10 * time.Second

// ask puts all questions in one round trip, each in a transaction of its own.
// A connection that turns out to be dead or demoted is no reason to fail:
// after a restart of Postgres every pooled connection is like that, so they
// are all dropped and the questions put once more. They may have been executed
// before; all that asking twice can cost is a few numbers of a sequence.
func (e *Edge) ask(ctx context.Context, questions []question) ([]answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answers, pooled, err := e.askOnce(ctx, questions)
	if err == nil || !pooled || ctx.Err() != nil {
		return answers, err
	}
	e.pool.Reset()
	answers, _, err = e.askOnce(ctx, questions)
	return answers, err
}

// askOnce reports in pooled whether it got as far as having a connection.
func (e *Edge) askOnce(ctx context.Context, questions []question) (answers []answer, pooled bool, err error) {
	if len(questions) == 0 {
		return nil, false, nil
	}
	conn, err := e.pool.Acquire(ctx)
	if err != nil {
		return nil, false, err
	}
	defer conn.Release()
	p := conn.Conn().PgConn().StartPipeline(ctx)
	for _, q := range questions {
		p.SendQueryParams(q.sql, q.params, q.oids, nil, nil)
		p.SendPipelineSync()
	}
	if err := p.Flush(); err != nil {
		return nil, true, errors.Join(err, p.Close())
	}
	answers = make([]answer, len(questions))
	for i := range answers {
		if err := answers[i].read(p); err != nil {
			_ = p.Close()
			return nil, true, err
		}
	}
	return answers, true, p.Close()
}

// read takes results up to the next Sync. It returns what is wrong with the
// connection; what is wrong with the question stays in the answer.
func (a *answer) read(p *pgconn.Pipeline) error {
	for {
		result, err := p.GetResults()
		if rows, ok := result.(*pgconn.ResultReader); ok {
			a.fields = slices.Clone(rows.FieldDescriptions()) // the reader's own is used again
			read := rows.Read()
			a.rows, err = read.Rows, read.Err
		}
		if _, ok := result.(*pgconn.PipelineSync); ok {
			return nil
		}
		if err == nil && result == nil {
			return errors.New("the server ended the conversation early")
		}
		if err != nil && (!errors.As(err, &a.err) || endsSession(a.err)) {
			return err
		}
	}
}

// endsSession: the connection is gone, or is to a server that cannot write.
func endsSession(pg *pgconn.PgError) bool {
	const readOnly, idleTimeout = "25006", "57P05"
	return pg.Severity == "FATAL" || pg.SeverityUnlocalized == "FATAL" || pg.Code == readOnly || pg.Code == idleTimeout
}
