package api

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// change is a request that writes to one key.
type change struct {
	g      *reading // the key
	o      *operation
	prefer preferences
	now    time.Time
}

func (s *Server) put(c echo.Context) error    { return s.change(c, table.OpPut) }
func (s *Server) patch(c echo.Context) error  { return s.change(c, table.OpPatch) }
func (s *Server) addTo(c echo.Context) error  { return s.change(c, table.OpIncrement) }
func (s *Server) delete(c echo.Context) error { return s.change(c, table.OpDelete) }

// change is PUT, PATCH and DELETE /v1/{table}/{key}, and POST …/increment.
func (s *Server) change(c echo.Context, kind table.Op) error {
	r := c.Request()
	if s.draining.Load() {
		return buffer.ErrDraining
	}
	sv, err := s.served(segment(r, 2))
	if err != nil {
		return err
	}
	if err := changeable(sv, kind); err != nil {
		return err
	}
	w := &change{g: &reading{sv: sv}, now: time.Now()}
	if w.prefer, err = readPreferences(r.Header, s.limits.Wait); err != nil {
		return err
	}
	if err := s.parseKey(r.Context(), w.g, rawSegment(r, 3)); err != nil {
		return err
	}
	w.o = &operation{kind: kind, require: readCondition(r.Header.Values("If-Match"), r.Header.Values("If-None-Match"))}
	if err := s.readChange(c, w); err != nil {
		return err
	}
	c.Set(sent, true)
	t := &task{sv: sv, place: w.g.place, key: w.g.key, cells: w.g.cells, ops: []*operation{w.o}}
	s.runOne(r.Context(), t)
	if w.o.err != nil {
		return w.o.err
	}
	w.o.idem.header(c.Response().Header())
	return s.answerChange(c, w)
}

// runOne makes the operation of a task, again when the table's strategy turns
// out to be another.
func (s *Server) runOne(ctx context.Context, t *task) {
	o := t.ops[0]
	t.traced(ctx)
	for try := 0; try == 0 || try < 3 && errors.Is(o.err, buffer.ErrSwitched); try++ {
		switch o.err = nil; {
		case t.sv.Target.Direct():
			s.writeTogether(t)
		case o.reads():
			s.keyed.run([]*task{t})
		default:
			s.appendPut(ctx, t)
		}
	}
}

// changeable reports whether a table takes such writes.
func changeable(sv *Served, kind table.Op) error {
	if !sv.Table.HasKey() {
		return fault(codeNoPrimaryKey, "This table has no primary key: its rows cannot be changed one by one.")
	}
	if !sv.Target.Index && kind != table.OpPut && !sv.Target.Direct() {
		return fault(codeTableNotUsable, "This table has cache: none, so its buffered rows cannot be looked up, and only POST and PUT can be taken.")
	}
	return nil
}

var changeMedia = map[table.Op]*media{
	table.OpPut: objectMedia("Accept"), table.OpPatch: objectMedia("Accept-Patch"), table.OpIncrement: objectMedia("Accept-Post"),
}

// readChange reads the body, and completes the row of a PUT.
func (s *Server) readChange(c echo.Context, w *change) (err error) {
	r := c.Request()
	if w.o.kind == table.OpDelete {
		w.o.idem, err = s.claimKey(r, w.g.place, w.g.sv.Target.Partitions, nil)
		return err
	}
	f, err := changeMedia[w.o.kind].read(r.Header)
	if err != nil {
		return err
	}
	body, err := s.readBody(c.Response(), r, s.limits.Body)
	if err != nil {
		return err
	}
	defer bodies.Put(body)
	in := newIncoming(w.g.sv.Table)
	defer in.release()
	if err := in.read(body.Bytes(), f, 1); err != nil {
		return err
	}
	if !in.single {
		return fault(codeInvalidJSONShape, "The body must be one object.")
	}
	row := &in.rows[0]
	if err := s.fillOperation(r.Context(), w.g.sv, in, w.g.cells, w.o, w.now); err != nil {
		return err
	}
	if len(row.errs) > 0 {
		return rejected(in)
	}
	w.o.idem, err = s.claimKey(r, w.g.place, w.g.sv.Target.Partitions, body.Bytes())
	return err
}

// fillOperation takes the row of a request, the only one of in, into an
// operation on a key. What is wrong with the row stays with it.
func (s *Server) fillOperation(ctx context.Context, sv *Served, in *incoming, key []table.Cell, o *operation, now time.Time) error {
	row := &in.rows[0]
	if o.kind == table.OpIncrement {
		countable(sv.Table, row)
	}
	if err := s.judge(ctx, in); err != nil {
		return err
	}
	matchKey(sv.Table, row, key)
	if len(row.errs) > 0 {
		return nil
	}
	if o.kind != table.OpPut {
		o.giveCells(sv.Table, row.cells)
		return nil
	}
	if err := s.defaults(ctx, in, now); err != nil {
		return err
	}
	o.whole = cloneRow(row.cells)
	return nil
}

// matchKey sets the key columns from the path; those that are given must
// agree. Without a key the row must hold it itself.
func matchKey(t *table.Table, row *inRow, key []table.Cell) {
	if key == nil || len(row.errs) > 0 {
		return
	}
	given, same := make(table.Row, len(t.Columns)), true
	for i, k := range t.Key {
		given[k] = key[i]
		if row.cells[k].State == table.Missing {
			row.cells[k] = key[i]
		}
		same = same && bytes.Equal(row.cells[k].Text, key[i].Text)
	}
	if !same && !bytes.Equal(t.AppendKey(nil, given), t.AppendKey(nil, row.cells)) {
		row.errs = append(row.errs, rowFault{t.Columns[t.Key[0]].Name, string(codeKeyMismatch), "The key in the body is not the key in the path."})
	}
}

// countable checks the columns of an increment, and reads what is added to a
// domain as its base type: the domain's checks are for the sum.
func countable(t *table.Table, row *inRow) {
	for c := range row.cells {
		cell, column := &row.cells[c], &t.Columns[c]
		switch {
		case cell.State == table.Missing:
		case t.IsKey(c) || !column.Type.Countable():
			row.errs = append(row.errs, rowFault{column.Name, string(codeNotNumeric), "Nothing can be added to the column " + column.Name + "."})
		case cell.State == table.Null:
			row.errs = append(row.errs, rowFault{column.Name, "type_mismatch", "What is added to " + column.Name + " must be a number."})
		case cell.State == table.Judge:
			text, err := column.Type.Bottom().AppendCanonical(nil, cell.Text)
			if bad, ok := err.(*table.FieldError); ok { //nolint:errorlint // never wrapped
				row.errs = append(row.errs, rowFault{column.Name, bad.Code, bad.Detail})
			}
			*cell = table.Cell{State: table.Set, Text: text}
		}
		if s := string(cell.Text); cell.State == table.Set && (s == "NaN" || s == "Infinity" || s == "-Infinity") {
			row.errs = append(row.errs, rowFault{column.Name, "out_of_range", "Only finite numbers can be added."})
		}
	}
}

// appendPut writes a PUT without conditions: nothing has to be read for it.
func (s *Server) appendPut(ctx context.Context, t *task) {
	o := t.ops[0]
	chunk := &buffer.Chunk{
		Target: t.sv.Target, Partition: t.place.Partition, Columns: t.sv.Table.Header(), Accepted: time.Now().UnixMicro(),
	}
	chunk.Add(table.OpPut, t.sv.Table.AppendLine(make([]byte, 0, 256), o.whole), t.key, buffer.ExpectNothing)
	o.row = o.whole
	if o.idem != nil {
		chunk.Mark(o.idem.name(0), o.remembered(t.sv.Table))
	}
	if o.err = s.buffer.Append(ctx, chunk); o.err == nil {
		o.err = chunk.Result().Err
	}
	o.id = chunk.Result().First
	if done, ok := chunk.Result().Replays[0]; ok {
		o.recall(t.sv.Table, done)
	}
}

// answerChange answers a write to one key that was accepted.
func (s *Server) answerChange(c echo.Context, w *change) error {
	a := accepted{sv: w.g.sv, place: w.g.place, o: w.o, key: w.g.cells}
	show := w.o.kind == table.OpIncrement && w.prefer.Return != "minimal"
	return s.answerAccepted(c, &a, &w.prefer, show)
}

// accepted is one row that was accepted, as the answer needs it.
type accepted struct {
	sv        *Served
	place     buffer.Place
	o         *operation
	id        table.ID // of the row to wait for: what was written, or was there
	key       []table.Cell
	committed bool
	resolved  bool // as Prefer: resolution says
}

// answerAccepted waits as the request prefers, and answers. show: with the row
// in any case.
func (s *Server) answerAccepted(c echo.Context, a *accepted, prefer *preferences, show bool) error {
	ctx := c.Request().Context()
	t, h := a.sv.Table, c.Response().Header()
	wrote := a.o.id != (table.ID{})
	if a.id = a.o.id; !wrote {
		a.id = a.o.there
	}
	rec := ""
	if a.id == (table.ID{}) {
		a.committed = true // it is in Postgres
	} else {
		rec = receipt(a.place, a.id)
		if err := s.awaitOne(ctx, a, prefer.Wait); err != nil {
			prefer.write(h, "wait")
			return err
		}
	}
	level := s.buffer.Durability().Level
	if a.committed {
		level = "committed"
	}
	h.Set("Headpond-Durability", level)
	if rec != "" {
		h.Set("Headpond-Receipt", rec)
	}
	keyRow := make(table.Row, len(t.Columns))
	for i, k := range t.Key {
		keyRow[k] = a.key[i]
	}
	if a.o.row != nil {
		h.Set("ETag", etag(t, a.o.row))
	}
	if a.o.row != nil && t.HasKey() {
		h.Set("Location", "/v1/"+pathSegment(a.sv.Target.Table)+"/"+notReserved(t.PathKey(keyRow)))
	}
	status, followed := statusOf(a.o.created, a.committed || !wrote), []string{"wait"}
	if a.resolved {
		followed = append(followed, "resolution")
	}
	if prefer.Return == "minimal" {
		prefer.write(h, append(followed, "return")...)
		return c.NoContent(status)
	}
	body := append(make([]byte, 0, 256), '{')
	if t.HasKey() {
		body = append(appendQuoted(append(body, `"key":`...), keyText(t, keyRow)), ',')
	}
	if rec != "" {
		body = append(appendQuoted(append(body, `"receipt":`...), rec), ',')
	}
	body = append(append(append(body, `"durability":"`...), level...), '"')
	if a.o.row != nil && (show || prefer.Return == "representation") {
		if row, err := s.shown(ctx, t, a.o.row); err == nil {
			body = append(append(body, `,"row":`...), row...)
			followed = append(followed, "return")
		}
	}
	prefer.write(h, followed...)
	return c.Blob(status, echo.MIMEApplicationJSON, append(body, '}', '\n'))
}

// awaitOne waits for the commit of a row. The error is that Postgres refused it.
func (s *Server) awaitOne(ctx context.Context, a *accepted, limit time.Duration) error {
	if limit == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if !s.waitSettled(ctx, a.place, a.id) {
		return nil
	}
	dead, err := s.ledger.Dead(ctx, a.place, a.id.Seq-1, a.id.Seq)
	if err == nil && len(dead) > 0 {
		return deadProblem(dead[0], a.place, a.id)
	}
	a.committed = err == nil
	return nil
}
