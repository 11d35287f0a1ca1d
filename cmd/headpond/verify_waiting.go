package main

import (
	"context"
	"hash/maphash"
	"time"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// waitingOp is an operation of the log that is not committed.
type waitingOp struct {
	id      table.ID
	op      table.Op
	row     table.Row      // as readers get it; cells of columns that were not there then are Missing
	changes []table.Change // of a patch or an increment; positions in the table
}

// waitingBytes of the log are held at a time: where more wait, the log is read
// several times, each time for another share of the keys.
const waitingBytes = 32 << 20

// waiting compares what readers get for keys that wait in the log with what the
// flush will make of their rows in Postgres.
func (v *verifier) waiting(ctx context.Context, p buffer.Place, t *table.Table) error {
	bad, err := v.waitingOnce(ctx, p, t, nil)
	if err != nil || len(bad) == 0 {
		return err
	}
	if v.doubtful == nil {
		v.doubtful = make(map[buffer.Place]map[string]bool)
	}
	v.doubtful[p] = keysIn(bad)
	if len(bad) < mostSuspects {
		return nil
	}
	return v.judge(ctx)
}

func keysIn(all []difference) map[string]bool {
	keys := make(map[string]bool, len(all))
	for i := range all {
		keys[all[i].Key] = true
	}
	return keys
}

// waitingStill looks at suspects again, and gives what still differs.
func (v *verifier) waitingStill(ctx context.Context, keys map[buffer.Place]map[string]bool) (bad []difference, still map[buffer.Place]map[string]bool, err error) {
	still = make(map[buffer.Place]map[string]bool)
	for p, some := range keys {
		again, err := v.waitingOnce(ctx, p, v.tables[p.Table], some)
		if err := damagedIsNoError(err); err != nil {
			return nil, nil, err
		}
		if len(again) > 0 {
			still[p] = keysIn(again)
			bad = append(bad, again...)
		}
	}
	return bad, still, nil
}

// noteWaiting notes what stayed. What was computed from a row that became a dead
// letter is not to be told: readers were given that row for a while, and it will
// not come to Postgres.
func (v *verifier) noteWaiting(ctx context.Context, bad []difference) error {
	keys := make(map[string][]string)
	for i := range bad {
		keys[bad[i].Table] = append(keys[bad[i].Table], bad[i].Key)
	}
	dead := make(map[string]map[string]bool)
	for name, some := range keys {
		var err error
		if dead[name], err = v.pg.DeadKeys(ctx, name, some); err != nil {
			return err
		}
	}
	for _, d := range bad {
		if !dead[d.Table][d.Key] {
			v.report.note(d)
		}
	}
	return nil
}

// waitingOnce looks at the keys in only, or at all.
func (v *verifier) waitingOnce(ctx context.Context, p buffer.Place, t *table.Table, only map[string]bool) (bad []difference, err error) {
	s, err := v.b.State(ctx, p)
	if err != nil {
		return nil, err
	}
	shares := uint64(1)
	if only == nil && s.Bytes > s.SettledBytes {
		shares += (s.Bytes - s.SettledBytes) / waitingBytes
	}
	seed, admitted := maphash.MakeSeed(), int64(0)
	for share := range shares {
		wm, err := v.watermark(ctx, p)
		if err != nil {
			return nil, err
		}
		ops := make(map[string][]waitingOp)
		err = v.b.Entries(ctx, s, wm, func(entries []buffer.Entry) error {
			for i := range entries {
				collect(t, &entries[i], wm, ops, func(key string) bool {
					if only != nil {
						return only[key]
					}
					if maphash.String(seed, key)%shares != share || v.sample > 0 && admitted >= v.sample {
						return false
					}
					admitted++
					return true
				})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if only == nil {
			v.report.WaitingKeys += int64(len(ops))
		}
		some, err := v.compareWaiting(ctx, p, t, ops)
		if bad = append(bad, some...); err != nil {
			return nil, err
		}
	}
	return bad, nil
}

// collect adds the operations of an entry on keys that are there, or that admit
// lets in. A key with a row whose meaning is not known any more gets one without
// a row.
func collect(t *table.Table, e *buffer.Entry, wm table.ID, ops map[string][]waitingOp, admit func(key string) bool) {
	if e.Err != nil {
		return
	}
	f, stale, err := t.Adapt(e.Frame)
	if err != nil {
		return
	}
	places, _ := t.Places(f.Columns)
	for i, key := range keysOf(t, e.Frame) {
		id := rowID(f, i)
		if key == "" || id.Seq <= wm.Seq || ops[key] == nil && !admit(key) {
			continue
		}
		cells := table.ParseLine(f.Line(i))
		op := waitingOp{id: id, op: f.Op(i), row: layOut(t, places, cells)}
		if op.op.Changes() && len(cells) > len(places) {
			changes, err := table.ParseChanges(cells[len(places)].Text)
			for _, c := range changes {
				if c.Column < len(places) && places[c.Column] >= 0 {
					op.changes = append(op.changes, table.Change{Column: places[c.Column], Add: c.Add})
				}
			}
			if err != nil {
				op.row = nil
			}
		}
		if stale[i] != "" {
			op.row = nil
		}
		ops[key] = append(ops[key], op)
	}
}

// waitingKeys are compared at a time.
const waitingKeys = 500

func (v *verifier) compareWaiting(ctx context.Context, p buffer.Place, t *table.Table, ops map[string][]waitingOp) (bad []difference, err error) {
	var keys []string
	var cells [][]table.Cell
	compare := func() error {
		began := time.Now()
		// First what readers get, then Postgres: what readers do not get from the
		// log must be committed by then.
		found, errs := v.b.Answers(ctx, p, keys)
		stored, wm, err := v.pg.Rows(ctx, t, p, cells)
		for i, key := range keys {
			if err != nil {
				return err
			}
			if errs[i] != nil {
				return errs[i]
			}
			if d := judgeWaiting(p, t, key, ops[key], found[i], stored[i].Row, wm); d != nil && stored[i].Err == nil {
				bad = append(bad, *d)
			}
		}
		v.progress(int64(len(keys)))
		keys, cells = keys[:0], cells[:0]
		pause(ctx, time.Since(began)) // readers find Redis free half of the time
		return nil
	}
	for key := range ops {
		if c, ok := t.KeyCells(key); ok {
			keys, cells = append(keys, key), append(cells, c)
		}
		if len(keys) == waitingKeys {
			if err := compare(); err != nil {
				return nil, err
			}
		}
	}
	return bad, compare()
}

// judgeWaiting gives what differs, or nil.
func judgeWaiting(p buffer.Place, t *table.Table, key string, ops []waitingOp, found *buffer.Found, stored table.Row, wm table.ID) *difference {
	newest := &ops[len(ops)-1]
	if newest.id.Seq <= wm.Seq { // it was committed meanwhile
		return nil
	}
	differ := func(text string, redis, postgres table.Row) *difference {
		d := differs(p, "waiting row", key, "%s", text)
		if redis != nil && postgres != nil {
			d.Redis, d.Postgres = contrast(t, redis, postgres)
		}
		return &d
	}
	switch {
	case found.Source != buffer.Dirty:
		return differ("the row "+newest.id.String()+" waits in the log, and readers are not given it", nil, nil)
	case found.ID.Seq < newest.id.Seq:
		return differ("the row "+newest.id.String()+" waits in the log, and readers are given the older "+found.ID.String(), nil, nil)
	case found.ID.Seq > newest.id.Seq || newest.row == nil: // a newer one has come
		return nil
	case found.Deleted() != (newest.op == table.OpDelete):
		return differ("readers are given something else than the row "+newest.id.String()+" of the log", nil, nil)
	}
	if newest.op != table.OpDelete {
		places, _ := t.Places(found.Columns)
		given := layOut(t, places, table.ParseLine(found.Line))
		if a, _ := contrast(t, given, newest.row); a != "" {
			return differ("readers are given something else than the row "+newest.id.String()+" of the log", given, newest.row)
		}
	}
	will, known := layOver(t, stored, ops, wm)
	switch {
	case !known:
		return nil
	case (will == nil) != (newest.op == table.OpDelete):
		return differ("whether there is a row is not what the flush will make of it", nil, nil)
	case will != nil:
		if a, _ := contrast(t, newest.row, will); a != "" {
			return differ("what readers are given is not what the flush will make of the row in Postgres", newest.row, will)
		}
	}
	return nil
}

// layOver does what the flush will do to a row of Postgres, nil for none. known
// is false when only the flush can tell: a row may be refused.
func layOver(t *table.Table, row table.Row, ops []waitingOp, wm table.ID) (_ table.Row, known bool) {
	for i := range ops {
		o := &ops[i]
		switch {
		case o.id.Seq <= wm.Seq:
		case o.row == nil:
			return nil, false
		case o.op == table.OpDelete:
			row = nil
		case row != nil && (o.op == table.OpInsert || o.op == table.OpIgnore):
			return nil, false
		case row == nil || !o.op.Changes():
			row = o.row
		default:
			if row, known = change(t, row, o); !known {
				return nil, false
			}
		}
	}
	return row, true
}

func change(t *table.Table, row table.Row, o *waitingOp) (_ table.Row, known bool) {
	out := append(table.Row(nil), row...)
	for _, c := range o.changes {
		if c.Add == nil {
			out[c.Column] = o.row[c.Column]
			continue
		}
		if out[c.Column].State != table.Set {
			return nil, false
		}
		sum, err := t.Columns[c.Column].Type.AppendSum(nil, out[c.Column].Text, c.Add)
		if err != nil {
			return nil, false
		}
		out[c.Column] = table.Cell{State: table.Set, Text: sum}
	}
	return out, true
}
