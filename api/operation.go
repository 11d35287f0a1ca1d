package api

import (
	"context"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/headpond/headpond/buffer/table"
)

// operation is one write to one key, and its outcome.
type operation struct {
	kind    table.Op
	given   table.Row // what the request gave beside the key; for an increment, what is added
	whole   table.Row // an insert's or put's whole row, defaults taken
	exists  onExists  // an insert's way with a key that is there
	require condition

	// The outcome. The row is shared: nobody may change it.
	row     table.Row // after the operation; nil after a delete
	id      table.ID  // zero when nothing had to be written
	there   table.ID  // of the row that was there then; zero when it was not in the log
	created bool      // a put, merge or increment added the row
	err     error

	refused *Problem // what Postgres said of it, when it is written directly

	span trace.SpanContext // of the request, when it is sampled
	idem *idempotency      // of the request, or nil
	part int               // of it
	done bool              // the outcome was told by an earlier request's mark

	// Of one that replays a dead letter.
	letter *table.Letter
	after  *operation // it counts only if this one, of the same task, does
	sets   table.Row  // of an increment: columns whose new value is known, and not what was added
}

// onExists is what an insert does when its key exists.
type onExists int

const (
	refuseExisting onExists = iota
	mergeExisting           // set the columns that were given
	ignoreExisting          // leave the row as it is
)

// condition is what a request asks to be true of the row (RFC 9110, 13.1).
type condition struct {
	match, noneMatch []string // entity tags, or *; nil: no condition
}

func readCondition(match, noneMatch []string) condition {
	return condition{tags(match), tags(noneMatch)}
}

func tags(fields []string) (out []string) {
	for _, field := range fields {
		for item := range strings.SplitSeq(field, ",") {
			if item = strings.TrimSpace(item); item != "" {
				out = append(out, item)
			}
		}
	}
	return out
}

func (c *condition) any() bool { return len(c.match)+len(c.noneMatch) > 0 }

// holds for a row; tag is empty when there is none.
func (c *condition) holds(tag string) bool {
	has := func(tags []string) bool {
		return tag != "" && (slices.Contains(tags, "*") || slices.Contains(tags, tag))
	}
	return (len(c.match) == 0 || has(c.match)) && !has(c.noneMatch)
}

// reads reports whether the operation must know what the key holds.
func (o *operation) reads() bool {
	return o.kind != table.OpInsert && o.kind != table.OpPut || o.exists != refuseExisting || o.require.any()
}

var (
	errNotThere   = fault(codeRowNotFound, "There is no row with this key.")
	errNotCurrent = fault(codeVersionMismatch, "The row is not as the request requires it. Nothing was applied.").
			hint("GET the row, look at what changed, and repeat with its ETag.")
)

// apply computes what an operation makes of a key. It changes st, and gives the
// row for the log; no line when there is nothing to write. The error is the
// operation's outcome, and leaves st as it was.
func (s *Server) apply(t *task, st *state, o *operation, now time.Time) (op table.Op, line []byte, err error) {
	tbl := t.sv.Table
	needsRow := o.kind == table.OpPatch || o.kind == table.OpDelete
	if needsRow && !st.exists && o.whole == nil {
		return 0, nil, errNotThere
	}
	if o.require.any() {
		tag := ""
		if st.exists {
			tag = etag(tbl, st.row)
		}
		if !o.require.holds(tag) {
			return 0, nil, errNotCurrent
		}
	}
	op, row, changes, err := s.compute(t, st, o, now)
	if err != nil {
		return 0, nil, err
	}
	o.row, o.id = row, table.ID{}
	o.created = !st.exists && op != table.OpDelete
	if op == 0 {
		return 0, nil, nil
	}
	st.exists, st.row = op != table.OpDelete, row
	st.known = true
	if op == table.OpDelete {
		return op, tbl.AppendLine(nil, tombstone(tbl, t.cells)), nil
	}
	line = tbl.AppendLine(make([]byte, 0, 256), row)
	if op.Changes() {
		line = append(table.AppendChanges(line[:len(line)-1], changes), '\n')
	}
	return op, line, nil
}

func tombstone(t *table.Table, key []table.Cell) table.Row {
	row := make(table.Row, len(t.Columns))
	for i := range row {
		row[i].State = table.Null
	}
	for i, k := range t.Key {
		row[k] = key[i]
	}
	return row
}

// compute gives the new row. op is 0 when the row stays as it is.
func (s *Server) compute(t *task, st *state, o *operation, now time.Time) (op table.Op, row table.Row, changes []table.Change, err error) {
	tbl := t.sv.Table
	switch o.kind {
	case table.OpPut:
		return table.OpPut, o.whole, nil, nil
	case table.OpDelete:
		return table.OpDelete, nil, nil, nil
	case table.OpIncrement:
		return s.increment(t, st, o, now)
	case table.OpPatch:
		if !st.exists { // a dead letter's, which has its whole row
			return table.OpPatch, o.whole, setChanges(tbl, o.given), nil
		}
	case table.OpInsert:
		switch {
		case st.exists && o.exists == refuseExisting:
			return 0, nil, nil, fault(codeRowExists, "%s", exists(tbl).detail)
		case st.exists && o.exists == ignoreExisting:
			return 0, st.row, nil, nil
		case !st.exists && o.exists == refuseExisting:
			return table.OpInsert, o.whole, nil, nil
		case !st.exists && o.exists == ignoreExisting:
			return table.OpIgnore, o.whole, nil, nil
		case !st.exists:
			return table.OpPatch, o.whole, setChanges(tbl, o.given), nil
		}
	}
	row = slices.Clone(st.row)
	for c := range o.given {
		if o.given[c].State != table.Missing {
			row[c] = o.given[c]
		}
	}
	return table.OpPatch, row, setChanges(tbl, o.given), nil
}

// giveCells notes what a request gave for an operation, but for the key, which
// does not change.
func (o *operation) giveCells(t *table.Table, cells table.Row) {
	o.given = cloneRow(cells)
	for _, k := range t.Key {
		o.given[k] = table.Cell{}
	}
}

// setChanges lists the columns that are given.
func setChanges(t *table.Table, given table.Row) (changes []table.Change) {
	for i, c := range t.Stored() {
		if given[c].State != table.Missing {
			changes = append(changes, table.Change{Column: i})
		}
	}
	return changes
}

// increment adds to columns. NULL counts as 0. A row that is not there is made
// with its defaults, when its other columns allow it.
func (s *Server) increment(t *task, st *state, o *operation, now time.Time) (op table.Op, row table.Row, changes []table.Change, err error) {
	tbl := t.sv.Table
	if st.exists {
		row = slices.Clone(st.row)
	} else if row, err = s.fresh(t, o.given, now); err != nil {
		return 0, nil, nil, err
	}
	judged := false
	for i, c := range tbl.Stored() {
		if o.given[c].State == table.Missing {
			continue
		}
		column, delta := &tbl.Columns[c], o.given[c].Text
		base := row[c].Text
		if row[c].State != table.Set {
			base = []byte("0")
		}
		sum, err := column.Type.AppendSum(nil, base, delta)
		if bad, ok := err.(*table.FieldError); ok { //nolint:errorlint // never wrapped
			return 0, nil, nil, columnFault(column.Name, bad.Code, bad.Detail)
		}
		row[c] = table.Cell{State: table.Set, Text: sum}
		if column.Type.Kind == table.KindDomain {
			row[c].State, judged = table.Judge, true
		}
		change := table.Change{Column: i}
		if column.Type.Exact() {
			change.Add = delta
		}
		changes = append(changes, change)
	}
	for i, c := range tbl.Stored() {
		if o.sets != nil && o.sets[c].State != table.Missing {
			row[c] = o.sets[c]
			changes = append(changes, table.Change{Column: i})
		}
	}
	if judged {
		if err := s.judgeRow(tbl, row); err != nil {
			return 0, nil, nil, err
		}
	}
	return table.OpIncrement, row, changes, nil
}

func columnFault(column, c, detail string) *Problem {
	p := fault(code(c), "%s", detail)
	p.Errors = []ProblemItem{{Pointer: pointer(-1, column), Code: c, Detail: detail}}
	return p
}

// fresh is a row of nothing but its key and its defaults; what is to be added to
// begins at 0.
func (s *Server) fresh(t *task, added table.Row, now time.Time) (table.Row, error) {
	in := newIncoming(t.sv.Table)
	defer in.release()
	r := in.add()
	clear(r.cells)
	for i, k := range t.sv.Table.Key {
		r.cells[k] = t.cells[i]
	}
	for c := range added {
		if added[c].State != table.Missing && t.sv.Table.Columns[c].Default.Kind == table.DefaultNone {
			r.cells[c] = table.Cell{State: table.Set, Text: []byte("0")}
		}
	}
	if err := s.defaults(context.Background(), in, now); err != nil {
		return nil, err
	}
	if len(r.errs) > 0 {
		return nil, errNotThere
	}
	return cloneRow(r.cells), nil
}

// judgeRow lets Postgres judge the cells of a row that are left to it.
func (s *Server) judgeRow(t *table.Table, row table.Row) error {
	in := newIncoming(t)
	defer in.release()
	r := in.add()
	copy(r.cells, row)
	if err := s.judge(context.Background(), in); err != nil {
		return err
	}
	if len(r.errs) > 0 {
		return columnFault(r.errs[0].column, r.errs[0].code, r.errs[0].detail)
	}
	copy(row, cloneRow(r.cells))
	return nil
}
