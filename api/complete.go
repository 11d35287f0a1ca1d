package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/headpond/headpond/buffer/table"
)

// complete makes the rows whole: values that only Postgres can judge are
// judged, defaults are taken, keys are made. All that needs Postgres is asked
// at once. now is the moment of accepting.
func (s *Server) complete(ctx context.Context, sv *Served, in *incoming, now time.Time) error {
	if err := s.judge(ctx, in); err != nil {
		return err
	}
	if in.idem != nil {
		in.noteDrawn()
	}
	if err := s.defaults(ctx, in, now); err != nil {
		return err
	}
	return s.keys(ctx, sv, in)
}

// noteDrawn notes the rows whose key is about to be drawn from a sequence.
func (in *incoming) noteDrawn() {
	for _, k := range in.t.Key {
		if in.t.Columns[k].Default.Kind != table.DefaultSequence {
			continue
		}
		for i := range in.rows {
			in.rows[i].drawn = in.rows[i].drawn || in.rows[i].cells[k].State == table.Missing
		}
	}
}

// redraw draws the key of a row from its sequence until the row falls into a
// partition, so that a repeat of its request finds it there.
func (s *Server) redraw(ctx context.Context, in *incoming, row *inRow, partition, partitions int) error {
	for range 1000 * partitions {
		if table.Partition(in.t.AppendKey(nil, row.cells), partitions) == partition {
			return nil
		}
		for _, k := range in.t.Key {
			column := &in.t.Columns[k]
			if column.Default.Kind != table.DefaultSequence {
				continue
			}
			if err := s.fill(ctx, column, []*table.Cell{&row.cells[k]}, time.Time{}); err != nil {
				return err
			}
		}
	}
	return fault(codeInternal, "No key could be made for this row.")
}

// judge asks Postgres about the cells that are left to it.
func (s *Server) judge(ctx context.Context, in *incoming) error {
	var items []table.JudgeItem
	var cells []*table.Cell
	var owners []*inRow
	var columns []int
	for i := range in.rows {
		row := &in.rows[i]
		for c := range row.cells {
			if cell := &row.cells[c]; cell.State == table.Judge && len(row.errs) == 0 {
				items = append(items, table.JudgeItem{Type: in.t.Columns[c].Type, JSON: cell.Text})
				cells, owners, columns = append(cells, cell), append(owners, row), append(columns, c)
			}
		}
	}
	if len(items) == 0 {
		return nil
	}
	results, err := s.edge.Judge(ctx, items)
	if err != nil {
		return storeUnavailable(err, "Postgres must judge some of these values and cannot be asked now.")
	}
	for i, r := range results {
		column := &in.t.Columns[columns[i]]
		switch {
		case r.Err != nil:
			owners[i].errs = append(owners[i].errs, rowFault{column.Name, r.Err.Code, r.Err.Detail})
		case r.Null && column.NotNull:
			owners[i].errs = append(owners[i].errs, rowFault{column.Name, "null_not_allowed", "The column " + column.Name + " must not be null."})
		case r.Null:
			*cells[i] = table.Cell{State: table.Null}
		default:
			*cells[i] = table.Cell{State: table.Set, Text: r.Text}
		}
	}
	return nil
}

func storeUnavailable(err error, detail string) error {
	if err == nil {
		return nil
	}
	return fault(codeStoreUnavailable, "%s", detail).header("Retry-After", "1")
}

// defaults fills the cells that the request left out.
func (s *Server) defaults(ctx context.Context, in *incoming, now time.Time) error {
	for i := range in.rows {
		if row := &in.rows[i]; len(row.errs) == 0 {
			for _, e := range in.t.MissingRequired(row.cells) {
				if c, _ := in.t.Column(e.Column); !isMadeKey(in.t, c) {
					row.fail(e)
				}
			}
		}
	}
	for c := range in.t.Columns {
		column := &in.t.Columns[c]
		if column.Generated {
			continue
		}
		var missing []*table.Cell
		for i := range in.rows {
			if row := &in.rows[i]; len(row.errs) == 0 && row.cells[c].State == table.Missing {
				missing = append(missing, &row.cells[c])
			}
		}
		if len(missing) == 0 || isMadeKey(in.t, c) {
			continue
		}
		if err := s.fill(ctx, column, missing, now); err != nil {
			return err
		}
		for i := range in.rows {
			if row := &in.rows[i]; column.NotNull && row.cells[c].State == table.Null && len(row.errs) == 0 {
				row.errs = append(row.errs, rowFault{column.Name, "null_not_allowed", "The default of column " + column.Name + " is null, which the column must not be."})
			}
		}
	}
	return nil
}

// generate computes the generated columns, for an answer that shows the rows.
// It costs a round trip for each row, and is done before anything is sent: so
// that an answer that cannot be made is one to a write that was not applied.
func (s *Server) generate(ctx context.Context, in *incoming) error {
	if len(in.t.Stored()) == len(in.t.Columns) {
		return nil
	}
	for i := range in.rows {
		if row := &in.rows[i]; len(row.errs) == 0 {
			err := s.edge.Generate(ctx, in.t, row.cells)
			if bad := new(table.FieldError); errors.As(err, &bad) {
				row.fail(bad)
			} else if err != nil {
				return storeUnavailable(err, "Postgres must compute a column for return=representation, and cannot be asked now.")
			}
		}
	}
	return nil
}

// isMadeKey reports whether column c is a uuid key that keys makes when it is
// missing.
func isMadeKey(t *table.Table, c int) bool {
	for _, k := range t.Key {
		if k == c {
			column := &t.Columns[c]
			return column.Type.Kind == table.KindUUID &&
				(column.Default.Kind == table.DefaultNone || column.Default.Kind == table.DefaultUUID)
		}
	}
	return false
}

// fill gives the missing cells of a column their default.
func (s *Server) fill(ctx context.Context, column *table.Column, missing []*table.Cell, now time.Time) error {
	d := &column.Default
	switch d.Kind {
	case table.DefaultConstant:
		cell := table.Cell{State: table.Set, Text: []byte(d.Text)}
		if d.Null {
			cell = table.Cell{State: table.Null}
		}
		fillAll(missing, cell)
	case table.DefaultNow:
		text, err := column.Type.AppendCanonical(nil, nowText(now))
		if err != nil {
			return fault(codeInternal, "The default of column %s cannot be made.", column.Name)
		}
		fillAll(missing, table.Cell{State: table.Set, Text: text})
	case table.DefaultUUID:
		for _, m := range missing {
			id, err := uuid.NewRandomFromReader(s.ids)
			if err != nil {
				return fmt.Errorf("make uuid column=%s: %w", column.Name, err)
			}
			*m = table.Cell{State: table.Set, Text: []byte(id.String())}
		}
	case table.DefaultSequence:
		ids, err := s.edge.NextValues(ctx, column, len(missing))
		if err != nil {
			return storeUnavailable(err, "The reserve of numbers for column "+column.Name+" is used up, and Postgres cannot be asked for more now.")
		}
		for i, m := range missing {
			*m = table.Cell{State: table.Set, Text: strconv.AppendInt(nil, ids[i], 10)}
		}
	case table.DefaultExpression:
		got, err := s.edge.EvalDefaults(ctx, []table.DefaultItem{{Type: column.Type, SQL: d.SQL, N: len(missing)}})
		if err != nil {
			return storeUnavailable(err, "Postgres must evaluate the default of column "+column.Name+" and cannot be asked now.")
		}
		if bad := got[0].Err; bad != nil {
			return fault(code(bad.Code), "The default of column %s cannot be made: %s", column.Name, bad.Detail)
		}
		for i, m := range missing {
			*m = got[0].Cells[i]
		}
	case table.DefaultNone:
		fillAll(missing, table.Cell{State: table.Null})
	}
	return nil
}

func fillAll(cells []*table.Cell, with table.Cell) {
	for _, c := range cells {
		*c = with
	}
}

// keys makes the keys that are missing, and finds each row's partition. Rows
// whose place does not matter go where the present batch is filling.
func (s *Server) keys(ctx context.Context, sv *Served, in *incoming) error {
	t, target := in.t, sv.Target
	steer := target.Filling()
	if in.idem != nil {
		steer = in.idem.home(target.Partitions)
	}
	for i := range in.rows {
		row := &in.rows[i]
		if len(row.errs) > 0 || row.key != "" {
			continue
		}
		if !t.HasKey() {
			row.place, row.fresh = steer, true
			continue
		}
		for _, k := range t.Key {
			if row.cells[k].State != table.Missing {
				continue
			}
			at := len(in.arena)
			var err error
			if in.arena, err = s.ids.steeredUUID(in.arena, steer, target.Partitions); err != nil {
				return err
			}
			row.cells[k] = table.Cell{State: table.Set, Text: in.arena[at:len(in.arena):len(in.arena)]}
			row.fresh = true
		}
		if row.drawn {
			if err := s.redraw(ctx, in, row, steer, target.Partitions); err != nil {
				return err
			}
		}
		at := len(in.arena)
		in.arena = t.AppendKey(in.arena, row.cells)
		key := in.arena[at:]
		if len(key) > maxKey {
			row.errs = append(row.errs, rowFault{"", "invalid_key", "The key is longer than 1,024 bytes."})
			continue
		}
		if !hasPath(key) {
			row.errs = append(row.errs, rowFault{"", "invalid_key", "The key is empty or holds a control character: no path leads to such a row."})
			continue
		}
		row.place = table.Partition(key, target.Partitions)
		row.key = string(key)
	}
	return nil
}

const maxKey = 1024

// hasPath reports whether a key can be read out of a path again.
func hasPath(key []byte) bool {
	return len(key) > 0 && !slices.ContainsFunc(key, func(b byte) bool { return b < ' ' || b == 0x7f })
}
