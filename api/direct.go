package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// Tables that are write-through or cache-aside are written directly: all
// operations of a request in one transaction of Postgres, which is committed
// before the answer. In the step before the COMMIT, while Postgres has the rows
// locked, each key gets a marker in Redis; after it the marker gives way to the
// row, or to nothing. So no reader can put back what it loaded before, the rows
// lie in Redis in the order of their commits, and when this process dies in
// between, readers go to Postgres until the marker ends.

// Tx is a transaction in Postgres. Not safe for concurrent use.
type Tx interface {
	// Rows gives the rows with these keys, nil for those that are not there. lock holds them until the end.
	Rows(ctx context.Context, t *table.Table, keys [][]table.Cell, lock bool) ([]table.Row, error)
	// Mark remembers values under names, and gives those that were there already: the transaction is of no use then.
	Mark(ctx context.Context, table string, names, values []string) (there map[string]string, err error)
	// Write writes the rows of a frame, and gives those that Postgres refuses.
	Write(ctx context.Context, t *table.Table, f *table.Frame) (refused map[int]*table.FieldError, err error)
	// TakeLetters removes dead letters that are replayed, and reports which of them were there.
	TakeLetters(ctx context.Context, table string, letters []table.Letter) (there []bool, err error)
}

// directWrite is the operations of one request on tables that are written
// directly.
type directWrite struct {
	s      *Server
	strict bool // all or nothing
	groups []*directGroup
	began  time.Time

	markers []*buffer.Markers // of this try
}

// directGroup is those on one table.
type directGroup struct {
	sv    *Served
	tasks []*task
	sure  bool // see beSure

	// Of this try.
	frame  *table.Frame
	owners []*directOwner // of the frame's rows
	rows   []table.Row    // of the owners that wrote their key last; nil when it is deleted or not read
}

// directOwner is an operation that writes a row.
type directOwner struct {
	t      *task
	o      *operation
	absent bool // the key was looked for, and was not there
	held   bool // the operation knows its row: others on the same key may build on it
}

var (
	errAgain   = errors.New("the transaction must be done again")
	errRefused = errors.New("something of the request was refused")
)

// writeDirectly makes the operations of tasks, whose tables are written
// directly. Each gets its outcome.
func (s *Server) writeDirectly(ctx context.Context, tasks []*task, strict bool) {
	ctx = context.WithoutCancel(ctx) // a commit that nobody waits for any more is worth more than not knowing
	d := &directWrite{s: s, strict: strict, began: time.Now()}
	byTable := make(map[string]*directGroup)
	for _, t := range tasks {
		g := byTable[t.sv.Target.Table]
		if g == nil {
			g = &directGroup{sv: t.sv}
			byTable[t.sv.Target.Table] = g
		}
		g.tasks = append(g.tasks, t)
	}
	for _, name := range slices.Sorted(maps.Keys(byTable)) {
		d.groups = append(d.groups, byTable[name])
	}
	defer s.survive("direct write", d.fail)
	if err := d.run(ctx); err != nil {
		d.fail(err)
	}
}

func (d *directWrite) run(ctx context.Context) error {
	if err := d.recallFromLog(ctx); err != nil {
		return err
	}
	tables := make([]*table.Table, len(d.groups))
	for i, g := range d.groups {
		tables[i] = g.sv.Table
	}
	for {
		err := d.s.edge.Transact(ctx, tables, d.attempt)
		if err == nil {
			return d.committed(ctx)
		}
		if !errors.Is(err, buffer.ErrCommitUnknown) { // else they stay: the commit may still come
			d.unmark(ctx)
		}
		if errors.Is(err, errRefused) {
			return nil
		}
		if err := d.again(ctx, err); err != nil {
			return err
		}
	}
}

// again decides whether what stood in the way of a try passes: nil means so.
func (d *directWrite) again(ctx context.Context, err error) error {
	var pending *buffer.StillPending
	var sqlstate interface{ SQLState() string }
	const deadlock, serialization = "40P01", "40001"
	left := contention - time.Since(d.began)
	switch {
	case errors.As(err, &pending):
		ctx, cancel := context.WithTimeout(ctx, max(left, 0))
		defer cancel()
		if d.s.waitSettled(ctx, pending.Place, table.ID{Seq: pending.Seq}) {
			return nil
		}
		return fault(codeStoreUnavailable, "Rows of this table that were accepted earlier are being flushed first, and that takes long. Nothing was applied.").header("Retry-After", "1")
	case errors.Is(err, buffer.ErrSwitched):
		for _, g := range d.groups {
			if !g.sv.Target.Direct() {
				return err
			}
		}
	case errors.Is(err, errAgain):
	case errors.As(err, &sqlstate) && (sqlstate.SQLState() == deadlock || sqlstate.SQLState() == serialization):
	case errors.Is(err, buffer.ErrCommitUnknown):
		p := fault(codeOutcomeUnknown, "Postgres did not answer the COMMIT: the write may or may not have been applied.").
			hint("Repeat the request with the same Idempotency-Key; without one, look which rows are there before you repeat.")
		p.Applied = "unknown"
		return p
	case errors.Is(err, buffer.ErrUnavailable):
		return err
	case errors.As(err, new(*Problem)):
		return err
	default:
		d.s.log.Warn("direct write", "error", err)
		return fault(codeStoreUnavailable, "Postgres cannot take this write now. Nothing was applied.").header("Retry-After", "1")
	}
	if left <= 0 {
		return errContended
	}
	time.Sleep(time.Duration(1+rand.N(5)) * time.Millisecond) //nolint:gosec // jitter
	return nil
}

// fail ends the operations that have no outcome yet.
func (d *directWrite) fail(err error) {
	for _, g := range d.groups {
		for _, t := range g.tasks {
			for _, o := range t.ops {
				if !o.done {
					o.err = err
				}
			}
		}
	}
}

// attempt is all of a transaction but its ends.
func (d *directWrite) attempt(ctx context.Context, tx Tx) error {
	d.markers = nil
	for _, g := range d.groups {
		if err := d.write(ctx, tx, g); err != nil {
			return err
		}
	}
	for _, g := range d.groups {
		if len(g.owners) == 0 {
			continue
		}
		m, err := d.s.buffer.Hold(ctx, g.sv.Target, g.keys())
		if err != nil {
			return err
		}
		d.markers = append(d.markers, m)
	}
	return nil
}

func (d *directWrite) write(ctx context.Context, tx Tx, g *directGroup) error {
	states, err := g.lock(ctx, tx)
	if err != nil {
		return err
	}
	drafted := d.draft(g, states)
	if err := d.beSure(ctx, g); err != nil {
		return err
	}
	if drafted != nil {
		return drafted
	}
	if err := g.takeLetters(ctx, tx); err != nil {
		return err
	}
	if err := g.mark(ctx, tx); err != nil {
		return err
	}
	if len(g.owners) == 0 {
		return nil
	}
	refused, err := tx.Write(ctx, g.sv.Table, g.frame)
	if err != nil {
		return err
	}
	told := d.refuse(g, refused)
	if err := d.beSure(ctx, g); err != nil {
		return err
	}
	if told != nil {
		return told
	}
	return g.readBack(ctx, tx)
}

// beSure looks once, when operations were told something of their rows and write
// nothing, whether rows of their partitions were still waiting in the log when these
// were read: after the table's strategy was changed. What writes is kept from that by
// its markers. errAgain: nothing waits now, so what is read next is all that was
// accepted before.
func (d *directWrite) beSure(ctx context.Context, g *directGroup) error {
	if g.sure {
		return nil
	}
	writes := make(map[*operation]bool, len(g.owners))
	for _, w := range g.owners {
		writes[w.o] = w.o.refused == nil
	}
	places := make(map[buffer.Place][]string)
	for _, t := range g.tasks {
		for _, o := range t.ops {
			if !o.done && !writes[o] {
				places[t.place] = nil // no key: nothing is marked
			}
		}
	}
	if len(places) == 0 {
		return nil
	}
	if _, err := d.s.buffer.Hold(ctx, g.sv.Target, places); err != nil {
		return err
	}
	g.sure = true
	for _, t := range g.tasks {
		for _, o := range t.ops {
			o.refused = nil
		}
	}
	return errAgain
}

// reads reports whether a task must know what its key holds.
func (t *task) reads() bool { return len(t.ops) > 1 || t.ops[0].reads() }

// lock reads the rows that operations depend on.
func (g *directGroup) lock(ctx context.Context, tx Tx) ([]state, error) {
	states := make([]state, len(g.tasks))
	var keys [][]table.Cell
	var at []int
	if !slices.ContainsFunc(g.tasks, (*task).reads) {
		return states, nil
	}
	for i, t := range g.tasks { // all of them: two transactions with some of each would wait for each other
		keys, at = append(keys, t.cells), append(at, i)
	}
	rows, err := tx.Rows(ctx, g.sv.Table, keys, true)
	if err != nil {
		return nil, err
	}
	for n, i := range at {
		states[i] = state{known: true, exists: rows[n] != nil, row: rows[n]}
	}
	return states, nil
}

// draft computes what the operations write.
func (d *directWrite) draft(g *directGroup, states []state) error {
	now, tbl := time.Now(), g.sv.Table
	g.frame, g.owners, g.rows = &table.Frame{Columns: tbl.Header()}, nil, nil
	bad := false
	for i, t := range g.tasks {
		st := &states[i]
		for _, o := range t.ops {
			if o.done {
				bad = bad || o.err != nil
				continue
			}
			if o.refused != nil {
				o.err, bad = o.refused, true
				continue
			}
			if err := o.held(); err != nil {
				o.err, bad = err, true
				continue
			}
			known, existed := st.known, st.exists
			op, line, err := d.s.apply(t, st, o, now)
			o.err = err
			bad = bad || err != nil
			if line == nil {
				continue
			}
			if !known {
				st.known = false
				o.created = o.kind == table.OpInsert
			} else if !existed && op != table.OpDelete { // or it would change what somebody else puts there
				op, line = table.OpInsert, tbl.AppendLine(make([]byte, 0, 256), o.row)
			}
			g.frame.Add(op, now.UnixMicro(), line)
			g.owners = append(g.owners, &directOwner{t: t, o: o, absent: known && !existed, held: known})
		}
	}
	if d.strict && bad {
		return errRefused
	}
	return nil
}

// refuse notes what Postgres did not take. What others were computed on, or was
// remembered as done, is left out in another try.
func (d *directWrite) refuse(g *directGroup, refused map[int]*table.FieldError) error {
	again := false
	for n, bad := range refused {
		w := g.owners[n]
		if w.absent && bad.Code == string(codeRowExists) {
			again = true // somebody added it meanwhile
			continue
		}
		w.o.refused = columnFault(bad.Column, bad.Code, "Postgres refused the row: "+bad.Detail)
		w.o.err = w.o.refused
		again = again || w.held || w.o.idem != nil || w.o.letter != nil
	}
	switch {
	case again:
		return errAgain
	case d.strict && len(refused) > 0:
		return errRefused
	}
	if len(refused) > 0 {
		g.owners = slices.DeleteFunc(g.owners, func(w *directOwner) bool { return w.o.err != nil })
	}
	return nil
}

// mark remembers the outcomes of operations whose request counts once.
func (g *directGroup) mark(ctx context.Context, tx Tx) error {
	var names, values []string
	named := make(map[string]*operation)
	for _, t := range g.tasks {
		for _, o := range t.ops {
			if o.idem == nil || o.done {
				continue
			}
			if value, ok := o.outcome(g.sv.Table); ok {
				name := o.idem.name(o.part)
				names, values = append(names, name), append(values, value)
				named[name] = o
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	there, err := tx.Mark(ctx, g.sv.Target.Table, names, values)
	if err != nil || len(there) == 0 {
		return err
	}
	for name, value := range there {
		named[name].recall(g.sv.Table, buffer.Replay{Value: value})
	}
	return errAgain
}

// outcome as a mark holds it; not that of an operation that may go well next
// time.
func (o *operation) outcome(t *table.Table) (value string, final bool) {
	if o.err == nil {
		return rememberedRow + table.ID{}.String() + " " + o.remembered(t), true
	}
	p := problemOf(o.err)
	text, _ := json.Marshal(p) // it holds nothing but texts
	return rememberedError + string(text), p.Code.status() < http.StatusInternalServerError
}

// readBack reads the rows that lie in Redis afterwards: triggers and generated
// columns have made of them what they are.
func (g *directGroup) readBack(ctx context.Context, tx Tx) error {
	if g.sv.Target.Strategy() != buffer.WriteThrough || !g.sv.Target.Index {
		return nil
	}
	keys := make([][]table.Cell, len(g.owners))
	for i, w := range g.owners {
		keys[i] = w.t.cells
	}
	var err error
	g.rows, err = tx.Rows(ctx, g.sv.Table, keys, false)
	return err
}

// keys that are written, by their places.
func (g *directGroup) keys() map[buffer.Place][]string {
	out := make(map[buffer.Place][]string)
	for i, w := range g.owners {
		switch {
		case !g.sv.Target.Index:
			out[w.t.place] = nil
		case i == 0 || g.owners[i-1].t != w.t:
			out[w.t.place] = append(out[w.t.place], w.t.key)
		}
	}
	return out
}

// committed tells Redis. What cannot be told ends by itself: the rows are in
// Postgres.
func (d *directWrite) committed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	at := 0
	counters := d.s.buffer.Counters()
	counters.DirectCommits.Add(1)
	for _, g := range d.groups {
		if len(g.owners) == 0 {
			continue
		}
		counters.DirectRows.Add(int64(len(g.owners)))
		m := d.markers[at]
		at++
		rows := make(map[buffer.Place]map[string]buffer.Row)
		for i, row := range g.rows {
			if w := g.owners[i]; row != nil {
				if rows[w.t.place] == nil {
					rows[w.t.place] = make(map[string]buffer.Row)
				}
				columns, line := allColumns(g.sv.Table, row)
				rows[w.t.place][w.t.key] = buffer.Row{Columns: columns, Line: line}
				if i == len(g.owners)-1 || g.owners[i+1].t != w.t {
					w.o.row = row
				}
			}
		}
		if err := m.Fill(ctx, rows, g.sv.life()); err != nil {
			d.s.log.WarnContext(ctx, "cache written rows", "table", g.sv.Target.Table, "error", err)
		}
		d.s.touchLists(ctx, g.sv)
		d.noteInLog(ctx, g)
	}
	return nil
}

func (d *directWrite) unmark(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, m := range d.markers {
		_ = m.Remove(ctx) // it ends by itself otherwise
	}
	d.markers = nil
}

// A request may be repeated after the strategy of its table was changed: so a
// direct write looks for the marks of the log, and leaves one there.

// noteInLog leaves marks in the log's place for the outcomes.
func (d *directWrite) noteInLog(ctx context.Context, g *directGroup) {
	for _, t := range g.tasks {
		for _, o := range t.ops {
			if o.idem == nil || o.done {
				continue
			}
			if value, final := o.outcome(g.sv.Table); final {
				_, _ = d.s.buffer.Claim(ctx, t.place, g.sv.Target.Partitions, o.idem.name(o.part), nothingWritten+value) // Postgres has it
			}
		}
	}
}

// recallFromLog gives operations the outcome that they had when their table
// was write-behind.
func (d *directWrite) recallFromLog(ctx context.Context) error {
	for _, g := range d.groups {
		for _, t := range g.tasks {
			for _, o := range t.ops {
				if o.idem == nil || o.done {
					continue
				}
				there, err := d.s.buffer.Marked(ctx, t.place, []string{o.idem.name(o.part)})
				if err != nil {
					return err
				}
				for _, text := range there {
					d.recall(g, o, text)
				}
			}
		}
	}
	return nil
}

func (d *directWrite) recall(g *directGroup, o *operation, text string) {
	id, value, _ := strings.Cut(text, " ")
	counts, lines, _ := strings.Cut(value, "\n")
	if strings.Trim(counts, "0123456789 ") != "" { // of one operation
		r := buffer.Replay{Value: value}
		r.ID, _ = table.ParseID(id)
		o.recall(g.sv.Table, r)
		return
	}
	// A mark for all rows of a request in that partition, which came together
	// with those of the others.
	for _, t := range g.tasks {
		for _, other := range t.ops {
			if other.idem == o.idem {
				other.done, other.created, other.row = true, true, other.whole
			}
		}
	}
	o.idem.replayed.Store(true)
	if cells := table.ParseLine([]byte(lines)); len(g.tasks) == 1 && len(cells) == len(g.sv.Table.Stored()) {
		row := cloneRow(o.whole)
		for i, c := range g.sv.Table.Stored() {
			row[c] = cells[i]
		}
		o.row = row
	}
}

// life of a clean row that is stored now.
func (sv *Served) life() buffer.Life { return buffer.Life{TTL: jitter(sv.TTL), Stale: sv.Stale} }

// jitter adds up to a tenth to a time, so that rows stored together do not end
// together.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/10+1) } //nolint:gosec // see above

// touchLists drops the lists of a table.
func (s *Server) touchLists(ctx context.Context, sv *Served) {
	if sv.ListTTL == 0 {
		return
	}
	if err := s.buffer.TouchLists(ctx, sv.Target.Table); err != nil {
		s.log.WarnContext(ctx, "drop lists", "table", sv.Target.Table, "error", fmt.Sprint(err))
	}
}
