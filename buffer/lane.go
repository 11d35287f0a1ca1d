package buffer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headpond/headpond/buffer/table"
)

// lane is one pipeline of writes: it takes what waits in the queue, makes one
// script call for each partition, and sends them together. A lane is a
// producer of its own: it sends its calls one after the other, each under the
// next number, and repeats a call under the same number until it is answered
// or the budget is used up. So a call that the network swallowed or doubled is
// applied once.
type lane struct {
	b        *Buffer
	producer string
	number   uint64
}

func (l *lane) run() error {
	var chunks []*Chunk
	for {
		chunks = l.b.queue.take(callRows, chunks)
		if chunks == nil {
			return nil
		}
		for now, later := apart(chunks); len(now) > 0; now, later = apart(later) {
			l.send(group(now))
		}
	}
}

// apart gives the chunks that may go now, and those with a mark that one of
// them has too: the script compares marks with those of earlier calls only.
func apart(chunks []*Chunk) (now, later []*Chunk) {
	type named struct {
		place Place
		name  string
	}
	var names map[named]bool
	for _, c := range chunks {
		twice := false
		for _, m := range c.marks {
			twice = twice || names[named{Place{c.Target.Table, c.Partition}, m.name}]
		}
		if twice {
			later = append(later, c)
			continue
		}
		now = append(now, c)
		for _, m := range c.marks {
			if names == nil {
				names = make(map[named]bool)
			}
			names[named{Place{c.Target.Table, c.Partition}, m.name}] = true
		}
	}
	return now, later
}

// call is one script call: chunks of one partition.
type call struct {
	place   Place
	chunks  []*Chunk
	number  uint64
	frames  []*table.Frame
	args    []any
	cmd     *redis.Cmd
	unknown bool   // some try was sent and not answered
	epoch   uint64 // in which this process took part when the call was made
}

// group makes a call for each partition. Targets that were filled move on to
// their next partition.
func group(chunks []*Chunk) []*call {
	calls := make([]*call, 0, 8)
next:
	for _, c := range chunks {
		for _, k := range calls {
			if k.chunks[0].Target == c.Target && k.chunks[0].Partition == c.Partition && (k.chunks[0].full == nil) == (c.full == nil) {
				k.chunks = append(k.chunks, c)
				continue next
			}
		}
		calls = append(calls, &call{place: Place{c.Target.Table, c.Partition}, chunks: []*Chunk{c}})
	}
	for _, k := range calls {
		if t := k.chunks[0].Target; t.Filling() == k.place.Partition {
			t.filling.Store(uint32((k.place.Partition + 1) % t.Partitions))
		}
	}
	return calls
}

// send tries the calls until each has its answer or the budget is used up.
func (l *lane) send(calls []*call) {
	deadline := time.Now().Add(l.b.cfg.Budget)
	pause := 5 * time.Millisecond
	for _, k := range calls {
		l.prepare(k)
	}
	for {
		again, shake, last := l.try(calls)
		if len(again) == 0 {
			return
		}
		calls = again
		if shake {
			last = l.b.handshakeWithin(deadline)
		}
		if last != nil {
			if time.Now().Add(pause).After(deadline) {
				l.giveUp(calls, last)
				return
			}
			time.Sleep(pause) // only while Redis is in trouble
			pause = min(2*pause, 250*time.Millisecond)
		}
	}
}

// try sends the calls once, and looks at the answers. What was accepted is kept
// before anybody can ask this process for what it holds. Whoever did a handshake
// meanwhile, this lane or another goroutine: no epoch opens without this process,
// and it takes part with the lock held.
func (l *lane) try(calls []*call) (again []*call, shake bool, last error) {
	l.b.flight.RLock()
	defer l.b.flight.RUnlock()
	if calls = l.doubtful(calls); len(calls) == 0 {
		return nil, false, nil
	}
	l.roundTrip(calls)
	for _, k := range calls {
		retry, handshake, err := l.settle(k)
		if retry {
			again = append(again, k)
		}
		shake = shake || handshake
		if err != nil {
			last = err
			k.retried(err)
		}
	}
	return again, shake, last
}

// doubtful ends calls that may have been applied before Redis lost what it knew
// of them: Postgres may have their rows.
func (l *lane) doubtful(calls []*call) (rest []*call) {
	for _, k := range calls {
		if k.unknown && l.b.forgot(k.place, k.epoch) {
			l.b.counters.Unknown.Add(int64(k.rows()))
			k.finish(fmt.Errorf("append rows partition=%s: %w", k.place, ErrOutcomeUnknown))
			continue
		}
		k.epoch = l.b.memory.joined(k.place)
		rest = append(rest, k)
	}
	return rest
}

func (k *call) rows() (n int) {
	for _, c := range k.chunks {
		n += c.Len()
	}
	return n
}

func (b *Buffer) handshakeWithin(deadline time.Time) error {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	return b.shake(ctx)
}

// prepare numbers the call and lays out its arguments.
func (l *lane) prepare(k *call) {
	l.number++
	k.number = l.number
	t := k.chunks[0].Target
	rows, marks := 0, 0
	for _, c := range k.chunks {
		rows += c.Len()
		marks += len(c.marks)
	}
	now := time.Now()
	k.frames = frames(k.chunks)
	k.epoch = l.b.memory.joined(k.place)
	args := make([]any, 0, 13+5*len(k.frames)+3*marks+rows)
	index := "0"
	if t.Index {
		index = "1"
	}
	maxRows := t.MaxRows
	if k.chunks[0].full != nil {
		maxRows = 0 // only what was done before is answered
	}
	args = append(args, k.place.prefix(), l.producer, k.number, now.UnixMilli(), maxRows, t.MaxBytes, index, len(k.frames), marks, "")
	for _, f := range k.frames {
		args = append(args, f.Len(), f.Columns, f.Time(), f.Heads, f.Data)
		l.b.counters.Frames.Add(1)
	}
	if marks > 0 {
		args = append(args, max(marksPerTable/t.Partitions, 1), marksKept.Milliseconds())
		first := 0
		for _, c := range k.chunks {
			for i := 0; len(c.marks) > 0 && i < c.Len(); i++ {
				if m, ok := c.marks[i]; ok {
					args = append(args, first+i, m.name, c.marked(m))
				}
			}
			first += c.Len()
		}
	}
	if t.Index {
		flags := make([]byte, 0, rows)
		for _, c := range k.chunks {
			flags = c.letters(flags)
		}
		args = append(args, flags)
		for _, c := range k.chunks {
			for _, key := range c.keys {
				args = append(args, key)
			}
		}
		for _, c := range k.chunks {
			for i := 0; len(c.bases) > 0 && i < c.Len(); i++ {
				if text, on := c.bases[i]; on {
					args = append(args, text)
				}
			}
		}
	}
	k.args = args
}

// frames lays the rows of the chunks out in frames.
func frames(chunks []*Chunk) []*table.Frame {
	var out []*table.Frame
	var f *table.Frame
	for _, c := range chunks {
		for i := range c.ends {
			columns := c.header(i)
			if f == nil || f.Len() >= FrameRows || len(f.Data) >= FrameBytes || string(f.Columns) != string(columns) {
				f = &table.Frame{Columns: columns}
				out = append(out, f)
			}
			f.Add(table.Op(c.ops[i]), c.Accepted, c.line(i))
			if r := c.traces.at(i); r.sent != (table.Span{}) {
				f.Trace(r.sent)
			}
		}
	}
	return out
}

func (l *lane) roundTrip(calls []*call) {
	ctx, cancel := context.WithTimeout(context.Background(), l.b.cfg.CallTimeout)
	defer cancel()
	pipe := l.b.rdb.Pipeline()
	for _, k := range calls {
		k.cmd = pipe.EvalSha(ctx, appendScript.sha, []string{k.place.log(), k.place.meta()}, k.args...)
	}
	_, _ = pipe.Exec(ctx) // each command carries its own error
}

// settle looks at a call's answer. retry: it must be sent again; handshake:
// not before the partitions were opened.
func (l *lane) settle(k *call) (retry, handshake bool, err error) {
	got, err := k.cmd.Slice()
	if err != nil {
		switch classify(err) {
		case noScript:
			return true, true, nil
		case notApplied:
			return true, false, err
		case unknown:
			k.unknown = true
			l.b.counters.Retries.Add(1)
			return true, false, err
		default:
			l.b.counters.Broken.Add(1)
			l.b.log.Error("append script failed", "partition", k.place.String(), "error", err)
			k.finish(fmt.Errorf("append rows partition=%s: %w", k.place, err))
			return false, false, nil
		}
	}
	switch answer(got, 0) {
	case "K":
		if answer(got, 3) == "1" {
			l.b.counters.Repeats.Add(1)
		}
		l.accepted(k, answer(got, 1), answer(got, 2))
	case "R":
		if l.dropReplayed(k, got[1:]) {
			l.prepare(k)
			k.unknown = false
			return true, false, nil
		}
	case "F":
		if l.dropFailed(k, got[1:]) {
			l.prepare(k)
			k.unknown = false
			return true, false, nil
		}
	case "B":
		rows, _ := strconv.ParseInt(answer(got, 1), 10, 64)
		bytes, _ := strconv.ParseInt(answer(got, 2), 10, 64)
		l.b.refused(k, rows, bytes)
	case "U":
		return true, true, nil
	case "T":
		if err := l.b.mend(k.place, answer(got, 1)); err != nil {
			return true, false, err
		}
		return true, true, nil
	case "X":
		k.chunks[0].Target.Follow(answer(got, 1))
		k.finish(ErrSwitched)
	default:
		k.finish(ErrOutcomeUnknown)
	}
	return false, false, nil
}

func answer(got []any, i int) string {
	if i < len(got) {
		if s, ok := got[i].(string); ok {
			return s
		}
	}
	return ""
}

func (l *lane) accepted(k *call, epoch, first string) {
	e, err1 := strconv.ParseUint(epoch, 10, 64)
	seq, err2 := strconv.ParseUint(first, 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		k.finish(fmt.Errorf("append rows partition=%s: %w", k.place, err))
		return
	}
	l.b.counters.Calls.Add(1)
	last := table.ID{Epoch: e, Seq: seq + uint64(k.rows()) - 1} //nolint:gosec // rows of one call
	l.b.memory.keep(k.place, unitOf(k, last))
	l.b.tally.note(k.place, last)
	for _, c := range k.chunks {
		c.result.First = table.ID{Epoch: e, Seq: seq}
		c.result.Rows = c.Len()
		seq += uint64(c.Len())
		l.b.counters.Rows.Add(int64(c.Len()))
		l.b.counters.Bytes.Add(int64(len(c.data)))
		l.b.pressure.appended(k.place, seq-1, len(c.data))
		c.wait.Done()
	}
}

// Marks are kept in two generations: so the last million of a table at least,
// or those of a day.
const (
	marksPerTable = 1_000_000
	marksKept     = 24 * time.Hour
)

// dropReplayed takes the chunks out of the call that were done before, and
// reports whether anything is left to send.
func (l *lane) dropReplayed(k *call, found []any) bool {
	var left []*Chunk
	first := 0
	for _, c := range k.chunks {
		n := c.Len()
		for i := 0; i+1 < len(found); i += 2 {
			row, _ := found[i].(int64)
			text, _ := found[i+1].(string)
			if at := int(row) - first; at >= 0 && at < n {
				c.replay(at, text)
			}
		}
		first += n
		if c.result.Replays != nil {
			c.wait.Done()
		} else {
			left = append(left, c)
		}
	}
	k.chunks = left
	return len(left) > 0
}

// dropFailed takes the rows whose expectation failed out of the call, and
// reports whether anything is left to send.
func (l *lane) dropFailed(k *call, rows []any) bool {
	failed := make(map[int]bool, len(rows))
	for _, r := range rows {
		if i, ok := r.(int64); ok {
			failed[int(i)] = true
		}
	}
	var left []*Chunk
	at := 0
	for _, c := range k.chunks {
		mine := make(map[int]bool)
		n := c.Len()
		for i := range n {
			if failed[at+i] {
				mine[i] = true
				c.result.Failed = append(c.result.Failed, c.number(i))
			}
		}
		slices.Sort(c.result.Failed)
		at += n
		switch {
		case len(mine) == 0:
			left = append(left, c)
		case c.Atomic || len(mine) == n:
			c.wait.Done()
		default:
			c.drop(mine)
			left = append(left, c)
		}
	}
	k.chunks = left
	return len(left) > 0
}

func (k *call) finish(err error) {
	for _, c := range k.chunks {
		c.result.Err = err
		c.wait.Done()
	}
}

// giveUp ends calls whose budget is used up.
func (l *lane) giveUp(calls []*call, cause error) {
	for _, k := range calls {
		l.b.log.Warn("write given up", "partition", k.place.String(), "sent", k.unknown, "error", cause)
		if k.unknown {
			for _, c := range k.chunks {
				l.b.counters.Unknown.Add(int64(c.Len()))
			}
			k.finish(fmt.Errorf("append rows partition=%s: %w: %s", k.place, ErrOutcomeUnknown, cause.Error()))
			continue
		}
		k.finish(unavailable("append rows partition="+k.place.String(), cause))
	}
}
