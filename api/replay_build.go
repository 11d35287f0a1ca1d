package api

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// rebuild makes the operation of a dead letter again, for the table as it is now.
// corrections holds the columns that are given anew, or is nil. What is wrong
// with the row is told as of any write.
func (s *Server) rebuild(ctx context.Context, sv *Served, l *buffer.Letter, corrections *incoming) (*replay, error) {
	in := newIncoming(sv.Table)
	defer in.release()
	in.single = true
	row := in.add()
	clear(row.cells)
	if corrections != nil {
		copy(row.cells, corrections.rows[0].cells)
		row.errs = corrections.rows[0].errs
	}
	r := &replay{letter: l, o: &operation{kind: l.Op, letter: &l.Name}}
	if !r.isWhole() {
		if err := s.findKey(ctx, sv, r); err != nil {
			return nil, err
		}
	}
	if err := r.read(in, sv.Table, corrections != nil); err != nil {
		return nil, err
	}
	if err := s.fillReplay(ctx, sv, in, r); err != nil {
		return nil, err
	}
	if len(row.errs) > 0 {
		return nil, rejected(in)
	}
	if r.isWhole() {
		if err := r.locate(sv); err != nil {
			return nil, err
		}
	}
	return r, s.fillAbsent(ctx, sv.Table, r)
}

// isWhole reports whether the operation writes a whole row, and can so be given
// another key. The others change the row of their key.
func (r *replay) isWhole() bool {
	return r.letter.Op == table.OpInsert || r.letter.Op == table.OpIgnore || r.letter.Op == table.OpPut
}

// findKey reads the key of a change.
func (s *Server) findKey(ctx context.Context, sv *Served, r *replay) error {
	t, l := sv.Table, r.letter
	if !t.HasKey() {
		return fault(codeNoPrimaryKey, "The table has no primary key any more.")
	}
	cells, row := make([]table.Cell, len(t.Key)), make(table.Row, len(t.Columns))
	for i, k := range t.Key {
		at := slices.Index(l.Columns, t.Columns[k].Name)
		if at < 0 || at >= len(l.Values) || l.Values[at] == nil {
			return columnFault(t.Columns[k].Name, "unknown_column", "The table has another primary key than when this change was accepted.")
		}
		var bad *table.FieldError
		if _, cells[i], bad = t.Columns[k].Type.TextCell([]byte{}, []byte(*l.Values[at])); bad != nil {
			return columnFault(t.Columns[k].Name, bad.Code, bad.Detail)
		}
		row[k] = cells[i]
	}
	g := reading{sv: sv}
	if err := s.locate(ctx, &g, cells, t.AppendKey(nil, row)); err != nil {
		return err
	}
	r.place, r.key, r.cells = g.place, g.key, g.cells
	return nil
}

// read takes over the values of the letter's columns that are not corrected.
func (r *replay) read(in *incoming, t *table.Table, corrected bool) error {
	row := &in.rows[0]
	for i, name := range r.letter.Columns {
		c, known := t.Column(name)
		switch {
		case i >= len(r.letter.Values):
			return fault(codeInternal, "The dead letter has fewer values than columns.")
		case !known && !corrected:
			return columnFault(name, "unknown_column", "The table has no column "+name+" any more.").
				hint("Replay with a body, {} at least: then columns that are gone are left out, and what is in the body is taken.")
		case !known || t.Columns[c].Generated || !r.isWhole() && t.IsKey(c):
			continue
		}
		column, value := &t.Columns[c], r.letter.Values[i]
		if row.cells[c].State != table.Missing { // it is corrected
			continue
		}
		if value == nil {
			if row.cells[c].State = table.Null; column.NotNull {
				row.errs = append(row.errs, rowFault{name, "null_not_allowed", "The column " + name + " must not be null."})
			}
			continue
		}
		of, added := column.Type, r.letter.Op == table.OpIncrement
		if added {
			of = of.Bottom() // the domain's checks are for the sum
		}
		var bad *table.FieldError
		if in.arena, row.cells[c], bad = of.TextCell(in.arena, []byte(*value)); bad != nil {
			row.errs = append(row.errs, rowFault{name, bad.Code, bad.Detail})
		} else if added && !column.Type.Exact() { // what the letter has is the new value
			if r.o.sets == nil {
				r.o.sets = make(table.Row, len(t.Columns))
			}
			r.o.sets[c], row.cells[c] = cloneRow(row.cells[c : c+1])[0], table.Cell{}
		}
	}
	return nil
}

// fillReplay completes the operation as one of a request is.
func (s *Server) fillReplay(ctx context.Context, sv *Served, in *incoming, r *replay) error {
	o := r.o
	if !r.isWhole() {
		return s.fillOperation(ctx, sv, in, r.cells, o, time.Now())
	}
	kind := o.kind
	o.kind = table.OpPut // a whole row
	if err := s.fillOperation(ctx, sv, in, nil, o, time.Now()); err != nil {
		return err
	}
	if o.kind = kind; kind == table.OpIgnore {
		o.kind, o.exists = table.OpInsert, ignoreExisting
	}
	return nil
}

// locate finds the key and the place of a whole row.
func (r *replay) locate(sv *Served) error {
	t, row := sv.Table, r.o.whole
	r.place = buffer.Place{Table: sv.Target.Table, Partition: r.letter.Name.Partition % sv.Target.Partitions}
	if !t.HasKey() {
		return nil
	}
	for _, k := range t.Key {
		if row[k].State != table.Set {
			return columnFault(t.Columns[k].Name, "required", "The column "+t.Columns[k].Name+" is part of the key and must be given.")
		}
		r.cells = append(r.cells, row[k])
	}
	key := t.AppendKey(nil, row)
	if len(key) > maxKey || !hasPath(key) {
		return fault(codeInvalidKey, "The key is empty, longer than 1,024 bytes, or holds a control character.")
	}
	r.key, r.place.Partition = string(key), table.Partition(key, sv.Target.Partitions)
	return nil
}

// fillAbsent gives a patch the whole row that it had: if the row is not there,
// it adds it, as it would have done in the log. One that was parked does not: its
// row was never there.
func (s *Server) fillAbsent(ctx context.Context, t *table.Table, r *replay) error {
	if r.o.kind != table.OpPatch || r.letter.Behind != (table.ID{}) || r.letter.Row == "" {
		return nil
	}
	in := newIncoming(t)
	defer in.release()
	row := in.add()
	decoder := jsontext.NewDecoder(bytes.NewReader([]byte(r.letter.Row)))
	arena, errs, err := table.DecodeObject(decoder, t, row.cells, in.arena)
	if in.arena = arena; err != nil || len(errs) > 0 {
		return nil //nolint:nilerr // the table was altered: only what is given can be written
	}
	if err := s.defaults(ctx, in, time.Now()); err != nil {
		return err
	}
	if err := s.judge(ctx, in); err != nil || len(row.errs) > 0 {
		return err
	}
	for c := range r.o.given {
		if r.o.given[c].State != table.Missing {
			row.cells[c] = r.o.given[c]
		}
	}
	for i, k := range t.Key {
		row.cells[k] = r.cells[i]
	}
	r.o.whole = cloneRow(row.cells)
	return nil
}
