package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer/table"
)

// LoadRow reads one row by its primary key: every column, generated ones
// too, in canonical text. found is false when there is none. A *table.FieldError
// says that the key cannot be a key of this table. Safe for concurrent use.
//
// Equal is what the index says is equal: bpchar ignores padding, and a numeric
// with another scale is the same number, so the row's key may be written in
// another way than key.
func (e *Edge) LoadRow(ctx context.Context, t *table.Table, key []table.Cell) (row table.Row, found bool, err error) {
	if !t.HasKey() || len(key) != len(t.Key) {
		return nil, false, fmt.Errorf("load row table=%s: %d values for a key of %d columns", t.Name, len(key), len(t.Key))
	}
	answers, err := e.ask(ctx, []question{loadRow(t, key)})
	if err == nil && answers[0].err != nil {
		err = answers[0].err
		if strings.HasPrefix(answers[0].err.Code, "22") {
			f := fieldError(t.Columns[t.Key[0]].Type, answers[0].err)
			return nil, false, &table.FieldError{Code: "invalid_key", Detail: f.Detail}
		}
	}
	if err != nil {
		return nil, false, storeError("load row table="+t.Name, err)
	}
	if !describes(answers[0].fields, t) {
		return nil, false, fmt.Errorf("load row table=%s: %w", t.Name, ErrCatalogStale)
	}
	switch rows := answers[0].rows; len(rows) {
	case 0:
		return nil, false, nil
	case 1:
		for _, text := range rows[0] {
			row = append(row, cellOf(text))
		}
		return row, true, nil
	}
	return nil, false, fmt.Errorf("load row table=%s: %w", t.Name, errTwoRows)
}

// describes reports whether the fields of an answer are the columns that t
// knows: a name may be that of another column or table since it was read.
func describes(fields []pgconn.FieldDescription, t *table.Table) bool {
	for i := range fields {
		f, c := &fields[i], &t.Columns[i]
		if f.TableOID != t.OID || int(f.TableAttributeNumber) != c.Number || f.DataTypeOID != bottom(c.Type).OID {
			return false
		}
	}
	return true
}

var errTwoRows = errors.New("two rows have the same primary key: its index is damaged (REINDEX)")

// loadRow builds the query. The key goes as parameters of the columns' own
// types, not through casts, which would cut what is too long and so find a
// row that was not asked for. The operator is the index's own, so that the
// index is used. ONLY leaves out tables that inherit from this one: their rows
// are not under its primary key.
func loadRow(t *table.Table, key []table.Cell) question {
	var q question
	var b strings.Builder
	b.WriteString("select ")
	for i := range t.Columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(pgx.Identifier{t.Columns[i].Name}.Sanitize())
	}
	b.WriteString(" from ")
	if !t.Partitioned {
		b.WriteString("only ")
	}
	b.WriteString(t.SQLName)
	for i, k := range t.Key {
		c := &t.Columns[k]
		and := " and "
		if i == 0 {
			and = " where "
		}
		fmt.Fprintf(&b, "%s%s %s $%d", and, pgx.Identifier{c.Name}.Sanitize(), t.KeyEquals[i], i+1)
		q.params = append(q.params, key[i].Text)
		q.oids = append(q.oids, bottom(c.Type).OID)
	}
	q.sql = b.String()
	return q
}
