package api

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// A key's replays are made in one task, in their order.

var errStillParked = fault(codeLetterParked, "The dead letter that this change was computed on was not replayed, so this one was not either.")

// held says why an operation must not be tried.
func (o *operation) held() error {
	if o.after != nil && o.after.err != nil {
		return errStillParked
	}
	return nil
}

// runReplays accepts the rows of dead letters of one table. Each has its outcome
// then. Nothing of a table is written in two ways: when its strategy turns out
// to be another one, what was not accepted goes that way.
func (s *Server) runReplays(ctx context.Context, sv *Served, all []*replay) {
	linkLetters(ctx, all)
	todo := all
	for try := 0; len(todo) > 0; try++ {
		switch {
		case sv.Target.Direct():
			s.replayDirectly(ctx, sv, todo)
		case sv.Target.Index:
			s.replayKeyed(ctx, sv, todo)
		default:
			s.replayPlain(ctx, sv, todo)
		}
		var switched []*replay
		for _, r := range todo {
			if errors.Is(r.o.err, buffer.ErrSwitched) {
				switched = append(switched, r)
			}
		}
		if todo = switched; try == 2 {
			break // it is said of them
		}
		for _, r := range todo {
			r.o.err = nil
		}
	}
	var accepted []int64
	for _, r := range all {
		switch {
		case r.o.err != nil:
		case r.o.id == (table.ID{}) && !sv.Target.Direct(): // there was nothing to write: it is done
			if _, _, err := s.letters.Discard(ctx, r.letter.Number); err != nil {
				r.o.err = s.noLetters(err)
			}
		default:
			accepted = append(accepted, r.letter.Number)
		}
	}
	if len(accepted) > 0 && !sv.Target.Direct() {
		if err := s.letters.NoteReplayed(ctx, accepted); err != nil {
			s.log.WarnContext(ctx, "note replays", "error", err) // the rows are accepted all the same
		}
	}
}

// tasksOfReplays makes a task of the replays of each key.
func tasksOfReplays(sv *Served, all []*replay) []*task {
	var tasks []*task
	byKey := make(map[string]*task)
	for _, r := range all {
		if r.o.err != nil {
			continue
		}
		t := byKey[r.key]
		if t == nil || !sv.Table.HasKey() {
			t = &task{sv: sv, place: r.place, key: r.key, cells: r.cells}
			byKey[r.key] = t
			tasks = append(tasks, t)
		}
		t.ops = append(t.ops, r.o)
	}
	return tasks
}

func (s *Server) replayKeyed(ctx context.Context, sv *Served, all []*replay) {
	for _, r := range all {
		r.o.idem = &idempotency{key: replayName(r.letter)}
	}
	tasks := tasksOfReplays(sv, all)
	for _, t := range tasks {
		t.traced(ctx)
	}
	s.keyed.run(tasks)
}

// replayName is the mark of a replay. No Idempotency-Key holds a space.
func replayName(l *buffer.Letter) string { return "replay " + l.Name.String() }

// recallReplay gives a replay that had nothing to write, or could not, the outcome
// that it had when it was made before: an insert finds its own row.
func (s *Server) recallReplay(t *task, o *operation) {
	there, err := s.buffer.Marked(context.Background(), t.place, []string{o.idem.name(o.part)})
	if err != nil {
		o.err = err
	}
	for _, text := range there {
		id, value, _ := strings.Cut(text, " ")
		done := buffer.Replay{Value: value}
		done.ID, _ = table.ParseID(id) // ours
		o.recall(t.sv.Table, done)
	}
}

func (s *Server) replayDirectly(ctx context.Context, sv *Served, all []*replay) {
	for _, r := range all {
		r.o.idem = nil // the letter itself is what makes it count once
	}
	if tasks := tasksOfReplays(sv, all); len(tasks) > 0 {
		s.writeDirectly(ctx, tasks, false)
	}
}

// takeLetters removes the dead letters that operations replay, in the transaction
// of their rows. One that is not there was replayed before.
func (g *directGroup) takeLetters(ctx context.Context, tx Tx) error {
	var letters []table.Letter
	var of []*operation
	for _, t := range g.tasks {
		for _, o := range t.ops {
			if o.letter != nil && o.err == nil && !o.done {
				letters, of = append(letters, *o.letter), append(of, o)
			}
		}
	}
	if len(letters) == 0 {
		return nil
	}
	there, err := tx.TakeLetters(ctx, g.sv.Target.Table, letters)
	if err != nil {
		return err
	}
	for i, o := range of {
		if !there[i] {
			o.refused = noLetter()
			err = errAgain
		}
	}
	return err
}

// replayPlain appends replays of a table whose rows cannot be looked up: inserts,
// and puts where it has a key. Those that were done before are told by their
// marks, and the rest is sent again without them.
func (s *Server) replayPlain(ctx context.Context, sv *Served, all []*replay) {
	for _, r := range all {
		if k := r.o.kind; r.o.err == nil && k != table.OpInsert && k != table.OpPut {
			r.o.err = changeable(sv, k)
		}
	}
	for sending := true; sending; {
		sending = false
		chunks, of := plainReplays(sv, all)
		if len(chunks) == 0 {
			return
		}
		err := s.buffer.Append(ctx, chunks...)
		for i, c := range chunks {
			again := finishPlain(sv, c, of[i], err)
			sending = sending || again
		}
	}
}

// plainReplays lays out the replays that have no outcome yet, a chunk for each
// partition.
func plainReplays(sv *Served, all []*replay) (chunks []*buffer.Chunk, of [][]*replay) {
	at := make(map[int]int)
	now := time.Now().UnixMicro()
	for _, r := range all {
		if r.o.err != nil || r.o.id != (table.ID{}) {
			continue
		}
		n, ok := at[r.place.Partition]
		if !ok {
			n = len(chunks)
			at[r.place.Partition] = n
			chunks = append(chunks, &buffer.Chunk{
				Target: sv.Target, Partition: r.place.Partition, Columns: sv.Table.Header(), Accepted: now, Atomic: true,
			})
			of = append(of, nil)
		}
		op := r.o.kind
		if op == table.OpInsert && r.o.exists == ignoreExisting {
			op = table.OpIgnore
		}
		r.o.row = r.o.whole
		r.o.idem = &idempotency{key: replayName(r.letter)}
		chunks[n].Add(op, sv.Table.AppendLine(nil, r.o.whole), r.key, buffer.ExpectNothing)
		chunks[n].MarkReplay(*r.o.letter, r.o.idem.name(0), r.o.remembered(sv.Table))
		of[n] = append(of[n], r)
	}
	return chunks, of
}

// finishPlain gives the replays of a chunk their outcome, and reports whether some
// must be sent again.
func finishPlain(sv *Served, c *buffer.Chunk, of []*replay, err error) (again bool) {
	result := c.Result()
	if err == nil {
		err = result.Err
	}
	for i, r := range of {
		done, replayed := result.Replays[i]
		switch {
		case err != nil:
			r.o.err = err
		case replayed:
			r.o.recall(sv.Table, done)
		case len(result.Replays) > 0:
			again = true
		default:
			r.o.id = table.ID{Epoch: result.First.Epoch, Seq: result.First.Seq + uint64(i)} //nolint:gosec // never negative
		}
	}
	return again
}

func formatNumber(n int64) string { return strconv.FormatInt(n, 10) }
