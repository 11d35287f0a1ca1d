package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/headpond/headpond/buffer/table"
)

// Generate computes the generated columns of a row that is not in Postgres
// yet, in place: their expressions, over the row's other columns. Columns that
// are Missing become NULL. Safe for concurrent use.
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

func generate(t *table.Table, row table.Row, targets []int) question {
	var q question
	var b strings.Builder
	b.WriteString("select ")
	for i, c := range targets {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "(%s)::%s", t.Columns[c].Default.SQL, t.Columns[c].Type.Name)
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
