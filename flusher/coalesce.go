package flusher

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/headpond/headpond/buffer/table"
)

// Coalescing: what a batch does to a key is merged into as few operations as
// give the same row as all of them one by one. What lies between, no reader of
// Postgres sees, and nothing but the last row has to pass its constraints.

// ErrKeyChanged means that the log was written for another primary key than
// the table has now.
var ErrKeyChanged = errors.New("rows in the log lack a column of the table's primary key")

// Net is one operation that stands for one or more of the log's on one key.
type Net struct {
	Op      table.Op       // a patch stands for increments too
	Columns *Columns       // of Row
	Row     table.Row      // the whole row afterwards; of a delete only the key counts
	Changes []table.Change // of a patch; positions in Columns
	Origins []Origin       // what it stands for, in their order

	wave  int
	mixed bool // of rows with other columns: the schema changed between them
}

// Columns is a column list. Within one Coalesce the same list is the same pointer.
type Columns struct {
	Names  []string
	header []byte // the names as a frame has them
	key    []int  // where the table's key columns are
}

// Origin is an operation as it lies in the log.
type Origin struct {
	Part  int // among the batch's
	Frame *table.Frame
	Row   int // in the frame
}

// ID of the row.
func (o Origin) ID() table.ID {
	first := o.Frame.First()
	return table.ID{Epoch: first.Epoch, Seq: first.Seq + uint64(o.Row)} //nolint:gosec // never negative
}

// Net is the operation alone.
func (o Origin) Net(t *table.Table) (*Net, error) {
	columns, err := newColumns(t, o.Frame.Columns)
	if err != nil {
		return nil, err
	}
	return o.read(columns)
}

func (o Origin) read(columns *Columns) (*Net, error) {
	n := &Net{Op: o.Frame.Op(o.Row), Columns: columns, Row: table.ParseLine(o.Frame.Line(o.Row)), Origins: []Origin{o}}
	width := len(columns.Names)
	if n.Op.Changes() {
		n.Op = table.OpPatch
		width++
	}
	if len(n.Row) != width {
		return nil, fmt.Errorf("%w: %d columns and %d values in %s", table.ErrCorruptFrame, len(columns.Names), len(n.Row), o.ID())
	}
	if n.Op != table.OpPatch {
		return n, nil
	}
	var err error
	n.Changes, err = table.ParseChanges(n.Row[width-1].Text)
	n.Row = n.Row[:width-1]
	for _, c := range n.Changes {
		if c.Column >= len(n.Row) {
			err = table.ErrCorruptFrame
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: changes of %s", err, o.ID())
	}
	return n, nil
}

// Coalesce merges the operations of a batch on a table with a primary key. The
// outcome is waves, to be written one after the other; within one each key
// occurs once. ErrKeyChanged needs a change of schema.
func Coalesce(t *table.Table, parts []Part) ([][]*Net, error) {
	c := coalescer{table: t, lists: make(map[string]*Columns), newest: make(map[string]*Net), keyRow: make(table.Row, len(t.Columns))}
	for i := range t.Columns {
		c.lasting = c.lasting || t.Columns[i].IdentityAlways && !t.IsKey(i)
	}
	for i := range parts {
		for _, f := range parts[i].Frames {
			columns, err := c.list(f.Columns)
			if err != nil {
				return nil, err
			}
			for row := range f.Len() {
				n, err := Origin{Part: i, Frame: f, Row: row}.read(columns)
				if err != nil {
					return nil, err
				}
				if err := c.add(n); err != nil {
					return nil, err
				}
			}
		}
	}
	return c.waves, nil
}

type coalescer struct {
	table   *table.Table
	lists   map[string]*Columns // by header
	newest  map[string]*Net     // by key
	waves   [][]*Net
	lasting bool // a put keeps a value of the row that it replaces, so it counts which row that is

	keyRow  table.Row // room
	keyText []byte
}

func (c *coalescer) list(header []byte) (*Columns, error) {
	if l := c.lists[string(header)]; l != nil {
		return l, nil
	}
	l, err := newColumns(c.table, header)
	c.lists[string(header)] = l
	return l, err
}

func newColumns(t *table.Table, header []byte) (*Columns, error) {
	l := &Columns{header: header}
	l.Names = table.HeaderNames(header)
	for _, k := range t.Key {
		at := slices.Index(l.Names, t.Columns[k].Name)
		if at < 0 {
			return nil, ErrKeyChanged
		}
		l.key = append(l.key, at)
	}
	if !t.HasKey() {
		return nil, ErrKeyChanged
	}
	return l, nil
}

// Key gives the key columns' places in the list, in key order. The caller must
// not change it.
func (l *Columns) Key() []int { return l.key }

func (c *coalescer) add(n *Net) error {
	for i, k := range c.table.Key {
		c.keyRow[k] = n.Row[n.Columns.key[i]]
	}
	c.keyText = c.table.AppendKey(c.keyText[:0], c.keyRow)
	before := c.newest[string(c.keyText)]
	if before != nil {
		merged, err := c.merge(before, n)
		if merged || err != nil {
			return err
		}
		n.wave = before.wave + 1
	}
	if n.wave == len(c.waves) {
		c.waves = append(c.waves, nil)
	}
	c.waves[n.wave] = append(c.waves[n.wave], n)
	c.newest[string(c.keyText)] = n
	return nil
}

// merge lets n stand for op too, which comes after it. It reports false when
// no one operation gives what both do.
func (c *coalescer) merge(n, op *Net) (bool, error) {
	switch {
	case op.Op == table.OpDelete:
		n.become(table.OpDelete, op)
	case c.lasting && (n.Op == table.OpDelete || op.Op == table.OpPut):
		return false, nil
	case n.Op == table.OpDelete: // the row is gone: whatever comes adds it anew
		n.become(table.OpPut, op)
	case op.Op == table.OpInsert: // the row is there: this one is refused
		return false, nil
	case op.Op == table.OpIgnore: // the row is there: nothing happens
	case op.Op == table.OpPut && n.Op == table.OpInsert: // if the key exists, all is refused, and done again one by one
		n.become(table.OpInsert, op)
	case op.Op == table.OpPut:
		n.become(table.OpPut, op)
	case n.Op == table.OpIgnore: // which row the patch finds, only Postgres knows
		return false, nil
	default:
		if err := c.patch(n, op); err != nil {
			return false, err
		}
	}
	n.Origins = append(n.Origins, op.Origins...)
	return true, nil
}

func (n *Net) become(kind table.Op, op *Net) {
	n.Op, n.Columns, n.Row, n.Changes, n.mixed = kind, op.Columns, op.Row, nil, false
}

// patch lays op's row over n's, and when n is a patch too, its changes.
func (c *coalescer) patch(n, op *Net) error {
	if n.Columns != op.Columns {
		if err := c.widen(n, op); err != nil {
			return err
		}
	}
	if n.mixed {
		c.overlay(n, op)
	} else {
		n.Row = op.Row
	}
	if n.Op == table.OpPatch {
		for _, ch := range op.Changes {
			n.Changes = addChange(n.Changes, ch)
		}
	}
	return nil
}

// overlay lays over n's row what op changes, and nothing else of op's row: an API
// that had not noticed a column yet left it out, and one that had then took it
// for missing. So sums are made anew.
func (c *coalescer) overlay(n, op *Net) {
	for _, ch := range op.Changes {
		base, cell := n.Row[ch.Column], op.Row[ch.Column]
		at, known := c.table.Column(n.Columns.Names[ch.Column])
		if known && ch.Add != nil && base.State == table.Set {
			if sum, err := c.table.Columns[at].Type.AppendSum(nil, base.Text, ch.Add); err == nil {
				cell.Text = sum
			}
		}
		n.Row[ch.Column] = cell
	}
}

// addChange: the values of columns that are set come from the row.
func addChange(changes []table.Change, ch table.Change) []table.Change {
	i := slices.IndexFunc(changes, func(c table.Change) bool { return c.Column == ch.Column })
	switch {
	case i < 0:
		return append(changes, ch)
	case ch.Add == nil || changes[i].Add == nil:
		changes[i].Add = nil
	default:
		changes[i].Add = table.AddDecimal(changes[i].Add, ch.Add)
	}
	return changes
}

// widen gives op the columns that only n has, and n those that only op has, in
// op's order: the schema changed between the two.
func (c *coalescer) widen(n, op *Net) error {
	header := bytes.Clone(op.Columns.header)
	place := make([]int, len(n.Columns.Names)) // of n's columns in the wider list
	row := slices.Clone(op.Row)
	for i, name := range n.Columns.Names {
		place[i] = slices.Index(op.Columns.Names, name)
		if place[i] < 0 {
			place[i] = len(row)
			row = append(row, n.Row[i])
			header = table.AppendEscaped(append(header, '\t'), []byte("0.0:"+name))
		}
	}
	var err error
	if op.Columns, err = c.list(header); err != nil {
		return err
	}
	op.Row, row = row, slices.Clone(row)
	for _, ch := range op.Changes {
		row[ch.Column] = table.Cell{} // as it was before op, where n does not know it
	}
	for i, at := range place {
		row[at] = n.Row[i]
	}
	for i := range n.Changes {
		n.Changes[i].Column = place[n.Changes[i].Column]
	}
	n.Columns, n.Row, n.mixed = op.Columns, row, true
	return nil
}
