package postgres

import (
	"context"
	"fmt"
	"regexp"
	"strconv"

	"github.com/headpond/headpond/buffer/table"
)

// constantSQL tells whether the expression tree d.tree can only ever have one
// value: constants, arrays, and built-in functions and operators that Postgres
// itself marks as immutable. It looks at the stored tree, not at the printed
// expression, because implicit casts are not printed and may call a function.
// A kind of node that is not listed (a cast through text, CURRENT_DATE, a
// function of the user's …) means "evaluate for each request", which is slower
// and always right: what looks constant is never frozen by mistake.
const constantSQL = `(
	d.tree !~ '(?<!\\)\{(?!(CONST|FUNCEXPR|OPEXPR|RELABELTYPE|COERCETODOMAIN|ARRAY|ARRAYEXPR) )'
	and not exists (
		select from regexp_matches(d.tree, '(?<!\\):(?:funcid|opfuncid) (\d+)', 'g') m
		left join pg_proc p on p.oid = m[1]::oid
		where p.oid is null or p.oid >= 16384 or p.provolatile <> 'i'))`

// expression is a column's default as the catalog has it.
type expression struct {
	sql      string // empty: none
	constant bool
	sequence string // the one that it takes from, if any
	identity bool
}

// nowExpressions as pg_get_expr prints them. A function of the same name that
// is not Postgres' own is printed with its schema.
var nowExpressions = map[string]bool{
	"now()": true, "CURRENT_TIMESTAMP": true, "LOCALTIMESTAMP": true,
	"clock_timestamp()": true, "statement_timestamp()": true, "transaction_timestamp()": true,
}

// utcNow is how people write "now" into a column without a time zone.
var utcNow = regexp.MustCompile(`(?i)^\(?(now\(\) AT TIME ZONE 'utc'::text|timezone\('utc'::text, now\(\)\))\)?$`)

// uuidExpressions: uuidv4 and uuidv7 came with PostgreSQL 18.
var uuidExpression = regexp.MustCompile(`^(gen_random_uuid\(\)|uuidv4\(\)|uuidv7\(\)|([a-z_][a-z0-9_]*\.)?uuid_generate_v4\(\))$`)

// nextval is a plain one: nothing is added to it or made of it.
var nextval = regexp.MustCompile(`^nextval\('(?:[^']|'')*'::regclass\)$`)

// classifyDefault says how the default of a column of type t is made. The
// text of a constant is filled in later.
func classifyDefault(t *table.Type, e expression) table.Default {
	d := table.Default{SQL: e.sql, Kind: table.DefaultExpression}
	isInt := t.Kind == table.KindInt2 || t.Kind == table.KindInt4 || t.Kind == table.KindInt8
	isTime := t.Kind == table.KindTimestamp || t.Kind == table.KindTimestamptz
	switch {
	case e.identity, isInt && e.sequence != "" && nextval.MatchString(e.sql):
		d.Kind, d.Sequence = table.DefaultSequence, e.sequence
	case e.sql == "":
		d.Kind = table.DefaultNone
	case isTime && nowExpressions[e.sql], t.Kind == table.KindTimestamp && utcNow.MatchString(e.sql):
		d.Kind = table.DefaultNow
	case t.Kind == table.KindUUID && uuidExpression.MatchString(e.sql):
		d.Kind = table.DefaultUUID
	case e.constant:
		d.Kind = table.DefaultConstant
	}
	return d
}

// EvalDefaults evaluates default expressions as an INSERT would, each of them
// N times, all in one round trip. Volatile functions are called for each
// value. The answer is in the order of the items. Safe for concurrent use.
func (e *Edge) EvalDefaults(ctx context.Context, items []table.DefaultItem) ([]table.DefaultResult, error) {
	questions := make([]question, len(items))
	for i, it := range items {
		questions[i] = question{sql: defaultSQL(it.Type, it.SQL), params: [][]byte{strconv.AppendInt(nil, int64(it.N), 10)}, oids: []uint32{oidInt4}}
	}
	answers, err := e.ask(ctx, questions)
	if err != nil {
		return nil, storeError("evaluate defaults", err)
	}
	out := make([]table.DefaultResult, len(items))
	for i, a := range answers {
		if a.err != nil && (!blamesData(a.err) || blamesSchema(a.err)) {
			return nil, storeError("evaluate default "+items[i].SQL, a.err)
		}
		if a.err != nil {
			out[i].Err = fieldError(items[i].Type, a.err)
			continue
		}
		if len(a.rows) != items[i].N {
			return nil, fmt.Errorf("evaluate default %s: %d values instead of %d", items[i].SQL, len(a.rows), items[i].N)
		}
		for _, row := range a.rows {
			out[i].Cells = append(out[i].Cells, cellOf(row[0]))
		}
	}
	return out, nil
}

// defaultSQL evaluates expr $1 times as a value that is assigned to type t.
// A cast in SQL is explicit: to varchar(3) it would cut, where an assignment
// refuses. So types with a length get the text by way of their input function.
func defaultSQL(t *table.Type, expr string) string {
	if !cuts(t) {
		return fmt.Sprintf("select (%s)::%s from pg_catalog.generate_series(1, $1)", expr, t.Name)
	}
	return fmt.Sprintf(`select r.v
		from (select (%s)::%s as v from pg_catalog.generate_series(1, $1) offset 0) x,
			lateral rows from (pg_catalog.jsonb_to_record(pg_catalog.jsonb_build_object('v', x.v::pg_catalog.text)) as (v %s)) r`,
		expr, bottom(t).Bare, t.Name)
}

// bottom is the type beneath all domains.
func bottom(t *table.Type) *table.Type {
	for t.Kind == table.KindDomain && t.Base != nil {
		t = t.Base
	}
	return t
}

// cuts reports whether an explicit cast to t can shorten a value.
func cuts(t *table.Type) bool {
	for {
		switch {
		case t.Kind == table.KindDomain && t.Base != nil:
			t = t.Base
		case t.Kind == table.KindArray && t.Elem != nil:
			t = t.Elem
		default:
			const bit, varbit = 1560, 1562
			return t.Mod >= 0 && (t.Kind == table.KindVarchar || t.Kind == table.KindBpchar || t.OID == bit || t.OID == varbit)
		}
	}
}

// cellOf a value as the server sent it.
func cellOf(text []byte) table.Cell {
	if text == nil {
		return table.Cell{State: table.Null}
	}
	return table.Cell{State: table.Set, Text: text}
}

// evaluateConstants fills in the text of constant defaults. One that Postgres
// refuses (too long for its column, say) is left to be evaluated, and refused,
// with each request that needs it.
func (e *Edge) evaluateConstants(ctx context.Context, defaults []constantDefault) error {
	var items []table.DefaultItem
	place := make(map[string]int)
	for _, d := range defaults {
		key := d.of.Name + "\x00" + d.SQL
		if _, ok := place[key]; !ok {
			place[key] = len(items)
			items = append(items, table.DefaultItem{Type: d.of, SQL: d.SQL, N: 1})
		}
	}
	results, err := e.EvalDefaults(ctx, items)
	if err != nil {
		return err
	}
	for _, d := range defaults {
		r := results[place[d.of.Name+"\x00"+d.SQL]]
		if r.Err != nil {
			d.Kind = table.DefaultExpression
			continue
		}
		d.Null, d.Text = r.Cells[0].State == table.Null, string(r.Cells[0].Text)
	}
	return nil
}

type constantDefault struct {
	*table.Default
	of *table.Type
}
