package api

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// Writes that depend on what a key holds (patch, increment, delete, conditions)
// are made by compare-and-append: read, compute, append on the basis of what was
// read, and again when somebody else was faster. Inside a process the writes to
// one key queue up, and whoever comes first leads: it applies all that wait and
// appends them together. So a hot key costs one append for many requests, and
// requests do not fight.

// task is what one request does to one key: its operations, in order.
type task struct {
	sv    *Served
	place buffer.Place
	key   string
	cells []table.Cell // of the key columns
	ops   []*operation
	done  *sync.WaitGroup
}

// fail ends all operations that have no outcome yet.
func (t *task) fail(err error) {
	for _, o := range t.ops {
		if o.err == nil && !o.done {
			o.err = err
		}
	}
	t.done.Done()
}

// state of a key as far as a leader knows it.
type state struct {
	known  bool
	exists bool
	row    table.Row // of the columns that travel in frames; owned by the state
	basis  buffer.Basis
	lease  string // held because the key was loaded from Postgres
}

// keyQueue is the tasks that wait for one key.
type keyQueue struct {
	id    string
	place buffer.Place
	key   string
	tasks []*task
	led   bool
	table *table.Table // whose columns the state has
	state state        // kept while it may be of use: the last row appended here
	read  bool         // the state must be read, whatever the first operation is
	fresh bool         // the state was read since these tasks came
}

// keyed is the queues of all keys. Safe for concurrent use.
type keyed struct {
	s      *Server
	mu     sync.Mutex // guards queues and what is in them, but for the state of a queue that is led
	queues map[string]*keyQueue
}

// mostIdle bounds the states that are remembered of keys that nobody writes to
// now, and mostIdleRow how large their rows may be: 32 MiB in all.
const (
	mostIdle    = 8192
	mostIdleRow = 4 << 10
)

func newKeyed(s *Server) *keyed { return &keyed{s: s, queues: make(map[string]*keyQueue)} }

// run makes the tasks' operations and returns when each has its outcome.
func (k *keyed) run(tasks []*task) {
	var wait sync.WaitGroup
	wait.Add(len(tasks))
	var lead []*keyQueue
	k.mu.Lock()
	for _, t := range tasks {
		t.done = &wait
		id := t.sv.Target.Table + "\x00" + t.key
		q := k.queues[id]
		if q == nil {
			q = &keyQueue{id: id, place: t.place, key: t.key}
			k.queues[id] = q
		}
		q.tasks = append(q.tasks, t)
		if !q.led {
			q.led = true
			lead = append(lead, q)
		}
	}
	k.mu.Unlock()
	if len(lead) > 0 {
		go k.lead(lead)
	}
	wait.Wait()
}

// mostTogether bounds what a leader takes of one queue at a time.
const mostTogether = 512

// take gives the tasks that wait in the queues that are led, those together
// that know the table by the same catalog: a chunk has one column list. Queues
// where none waits are led no longer.
func (k *keyed) take(lead []*keyQueue, rest map[*keyQueue][]*task) []*keyQueue {
	k.mu.Lock()
	defer k.mu.Unlock()
	still := lead[:0]
	for _, q := range lead {
		n := 0
		for n < len(q.tasks) && len(rest[q]) < mostTogether && (len(rest[q]) == 0 || q.tasks[n].sv.Table == rest[q][0].sv.Table) {
			rest[q] = append(rest[q], q.tasks[n])
			n++
		}
		left := copy(q.tasks, q.tasks[n:])
		clear(q.tasks[left:])
		q.tasks = q.tasks[:left]
		if len(rest[q]) > 0 {
			still = append(still, q)
			continue
		}
		q.led = false
		if !q.state.known {
			delete(k.queues, q.id)
		}
	}
	for id, q := range k.queues {
		if len(k.queues) <= mostIdle {
			break
		}
		if !q.led && len(q.tasks) == 0 {
			delete(k.queues, id)
		}
	}
	return still
}

// lead works on queues until nothing waits in them.
func (k *keyed) lead(lead []*keyQueue) {
	rest := make(map[*keyQueue][]*task, len(lead))
	began := time.Now()
	defer k.s.survive("keyed write", func(err error) {
		for q := range rest {
			k.giveUp(q, rest, err)
		}
		go k.lead(lead) // what came meanwhile
	})
	for {
		if lead = k.take(lead, rest); len(lead) == 0 {
			return
		}
		ready, failed := k.read(lead, rest)
		for q, err := range failed {
			k.giveUp(q, rest, err)
		}
		lost := k.append(ready, rest)
		switch {
		case len(ready)+len(failed) > 0 && !lost:
			began = time.Now()
		case time.Since(began) > contention:
			for _, q := range lead {
				k.giveUp(q, rest, errContended)
			}
			began = time.Now()
		default: // another process writes to the key, or loads it
			time.Sleep(time.Duration(1+rand.N(5)) * time.Millisecond) //nolint:gosec // jitter
		}
	}
}

// contention is how long writers of other processes may be faster.
const contention = 10 * time.Second

var errContended = fault(codeBufferUnavailable, "Other writers of this key were faster for too long. Nothing was applied.").header("Retry-After", "1")

func (k *keyed) giveUp(q *keyQueue, rest map[*keyQueue][]*task, err error) {
	k.release(q)
	for _, t := range rest[q] {
		t.fail(err)
	}
	delete(rest, q)
	q.state, q.read, q.fresh = state{}, false, false
}

// read finds out the state of the keys where it is needed and not known. It
// gives the queues that are ready, and those that cannot be: a key that somebody
// else is loading is neither.
func (k *keyed) read(lead []*keyQueue, rest map[*keyQueue][]*task) (ready []*keyQueue, failed map[*keyQueue]error) {
	var asked []buffer.Asked
	var unknown []*keyQueue
	for _, q := range lead {
		t := rest[q][0]
		if q.table != t.sv.Table { // it was altered: what is known has its columns of before
			q.table, q.state = t.sv.Table, state{}
		}
		if q.state.known || !q.read && !t.ops[0].reads() {
			ready = append(ready, q)
			continue
		}
		unknown = append(unknown, q)
		asked = append(asked, buffer.Asked{Place: t.place, Key: t.key})
	}
	if len(asked) == 0 {
		return ready, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	found, errs := k.s.buffer.GetMany(ctx, asked)
	var g errgroup.Group
	g.SetLimit(8)
	for i, q := range unknown {
		if errs[i] == nil {
			g.Go(func() error {
				defer k.s.survive("keyed read", func(err error) { errs[i] = err })
				errs[i] = k.learn(ctx, q, rest[q][0], found[i])
				return nil
			})
		}
	}
	_ = g.Wait() // nobody touches the queues before all of them have ended
	failed = make(map[*keyQueue]error)
	for i, q := range unknown {
		switch {
		case errs[i] != nil:
			failed[q] = errs[i]
		case q.state.known:
			ready = append(ready, q)
		}
	}
	return ready, failed
}

// learn sets the state of a queue from what Redis knows, or from Postgres.
func (k *keyed) learn(ctx context.Context, q *keyQueue, t *task, f *buffer.Found) error {
	q.fresh = true
	switch {
	case f.Deleted():
		q.state = state{known: true, basis: f.Basis()}
		return nil
	case f.Source != buffer.Miss && t.sv.Table.Newer(f.Columns):
		// A row on this one would not have what the new column holds.
		return fault(codeStoreUnavailable, "The table was altered a moment ago, and this process has not noticed yet. Nothing was applied.").header("Retry-After", "1")
	case f.Source != buffer.Miss:
		row, whole := byColumns(t.sv.Table, f.Columns, f.Line)
		if !whole {
			if err := k.s.fillStored(ctx, t.sv, t.cells, f, row); err != nil {
				return err
			}
		}
		q.state = state{known: true, exists: true, row: row, basis: f.Basis()}
		return nil
	case f.Lease == "":
		return nil // somebody else is loading it
	}
	row, found, err := k.s.edge.LoadRow(ctx, t.sv.Table, t.cells)
	q.state = state{known: err == nil, exists: found, row: row, basis: f.Basis(), lease: f.Lease}
	if bad := new(table.FieldError); errors.As(err, &bad) {
		k.release(q)
		return fault(code(bad.Code), "%s", bad.Detail)
	}
	if err != nil {
		k.release(q)
		k.s.log.Warn("load row", "table", t.sv.Target.Table, "error", err)
		return storeUnavailable(err, "The row is not in the buffer, and Postgres cannot be asked now.")
	}
	return nil
}

// fillStored fills the stored columns that a row of the log lacks, because
// they were added since, or because who changed it had not noticed them: as they
// are in Postgres when it is there, else with their defaults.
func (s *Server) fillStored(ctx context.Context, sv *Served, key []table.Cell, f *buffer.Found, row table.Row) error {
	missing := false
	for _, c := range sv.Table.Stored() {
		missing = missing || row[c].State == table.Missing
	}
	if !missing {
		return nil
	}
	if committed := f.Source == buffer.Clean || f.Committed; committed || f.Op.Changes() {
		now, found, err := s.edge.LoadRow(ctx, sv.Table, key)
		if err != nil {
			return storeUnavailable(err, "Postgres must be asked for this row, and does not answer now.")
		}
		if found && committed {
			copy(row, now)
			return nil
		}
		for _, c := range sv.Table.Stored() {
			if found && row[c].State == table.Missing {
				row[c] = now[c]
			}
		}
	}
	if _, retyped := sv.Table.Places(f.Columns); len(retyped) > 0 {
		return fault(codeStoreUnavailable, "The table was altered after this row was accepted; it can be read once it is flushed.")
	}
	in := newIncoming(sv.Table)
	defer in.release()
	r := in.add()
	copy(r.cells, row)
	if err := s.defaults(ctx, in, time.Now()); err != nil {
		return err
	}
	copy(row, cloneRow(r.cells))
	return nil
}

// append applies what waits in the queues and appends it, a chunk for each
// key. lost: some key was written by somebody else meanwhile.
func (k *keyed) append(ready []*keyQueue, rest map[*keyQueue][]*task) (lost bool) {
	var drafts []*draft
	var chunks []*buffer.Chunk
	for _, q := range ready {
		d := k.draft(q, rest[q])
		if d.chunk == nil && q.state.known && !q.fresh {
			// What was known may be old by now, and no append will tell.
			q.state, q.read = state{}, true
			continue
		}
		if d.chunk == nil { // nothing to write
			k.release(q)
			k.finish(d, rest, table.ID{})
			continue
		}
		drafts, chunks = append(drafts, d), append(chunks, d.chunk)
	}
	if len(chunks) == 0 {
		return false
	}
	if err := k.s.buffer.Append(context.Background(), chunks...); err != nil {
		for _, d := range drafts {
			k.giveUp(d.queue, rest, err)
		}
		return false
	}
	for _, d := range drafts {
		r := d.chunk.Result()
		switch {
		case r.Err != nil:
			k.giveUp(d.queue, rest, r.Err)
		case len(r.Replays) > 0:
			for n, done := range r.Replays {
				d.written[n].recall(d.tasks[0].sv.Table, done)
			}
			k.release(d.queue) // nothing was written
			d.queue.state, d.queue.read = state{}, true
		case len(r.Failed) > 0:
			lost = lost || d.queue.state.known
			d.queue.fresh = false
			d.queue.state, d.queue.read = state{}, true
		default:
			d.queue.state = d.state
			d.queue.state.basis, d.queue.state.lease = buffer.After(r.Last()), ""
			k.finish(d, rest, r.First)
		}
	}
	return lost
}

// draft is what is to be appended for one key, and what the key holds then.
type draft struct {
	queue   *keyQueue
	tasks   []*task
	chunk   *buffer.Chunk
	state   state
	row     table.ID // the key's row in the log, zero when it is not there
	written []*operation
	idle    []idleOperation
	named   map[string]*operation     // with an Idempotency-Key
	repeats map[*operation]*operation // repeats of one that is in the draft too
}

func (k *keyed) draft(q *keyQueue, tasks []*task) *draft {
	d := &draft{queue: q, tasks: tasks, state: q.state, row: q.state.basis.ID()}
	now := time.Now()
	for _, t := range tasks {
		for _, o := range t.ops {
			if o.done || d.repeated(o) {
				continue
			}
			op, line, err := table.Op(0), []byte(nil), o.held()
			if o.err = nil; err == nil {
				op, line, err = k.s.apply(t, &d.state, o, now)
			}
			if o.err = err; line == nil {
				d.idle = append(d.idle, idleOperation{t, o, len(d.written)})
				continue
			}
			if d.chunk == nil {
				d.chunk = &buffer.Chunk{
					Target: t.sv.Target, Partition: t.place.Partition, Columns: t.sv.Table.Header(), Accepted: now.UnixMicro(), Atomic: true,
				}
				switch {
				case q.state.known:
					d.chunk.AddOn(op, line, t.key, q.state.basis)
				case op == table.OpInsert:
					d.chunk.Add(op, line, t.key, buffer.ExpectAbsent)
				default:
					d.chunk.Add(op, line, t.key, buffer.ExpectNothing)
				}
			} else {
				d.chunk.Add(op, line, t.key, buffer.ExpectNothing)
			}
			d.chunk.Traced(o.span)
			switch {
			case o.letter != nil:
				d.chunk.MarkReplay(*o.letter, o.idem.name(o.part), o.remembered(t.sv.Table))
			case o.idem != nil:
				d.chunk.Mark(o.idem.name(o.part), o.remembered(t.sv.Table))
			}
			d.written = append(d.written, o)
		}
	}
	return d
}

// idleOperation is one that has nothing to write.
type idleOperation struct {
	t     *task
	o     *operation
	after int // so many of the draft that are written
}

// repeated notes an operation whose request came twice, and both wait here.
func (d *draft) repeated(o *operation) bool {
	if o.idem == nil {
		return false
	}
	name := o.idem.name(o.part)
	if first := d.named[name]; first != nil {
		if d.repeats == nil {
			d.repeats = make(map[*operation]*operation)
		}
		d.repeats[o] = first
		return true
	}
	if d.named == nil {
		d.named = make(map[string]*operation)
	}
	d.named[name] = o
	return false
}

// finish gives the operations their outcome.
func (k *keyed) finish(d *draft, rest map[*keyQueue][]*task, first table.ID) {
	for i, o := range d.written {
		o.id = table.ID{Epoch: first.Epoch, Seq: first.Seq + uint64(i)} //nolint:gosec // never negative
	}
	d.queue.fresh = false
	for _, i := range d.idle {
		if i.o.there = d.row; i.after > 0 {
			i.o.there = d.written[i.after-1].id
		}
		k.s.remember(i.t, i.o)
	}
	for o, first := range d.repeats {
		o.row, o.id, o.there, o.created, o.err = first.row, first.id, first.there, first.created, first.err
		o.idem.replayed.Store(true)
	}
	for _, t := range d.tasks {
		t.done.Done()
	}
	delete(rest, d.queue)
	d.queue.read = false
	if len(d.written) == 0 || rowSize(d.queue.state.row) > mostIdleRow {
		d.queue.state = state{}
	}
}

// release gives the lease of a key back that was loaded and is not written.
func (k *keyed) release(q *keyQueue) {
	if q.state.lease == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = k.s.buffer.Release(ctx, q.place, q.key, q.state.lease) // it ends by itself otherwise
}

func cloneRow(row table.Row) table.Row {
	out := make(table.Row, len(row))
	text := make([]byte, 0, rowSize(row)) // all cells in one piece
	for i, c := range row {
		at := len(text)
		text = append(text, c.Text...)
		out[i] = table.Cell{State: c.State, Text: text[at:len(text):len(text)]}
	}
	return out
}
