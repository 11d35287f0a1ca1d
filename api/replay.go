package api

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// A replay is a new write: its row is accepted again, gets a receipt of its own,
// and comes after what was written meanwhile. It goes through the log like any
// other, and the flush that commits it takes the dead letter away in the same
// transaction. So there is nothing to recover when a process dies: until that
// COMMIT the letter lies there, after it any other replay of it is left out. The
// mark that the log keeps (as of an Idempotency-Key) is what tells a second
// operator that the replay is on its way. Where writes are direct, the letter goes
// in the transaction of the row.
//
// The other way round, appending first and deleting the letter then, would lean
// on the mark alone: a mark ends after a day, and is lost with Redis' data, when
// the row may be in Postgres already.

// replay is one dead letter on its way.
type replay struct {
	letter *buffer.Letter
	o      *operation
	place  buffer.Place
	key    string
	cells  []table.Cell
}

// mostFollowers bounds the letters that one replay takes along.
const mostFollowers = 1000

// replayLetter is POST /admin/v1/dead-letters/{id}/replay, with corrections of the
// row in its body, or without a body.
func (s *Server) replayLetter(c echo.Context) error {
	r := c.Request()
	if s.draining.Load() {
		return buffer.ErrDraining
	}
	prefer, err := readPreferences(r.Header, s.limits.Wait)
	if err != nil {
		return err
	}
	l, err := s.letterOf(c)
	if err != nil {
		return err
	}
	if l.Waits() {
		return fault(codeLetterParked, "This change was computed on a row that is dead letter %d, and follows it when that one is replayed.", l.BehindNumber).
			hint("Replay dead letter " + formatNumber(l.BehindNumber) + "; or discard it, and then replay this one.")
	}
	sv, err := s.served(l.Table)
	if err != nil {
		return err
	}
	corrections, err := s.readCorrections(c, sv)
	if err != nil {
		return err
	}
	if corrections != nil {
		defer corrections.release()
	}
	first, err := s.rebuild(r.Context(), sv, l, corrections)
	if err != nil {
		return err
	}
	all := []*replay{first}
	if first.key == l.Key { // else it is another row now
		if all, err = s.withFollowers(r.Context(), sv, all); err != nil {
			return err
		}
	}
	c.Set(sent, true)
	s.runReplays(r.Context(), sv, all)
	if first.o.err != nil {
		return first.o.err
	}
	out, dead := s.replayOutcome(r.Context(), sv, all, prefer.Wait)
	prefer.write(c.Response().Header(), "wait")
	if d, refused := dead[first.o.id]; refused {
		return deadProblem(d, first.place, first.o.id)
	}
	return answerReplay(c, out)
}

// readCorrections reads the body of a replay, nil when there is none.
func (s *Server) readCorrections(c echo.Context, sv *Served) (*incoming, error) {
	r := c.Request()
	if r.ContentLength == 0 {
		return nil, nil //nolint:nilnil // there are none
	}
	if r.Header.Get("Content-Type") == "" && r.ContentLength < 0 { // a client that sends no length, and perhaps no body
		one := make([]byte, 1)
		if n, err := io.ReadFull(r.Body, one); n == 0 && errors.Is(err, io.EOF) {
			return nil, nil //nolint:nilnil // there are none
		}
	}
	f, err := objectMedia("Accept-Post").read(r.Header)
	if err != nil {
		return nil, err
	}
	body, err := s.readBody(c.Response(), r, s.limits.Body)
	if err != nil {
		return nil, err
	}
	defer bodies.Put(body)
	in := newIncoming(sv.Table)
	if err := in.read(body.Bytes(), f, 1); err != nil {
		in.release()
		return nil, err
	}
	if !in.single {
		in.release()
		return nil, fault(codeInvalidJSONShape, "The body must be one object: the columns that are corrected.")
	}
	return in, nil
}

// Letters that one request of many replays; the rest is for the next request.
const (
	defaultReplays = 500
	mostReplays    = 2000
)

// replayLetters is POST /admin/v1/dead-letters/replay?table=&group=: in the order
// in which they were accepted, in each partition.
func (s *Server) replayLetters(c echo.Context) error {
	r := c.Request()
	if s.draining.Load() {
		return buffer.ErrDraining
	}
	prefer, err := readPreferences(r.Header, s.limits.Wait)
	if err != nil {
		return err
	}
	f, err := letterFilter(c, defaultReplays, mostReplays)
	if err != nil {
		return err
	}
	if f.Table == "" {
		return needsTable("replayed")
	}
	var after table.Letter
	if text := c.QueryParam("after"); text != "" {
		ok := false
		if after, ok = table.ParseLetter(text); !ok {
			return fault(codeBadFilter, "after must be the next of the answer before, not %q.", clip(text))
		}
	}
	sv, err := s.served(f.Table)
	if err != nil {
		return err
	}
	letters, err := s.letters.Replayable(r.Context(), f, after)
	if err != nil {
		return s.noLetters(err)
	}
	c.Set(sent, true)
	var all []*replay
	for i := range letters {
		one, err := s.rebuild(r.Context(), sv, &letters[i], nil)
		if err != nil {
			one = &replay{letter: &letters[i], o: &operation{err: err}}
		}
		all = append(all, one)
	}
	if all, err = s.withFollowers(r.Context(), sv, all); err != nil {
		return err
	}
	s.runReplays(r.Context(), sv, all)
	out, _ := s.replayOutcome(r.Context(), sv, all, prefer.Wait)
	if len(letters) == f.Limit {
		out.Next = letters[len(letters)-1].Name.String()
	}
	prefer.write(c.Response().Header(), "wait")
	return answerReplay(c, out)
}

// withFollowers adds the letters that are parked behind those, each after the
// one that it was computed on, all in the order in which they were accepted.
func (s *Server) withFollowers(ctx context.Context, sv *Served, all []*replay) ([]*replay, error) {
	first := make(map[table.Letter]*replay)
	var behind []table.Letter
	for _, r := range all {
		if r.letter.Parked > 0 {
			first[r.letter.Name] = r
			behind = append(behind, r.letter.Name)
		}
	}
	if len(behind) == 0 {
		return all, nil
	}
	parked, err := s.letters.Parked(ctx, sv.Target.Table, behind, mostFollowers)
	if err != nil {
		return nil, s.noLetters(err)
	}
	newest := make(map[table.Letter]*replay) // of each chain
	for i := range parked {
		l := &parked[i]
		head := table.Letter{Partition: l.Name.Partition, ID: l.Behind}
		before := newest[head]
		if before == nil {
			before = first[head]
		}
		r, err := s.rebuild(ctx, sv, l, nil)
		if err != nil {
			r = &replay{letter: l, o: &operation{err: err}}
		}
		r.o.after = before.o
		newest[head] = r
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b *replay) int { return compareLetters(a.letter.Name, b.letter.Name) })
	return all, nil
}

func compareLetters(a, b table.Letter) int {
	switch {
	case a.Partition != b.Partition:
		return a.Partition - b.Partition
	case a.ID.After(b.ID):
		return 1
	case b.ID.After(a.ID):
		return -1
	}
	return 0
}
