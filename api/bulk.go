package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// item is one operation of a request that holds many.
type item struct {
	index int
	sv    *Served
	place buffer.Place
	key   string
	cells []table.Cell
	raw   []byte  // the row as it came, nil when there is none
	more  []*item // on the same key, after this
	o     *operation
	errs  []rowFault
	fresh bool  // Headpond made the key just now
	fatal error // of the buffer or of Postgres, not of the row
}

func (i *item) fail(err error) {
	p := problemOf(err)
	column := ""
	if len(p.Errors) == 1 {
		column = p.Errors[0].Pointer
	}
	if p.Code.status() >= http.StatusInternalServerError {
		i.fatal = err
	}
	i.errs = append(i.errs, rowFault{trimPointer(column), string(p.Code), p.Detail})
}

func trimPointer(s string) string {
	if s != "" && s[0] == '/' {
		return s[1:]
	}
	return s
}

// bulk is POST /v1/_bulk: a line for each operation, over several tables.
func (s *Server) bulk(c echo.Context) error {
	r := c.Request()
	if s.draining.Load() {
		return buffer.ErrDraining
	}
	prefer, err := readPreferences(r.Header, s.limits.Wait)
	if err != nil {
		return err
	}
	if _, err := linesMedia.read(r.Header); err != nil {
		return err
	}
	body, err := s.readBody(c.Response(), r, s.limits.Body)
	if err != nil {
		return err
	}
	defer bodies.Put(body)
	items, err := s.readItems(r.Context(), body.Bytes())
	if err != nil {
		return err
	}
	idem, err := s.claimKey(r, buffer.Place{Table: "_bulk"}, bulkPlaces, body.Bytes())
	if err != nil {
		return err
	}
	for _, i := range items {
		i.o.idem, i.o.part = idem, i.index
	}
	read, err := s.completeItems(r.Context(), items, time.Now())
	defer release(read)
	if err != nil {
		return err
	}
	c.Set(sent, true)
	return s.writeItems(c, items, &prefer, prefer.Strict != nil && *prefer.Strict, true)
}

// bulkPlaces share the Idempotency-Keys of requests that belong to no table.
const bulkPlaces = 8

// writeItems makes the operations and answers.
func (s *Server) writeItems(c echo.Context, items []*item, prefer *preferences, strict, enveloped bool) error {
	ctx := c.Request().Context()
	prefer.write(c.Response().Header(), "handling")
	if strict && !allGood(items) {
		return rejectedItems(items, enveloped)
	}
	tasks := tasksOf(items)
	begun := false // it passed the check when it came first
	if idem := items[0].o.idem; strict && idem != nil {
		names := make(map[buffer.Place][]string)
		for _, i := range items {
			if !i.sv.Target.Direct() {
				names[i.place] = append(names[i.place], idem.name(i.o.part))
			}
		}
		var err error
		if begun, err = s.anyMarked(ctx, names); err != nil {
			return err
		}
	}
	if strict && !begun {
		if err := s.keyed.check(ctx, tasks); err != nil {
			return err
		}
		collect(items)
		if !allGood(items) {
			return rejectedItems(items, enveloped)
		}
	}
	nothing := s.runWork(ctx, tasks, items, strict, strict && !begun)
	collect(items)
	if nothing {
		return undone(items, enveloped)
	}
	items[0].o.idem.header(c.Response().Header())
	committed := len(tasks.direct) > 0 && len(lastOf(items)) == 0 || prefer.Wait > 0 && s.awaitItems(ctx, items, prefer.Wait)
	return s.answerItems(c, items, prefer, committed, enveloped)
}

// undone is the answer to a strict request that applied nothing.
func undone(items []*item, enveloped bool) error {
	for _, i := range items {
		if i.fatal != nil {
			return problemOf(i.fatal)
		}
	}
	return rejectedItems(items, enveloped)
}

func allGood(items []*item) bool {
	for _, i := range items {
		if len(i.errs) > 0 {
			return false
		}
	}
	return true
}

// collect takes the outcomes of operations over.
func collect(items []*item) {
	for _, i := range items {
		if len(i.errs) == 0 && i.o.err != nil {
			i.fail(i.o.err)
		}
	}
}

// readItems reads the lines. What is wrong with one line stays with it.
func (s *Server) readItems(ctx context.Context, body []byte) ([]*item, error) {
	if len(body) == 0 {
		return nil, fault(codeEmptyBody, "The body is empty.")
	}
	type room struct {
		item
		operation
	}
	rooms := make([]room, min(bytes.Count(body, []byte{'\n'})+1, s.limits.Rows))
	items := make([]*item, 0, len(rooms))
	d := jsontext.NewDecoder(bytes.NewReader(nil))
	var source bytes.Buffer
	tables := s.tables.Load() // one for all lines: a key and a chunk have one column list
	for len(body) > 0 {
		line, rest, _ := bytes.Cut(body, []byte{'\n'})
		body = rest
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if len(items) == s.limits.Rows {
			return nil, tooMany(s.limits.Rows)
		}
		i := &rooms[len(items)].item
		i.index, i.o = len(items), &rooms[len(items)].operation
		source = *bytes.NewBuffer(line)
		d.Reset(&source)
		if err := s.readItem(ctx, tables, d, i); err != nil {
			i.fail(err)
		}
		items = append(items, i)
	}
	if len(items) == 0 {
		return nil, fault(codeEmptyBatch, "The body holds no operations.")
	}
	return items, nil
}

var kinds = map[string]table.Op{
	"insert": table.OpInsert, "put": table.OpPut, "patch": table.OpPatch, "increment": table.OpIncrement, "delete": table.OpDelete,
}

func (s *Server) readItem(ctx context.Context, tables *catalog, d *jsontext.Decoder, i *item) error {
	var l lineOf
	if err := l.read(d); err != nil {
		return err
	}
	kind, known := kinds[l.op]
	if !known {
		return columnFault("op", string(codeInvalidJSONShape), "op must be insert, put, patch, increment or delete.")
	}
	var err error
	if i.sv, err = tables.served(l.table); err != nil {
		return err
	}
	i.o.kind, i.raw = kind, l.row
	if kind != table.OpInsert {
		if err := changeable(i.sv, kind); err != nil {
			return err
		}
	}
	if (kind == table.OpDelete) != (l.row == nil) {
		return columnFault("row", string(codeInvalidJSONShape), "row must be there, but not for a delete.")
	}
	if l.key == "" {
		if kind == table.OpInsert || kind == table.OpPut {
			return nil // the row may hold it
		}
		return columnFault("key", "bad_key", "key must be there.")
	}
	return s.itemKey(ctx, i, l.key)
}

// lineOf is a line of _bulk.
type lineOf struct {
	op, table, key string
	row            []byte // a slice of the line; nil when there is none
}

func (l *lineOf) read(d *jsontext.Decoder) error {
	if d.PeekKind() != '{' {
		if _, err := d.ReadValue(); err != nil {
			return table.AsJSONError(err)
		}
		return l.shape()
	}
	_, err := d.ReadToken()
	for err == nil && d.PeekKind() != '}' {
		err = l.member(d)
	}
	if err == nil {
		_, err = d.ReadToken()
	}
	if p := new(Problem); errors.As(err, &p) {
		return p
	}
	if err != nil {
		return table.AsJSONError(err)
	}
	return (&incoming{}).end(d)
}

func (l *lineOf) shape() error {
	return fault(codeInvalidJSONShape, `A line must be {"op":…,"table":…,"key":…,"row":{…}} and nothing else.`)
}

func (l *lineOf) member(d *jsontext.Decoder) error {
	token, err := d.ReadToken()
	if err != nil {
		return err
	}
	name := token.String()
	kind := d.PeekKind()
	value, err := d.ReadValue()
	if err != nil {
		return err
	}
	switch {
	case name == "op" && kind == '"':
		l.op, err = unquoted(value)
	case name == "table" && kind == '"':
		l.table, err = unquoted(value)
	case name == "key" && kind == '"':
		l.key, err = unquoted(value)
	case name == "key" && kind == '0':
		l.key = string(value)
	case name == "row" && kind == '{':
		l.row = value
	case (name == "key" || name == "row") && kind == 'n':
	default:
		return l.shape()
	}
	return err
}

func unquoted(value jsontext.Value) (string, error) {
	text, err := jsontext.AppendUnquote(nil, value)
	return string(text), err
}

// itemKey reads a key as an answer gives it: bare when it is one column, else
// as in the path.
func (s *Server) itemKey(ctx context.Context, i *item, text string) error {
	if !i.sv.Table.HasKey() {
		return fault(codeNoPrimaryKey, "This table has no primary key.")
	}
	cells, key, bad := i.sv.Table.ParseKeyText(text)
	if bad != nil {
		return fault(code(bad.Code), "%s", bad.Detail)
	}
	g := reading{sv: i.sv}
	if err := s.locate(ctx, &g, cells, key); err != nil {
		return err
	}
	i.place, i.key, i.cells = g.place, g.key, g.cells
	return nil
}

// completeItems reads the rows against their tables and makes them whole: those
// of a table together, so that Postgres is asked once. The rows lie in what it
// gives, to be released after their last use.
func (s *Server) completeItems(ctx context.Context, items []*item, now time.Time) (read []*incoming, err error) {
	type group struct {
		sv    *Served
		whole bool
	}
	groups := make(map[group][]*item)
	var order []group
	for _, i := range items {
		if len(i.errs) > 0 || i.raw == nil {
			continue
		}
		g := group{i.sv, i.o.kind == table.OpInsert || i.o.kind == table.OpPut}
		if groups[g] == nil {
			order = append(order, g)
		}
		groups[g] = append(groups[g], i)
	}
	for _, g := range order {
		in := newIncoming(g.sv.Table)
		read = append(read, in)
		if err := s.completeGroup(ctx, in, g.sv, groups[g], g.whole, now); err != nil {
			return read, err
		}
	}
	return read, nil
}

func release(read []*incoming) {
	for _, in := range read {
		in.release()
	}
}

func (s *Server) completeGroup(ctx context.Context, in *incoming, sv *Served, items []*item, whole bool, now time.Time) error {
	in.idem = items[0].o.idem
	var source bytes.Buffer
	for _, i := range items {
		source = *bytes.NewBuffer(i.raw)
		in.decode.Reset(&source)
		row := in.add()
		if err := in.object(row); err != nil {
			p := problemOf(err)
			row.errs = append(row.errs[:0], rowFault{code: string(p.Code), detail: p.Detail})
		}
		if i.o.kind == table.OpIncrement {
			countable(sv.Table, row)
		}
	}
	if err := s.judge(ctx, in); err != nil {
		return err
	}
	for n, i := range items {
		row := &in.rows[n]
		matchKey(sv.Table, row, i.cells)
		row.key, row.place = i.key, i.place.Partition // when the line names the key
		if i.o.kind == table.OpPut && i.cells == nil {
			for _, k := range sv.Table.Key {
				if len(row.errs) == 0 && row.cells[k].State != table.Set {
					row.errs = append(row.errs, rowFault{"", "bad_key", "key must be there, or the row must hold it."})
				}
			}
		}
		if len(row.errs) == 0 && !whole {
			i.o.giveCells(sv.Table, row.cells)
		}
	}
	if whole {
		if in.idem != nil {
			in.noteDrawn()
		}
		if err := s.defaults(ctx, in, now); err != nil {
			return err
		}
		if err := s.keys(ctx, sv, in); err != nil {
			return err
		}
	}
	for n, i := range items {
		row := &in.rows[n]
		i.errs = append(i.errs, row.errs...)
		if !whole || len(row.errs) > 0 {
			continue
		}
		i.o.whole = row.cells
		i.key, i.fresh = row.key, row.fresh
		i.place = buffer.Place{Table: sv.Target.Table, Partition: row.place}
		if i.cells == nil {
			for _, k := range sv.Table.Key {
				i.cells = append(i.cells, i.o.whole[k])
			}
		}
	}
	return nil
}

// work is the tasks of a request: those that must read their key, and those
// that need not; and those of tables that are written directly.
type work struct {
	keyed  []*task
	plain  []*item
	direct []*task
}

// tasksOf puts the operations on one key together, in order. An insert or a
// put that is alone with its key depends on nothing.
func tasksOf(items []*item) work {
	type rowOf struct{ table, key string }
	first := make(map[rowOf]*item, len(items))
	var order []*item
	var w work
	for _, i := range items {
		if len(i.errs) > 0 {
			continue
		}
		direct := i.sv.Target.Direct()
		switch {
		case direct && !i.sv.Table.HasKey():
			w.direct = append(w.direct, taskOf(i))
			continue
		case i.key == "" && !i.sv.Table.HasKey() || !i.sv.Target.Index && !direct:
			w.plain = append(w.plain, i)
			continue
		}
		id := rowOf{i.place.Table, i.key}
		if head := first[id]; head != nil {
			head.more = append(head.more, i)
			continue
		}
		first[id] = i
		order = append(order, i)
	}
	for _, i := range order {
		switch {
		case i.sv.Target.Direct():
			w.direct = append(w.direct, taskOf(i))
		case i.more == nil && !i.o.reads():
			w.plain = append(w.plain, i)
		default:
			w.keyed = append(w.keyed, taskOf(i))
		}
	}
	return w
}

// taskOf an item and those on the same key after it.
func taskOf(i *item) *task {
	t := &task{sv: i.sv, place: i.place, key: i.key, cells: cloneRow(i.cells), ops: []*operation{i.o}}
	for _, other := range i.more {
		t.ops = append(t.ops, other.o)
	}
	for _, o := range t.ops {
		if o.whole != nil {
			o.whole = cloneRow(o.whole) // it is remembered beyond the request
		}
	}
	return t
}

// runWork makes all operations; those whose table turns out to have another
// strategy are made its way. Strict: those that are written directly come first, in
// one transaction, and what goes into the log was checked before; undone reports
// that nothing at all was applied.
func (s *Server) runWork(ctx context.Context, w work, items []*item, strict, check bool) (undone bool) {
	applied := false
	for left := 2 + tablesOf(items); ; left-- {
		if len(w.direct) > 0 {
			s.writeDirectly(ctx, w.direct, strict)
		}
		if strict && refused(w.direct) {
			return w.leaveOut(applied)
		}
		moved := switched(items)
		held := work{}
		if strict && len(moved) > 0 { // the transaction comes first
			held = work{keyed: w.keyed, plain: w.plain}
		} else {
			s.runTasks(ctx, w)
			w.each(func(o *operation) { applied = applied || o.err == nil || problemOf(o.err).Applied == "unknown" })
			moved = switched(items)
		}
		switch {
		case len(moved) == 0:
			return false
		case left == 0:
			return held.leaveOut(applied)
		}
		for _, i := range moved {
			i.o.err, i.more = nil, nil
		}
		w = tasksOf(moved)
		if check {
			if err := s.keyed.check(ctx, w); err != nil {
				w.fail(err)
			}
			if refused(w.keyed) || slices.ContainsFunc(w.plain, func(i *item) bool { return i.o.err != nil }) {
				return w.with(held).leaveOut(applied)
			}
		}
		w = w.with(held)
	}
}

// tablesOf is how many tables operations are on: a transaction finds out the new
// strategy of one at a time.
func tablesOf(items []*item) int {
	tables := make(map[*Served]bool)
	for _, i := range items {
		tables[i.sv] = true
	}
	return len(tables)
}

// switched gives those whose table turned out to have another strategy.
func switched(items []*item) (moved []*item) {
	for _, i := range items {
		if errors.Is(i.o.err, buffer.ErrSwitched) {
			moved = append(moved, i)
		}
	}
	return moved
}

// refused reports whether an operation failed for good.
func refused(tasks []*task) bool {
	return slices.ContainsFunc(tasks, func(t *task) bool {
		return slices.ContainsFunc(t.ops, func(o *operation) bool { return o.err != nil && !errors.Is(o.err, buffer.ErrSwitched) })
	})
}

func (w work) with(other work) work {
	return work{keyed: append(w.keyed, other.keyed...), plain: append(w.plain, other.plain...), direct: append(w.direct, other.direct...)}
}

func (w work) each(do func(o *operation)) {
	for _, t := range append(slices.Clone(w.keyed), w.direct...) {
		for _, o := range t.ops {
			do(o)
		}
	}
	for _, i := range w.plain {
		do(i.o)
	}
}

func (w work) fail(err error) { w.each(func(o *operation) { o.err = cmp.Or(o.err, err) }) }

var errLeftOut = fault(codeStoreUnavailable, "Not applied, because of other operations of the request.")

// leaveOut ends operations that are not made because of others. Where some of the
// request were applied earlier, each says for itself what became of it.
func (w work) leaveOut(applied bool) (undone bool) {
	if applied {
		w.each(func(o *operation) {
			if !o.done && o.err == nil {
				o.err = errLeftOut
			}
		})
	}
	return !applied
}

// runTasks makes all operations: the plain ones in a chunk for each partition.
func (s *Server) runTasks(ctx context.Context, w work) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if len(w.keyed) > 0 {
			for _, t := range w.keyed {
				t.traced(ctx)
			}
			s.keyed.run(w.keyed)
		}
	}()
	defer func() { <-done }()
	now := time.Now().UnixMicro()
	at := make(map[buffer.Place]int)
	var chunks []*buffer.Chunk
	var owners [][]*item
	var line []byte
	for _, i := range w.plain {
		n, ok := at[i.place]
		if !ok || chunks[n].Len() >= chunkRows {
			n = len(chunks)
			at[i.place] = n
			c := &buffer.Chunk{Target: i.sv.Target, Partition: i.place.Partition, Columns: i.sv.Table.Header(), Accepted: now}
			share := len(w.plain)/i.sv.Target.Partitions + 8
			c.Grow(share, share*rowSize(i.o.whole))
			chunks = append(chunks, c)
			owners = append(owners, make([]*item, 0, share))
		}
		expect := buffer.ExpectAbsent
		switch {
		case i.fresh:
			expect = buffer.ExpectNew
		case i.o.kind == table.OpPut:
			expect = buffer.ExpectNothing
		}
		line = i.sv.Table.AppendLine(line[:0], i.o.whole)
		chunks[n].Add(i.o.kind, line, i.key, expect)
		if len(owners[n]) == 0 && i.o.idem != nil {
			chunks[n].MarkWhole(i.o.idem.name(i.o.part), "")
		}
		owners[n] = append(owners[n], i)
	}
	if len(chunks) == 0 {
		return
	}
	sent := s.buffer.Append(ctx, chunks...)
	for n, c := range chunks {
		err := sent
		if first := owners[n][0].o; err == nil {
			err = s.rememberChunk(ctx, first.idem, c, first.part)
		}
		settleChunk(c, owners[n], err)
	}
}

// rowSize is about what a row takes as a line.
func rowSize(row table.Row) (n int) {
	for _, c := range row {
		n += len(c.Text) + 4
	}
	return n
}

// settleChunk gives the operations of a chunk their outcome.
func settleChunk(c *buffer.Chunk, owners []*item, err error) {
	r := c.Result()
	if err == nil {
		err = r.Err
	}
	failed := 0
	if len(r.Replays) > 0 {
		owners[0].o.idem.replayed.Store(true)
	}
	for n, i := range owners {
		switch {
		case err != nil:
			i.o.err = err
		case failed < len(r.Failed) && r.Failed[failed] == n:
			failed++
			i.o.err = fault(codeRowExists, "%s", exists(i.sv.Table).detail)
		default:
			i.o.row = i.o.whole
			i.o.id = table.ID{Epoch: r.First.Epoch, Seq: r.First.Seq + uint64(n-failed)} //nolint:gosec // never negative
		}
	}
}

// awaitItems waits until all that was accepted is committed, and notes what
// Postgres refused.
func (s *Server) awaitItems(ctx context.Context, items []*item, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for p, last := range lastOf(items) {
		if !s.waitSettled(ctx, p, last) {
			return false
		}
	}
	dead := make(map[buffer.Place]map[uint64]buffer.DeadLetter)
	first := make(map[buffer.Place]uint64)
	for _, i := range items {
		if i.o.id != (table.ID{}) && (first[i.place] == 0 || i.o.id.Seq < first[i.place]) {
			first[i.place] = i.o.id.Seq
		}
	}
	for p, last := range lastOf(items) {
		all, err := s.ledger.Dead(ctx, p, first[p]-1, last.Seq)
		if err != nil {
			return false
		}
		dead[p] = make(map[uint64]buffer.DeadLetter, len(all))
		for _, d := range all {
			dead[p][d.ID.Seq] = d
		}
	}
	for _, i := range items {
		if d, ok := dead[i.place][i.o.id.Seq]; ok && i.o.id.Seq > 0 {
			i.errs = append(i.errs, rowFault{"", string(codeDeadLettered), fmt.Sprintf("%s (SQLSTATE %s)", d.Message, d.SQLState)})
		}
	}
	return true
}

// lastOf is the last row of each partition that was written to.
func lastOf(items []*item) map[buffer.Place]table.ID {
	last := make(map[buffer.Place]table.ID)
	for _, i := range items {
		if i.o.id.After(last[i.place]) {
			last[i.place] = i.o.id
		}
	}
	return last
}

func itemError(i *item, e rowFault, enveloped bool) ProblemItem {
	n := i.index
	at := pointer(n, "")
	switch {
	case e.column != "" && enveloped && e.column != "op" && e.column != "key" && e.column != "row":
		at = pointer(n, "row") + pointer(-1, e.column)
	case e.column != "":
		at = pointer(n, e.column)
	}
	return ProblemItem{Index: &n, Pointer: at, Code: e.code, Detail: e.detail}
}

func faultyItems(items []*item, enveloped bool) []ProblemItem {
	return listFaults(len(items), func(n int) []rowFault { return items[n].errs },
		func(n int, e rowFault) ProblemItem { return itemError(items[n], e, enveloped) })
}

func rejectedItems(items []*item, enveloped bool) error {
	p := fault(codeInvalidRows, "")
	bad := 0
	for _, i := range items {
		if len(i.errs) > 0 {
			bad++
		}
	}
	p.Errors = faultyItems(items, enveloped)
	p.Detail = plural(bad, "row") + " of " + plural(len(items), "row") + " cannot be accepted; nothing was applied."
	return p
}

// answerItems answers a request of many operations.
func (s *Server) answerItems(c echo.Context, items []*item, prefer *preferences, committed, enveloped bool) error {
	out, h := manyAnswer{Receipts: receiptsOf(lastOf(items))}, c.Response().Header()
	followed := []string{"handling", "wait"}
	if !enveloped {
		followed = append(followed, "resolution")
	}
	prefer.write(h, followed...)
	var fatal error
	for _, i := range items {
		if len(i.errs) == 0 {
			out.Accepted++
			continue
		}
		out.Rejected++
		if i.fatal != nil {
			fatal = worse(fatal, i.fatal)
		}
	}
	out.Errors = faultyItems(items, enveloped)
	switch {
	case out.Accepted == 0 && fatal != nil:
		return problemOf(fatal).with(out.Errors)
	case out.Accepted == 0:
		return rejectedItems(items, enveloped)
	}
	status := statusOf(false, committed)
	if out.Rejected > 0 {
		status = http.StatusMultiStatus
	}
	level := s.buffer.Durability().Level
	if committed {
		level = "committed"
	}
	h.Set("Headpond-Durability", level)
	for _, r := range out.Receipts {
		h.Add("Headpond-Receipt", r)
	}
	minimal := prefer.Return == "minimal" && out.Rejected == 0
	if minimal || prefer.Return == "representation" && s.showItems(c.Request().Context(), items, &out) {
		prefer.write(h, append(followed, "return")...)
	}
	if minimal {
		return c.NoContent(status)
	}
	return c.JSON(status, out)
}

// showItems puts the rows of an answer in, null for those that were deleted:
// all that were accepted, or none when one cannot be shown now.
func (s *Server) showItems(ctx context.Context, items []*item, out *manyAnswer) bool {
	rows := make([]json.RawMessage, 0, out.Accepted)
	for _, i := range items {
		if len(i.errs) > 0 {
			continue
		}
		row := json.RawMessage("null")
		if i.o.row != nil {
			var err error
			if row, err = s.shown(ctx, i.sv.Table, i.o.row); err != nil {
				return false
			}
		}
		rows = append(rows, row)
	}
	out.Rows = rows
	return true
}

// shown is a row that is accepted, with its generated columns. Without
// Postgres, or when it cannot compute them, the row cannot be shown: a GET
// gives it later, or says why not.
func (s *Server) shown(ctx context.Context, t *table.Table, row table.Row) ([]byte, error) {
	if len(t.Stored()) != len(t.Columns) {
		row = cloneRow(row)
		if err := s.edge.Generate(ctx, t, row); err != nil {
			return nil, err
		}
	}
	return t.AppendRowJSON(nil, row), nil
}

// check computes the tasks' outcomes without writing, for requests that are all
// or nothing: operations that would fail get their error. What others write in
// the moment between is not seen.
func (k *keyed) check(ctx context.Context, w work) error {
	now := time.Now()
	for _, t := range w.keyed {
		q := &keyQueue{place: t.place, key: t.key}
		f, err := k.s.buffer.Get(ctx, t.place, t.key, true)
		if err != nil {
			return err
		}
		if f.Source == buffer.Miss && f.Lease == "" {
			row, found, err := k.s.edge.LoadRow(ctx, t.sv.Table, t.cells)
			if err != nil {
				return storeUnavailable(err, "Postgres must be asked for a row, and does not answer now.")
			}
			q.state = state{known: true, exists: found, row: row}
		} else if err := k.learn(ctx, q, t, f); err != nil {
			return err
		}
		k.release(q)
		for _, o := range t.ops {
			if _, _, err := k.s.apply(t, &q.state, o, now); err != nil {
				o.err = err
			}
		}
	}
	for _, i := range w.plain {
		if i.o.kind != table.OpInsert || i.fresh || !i.sv.Target.Index {
			continue
		}
		known, err := k.s.buffer.Known(ctx, i.place, []string{i.key})
		if err != nil {
			return err
		}
		if known[0] {
			i.o.err = fault(codeRowExists, "%s", exists(i.sv.Table).detail)
		}
	}
	return nil
}
