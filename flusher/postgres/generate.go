package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer/table"
)

// Generate computes the generated columns of a row that is not in Postgres
// yet, in place: their expressions, over the row's other columns. Columns that
// are Missing become NULL. A *table.FieldError says that one cannot be computed,
// so that Postgres will not take the row either. Safe for concurrent use.
func (e *Edge) Generate(ctx context.Context, t *table.Table, row table.Row) error {
	var targets []int
	for i := range t.Columns {
		if t.Columns[i].Generated {
			targets = append(targets, i)
		} else if row[i].State == table.Missing {
			row[i] = table.Cell{State: table.Null}
		}
	}
	if len(targets) == 0 {
		return nil
	}
	answers, err := e.ask(ctx, []question{generate(t, row, targets)})
	if err == nil && answers[0].err != nil {
		if classOf(answers[0].err) == rowError {
			return e.whyNotGenerated(ctx, t, row, targets, answers[0].err)
		}
		err = answers[0].err
	}
	if err == nil && len(answers[0].rows) != 1 {
		err = fmt.Errorf("%d rows instead of one", len(answers[0].rows))
	}
	if err != nil {
		return storeError("compute generated columns table="+t.Name, err)
	}
	for i, c := range targets {
		row[c] = cellOf(answers[0].rows[0][i])
	}
	return nil
}

// whyNotGenerated finds the column that the server refuses to compute: it does
// not say which of them it was.
func (e *Edge) whyNotGenerated(ctx context.Context, t *table.Table, row table.Row, targets []int, pg *pgconn.PgError) error {
	questions := make([]question, 0, len(targets))
	for _, c := range targets[1:] {
		questions = append(questions, generate(t, row, []int{c}))
	}
	answers, err := e.ask(ctx, questions)
	if err != nil {
		return storeError("compute generated columns table="+t.Name, err)
	}
	guilty := &t.Columns[targets[0]] // unless it is another one
	for i := range answers {
		if a := answers[i].err; a != nil && classOf(a) == rowError {
			guilty, pg = &t.Columns[targets[i+1]], answers[i].err
		}
	}
	bad := fieldError(guilty.Type, pg)
	bad.Column = guilty.Name
	return bad
}

func generate(t *table.Table, row table.Row, targets []int) question {
	var q question
	var b strings.Builder
	b.WriteString("select ")
	for i, c := range targets {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(generated(&t.Columns[c]))
	}
	b.WriteString(" from (select ")
	for i, c := range t.Stored() {
		if i > 0 {
			b.WriteString(", ")
		}
		column := &t.Columns[c]
		fmt.Fprintf(&b, "$%d::%s as %s", i+1, column.Type.Name, pgx.Identifier{column.Name}.Sanitize())
		var text []byte // NULL
		if row[c].State == table.Set {
			text = row[c].Text
		}
		q.params, q.oids = append(q.params, text), append(q.oids, bottom(column.Type).OID)
	}
	b.WriteString(") r")
	q.sql = b.String()
	return q
}

// generated is the expression of a column, assigned to its type as defaultSQL
// does it. The column's own name is not in scope within the function's
// arguments, so that the expression sees those of the row.
func generated(c *table.Column) string {
	if !cuts(c.Type) {
		return fmt.Sprintf("(%s)::%s", c.Default.SQL, c.Type.Name)
	}
	return fmt.Sprintf(`(select x.v from pg_catalog.jsonb_to_record(pg_catalog.jsonb_build_object('v', ((%s)::%s)::pg_catalog.text)) as x (v %s))`,
		c.Default.SQL, bottom(c.Type).Bare, c.Type.Name)
}
