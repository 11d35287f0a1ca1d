package api

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// replayAnswer is the answer to a replay. A letter is replayed when its row is
// accepted.
type replayAnswer struct {
	Replayed  int           `json:"replayed"`
	Again     int           `json:"already_replayed"` // of them: on their way before
	Failed    int           `json:"failed"`
	Committed bool          `json:"committed"`
	Receipts  []string      `json:"receipts"`
	Errors    []letterError `json:"errors"`
	Next      string        `json:"next,omitempty"`
}

// letterError is why a dead letter was not replayed, or was refused again.
type letterError struct {
	ID     int64  `json:"id"`
	Code   code   `json:"code"`
	Detail string `json:"detail"`
}

func answerReplay(c echo.Context, out *replayAnswer) error {
	status := statusOf(false, out.Committed)
	if out.Failed > 0 {
		status = http.StatusMultiStatus
	}
	return c.JSON(status, out)
}

// replayOutcome waits as it is asked to, and says what became of the replays: of
// those that Postgres refused again too.
func (s *Server) replayOutcome(ctx context.Context, sv *Served, all []*replay, wait time.Duration) (*replayAnswer, map[table.ID]buffer.DeadLetter) {
	out := &replayAnswer{Receipts: []string{}, Errors: []letterError{}}
	last := make(map[buffer.Place]table.ID)
	for _, r := range all {
		if r.o.err == nil && r.o.id.After(last[r.place]) {
			last[r.place] = r.o.id
		}
	}
	var dead map[table.ID]buffer.DeadLetter
	out.Committed, dead = s.awaitReplays(ctx, all, last, wait)
	out.Committed = out.Committed || sv.Target.Direct() && len(last) == 0
	for _, r := range all {
		d, refused := dead[r.o.id]
		switch {
		case r.o.err != nil:
			p := problemOf(r.o.err)
			out.fail(r.letter.Number, p.Code, p.Detail)
		case refused && r.o.id != (table.ID{}):
			out.fail(r.letter.Number, codeDeadLettered, d.Message+" (SQLSTATE "+d.SQLState+")")
		default:
			out.Replayed++
			if r.o.done {
				out.Again++
			}
		}
	}
	out.Receipts = receiptsOf(last)
	return out, dead
}

func (a *replayAnswer) fail(number int64, c code, detail string) {
	a.Failed++
	if len(a.Errors) < mostListed {
		a.Errors = append(a.Errors, letterError{number, c, detail})
	}
}

// awaitReplays waits until the replays are committed, and gives those that became
// dead letters again.
func (s *Server) awaitReplays(ctx context.Context, all []*replay, last map[buffer.Place]table.ID, wait time.Duration) (bool, map[table.ID]buffer.DeadLetter) {
	if wait == 0 || len(last) == 0 {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	first := make(map[buffer.Place]uint64)
	for _, r := range all {
		if r.o.err == nil && r.o.id.Seq > 0 && (first[r.place] == 0 || r.o.id.Seq < first[r.place]) {
			first[r.place] = r.o.id.Seq
		}
	}
	dead := make(map[table.ID]buffer.DeadLetter)
	for p, id := range last {
		if !s.waitSettled(ctx, p, id) {
			return false, nil
		}
		letters, err := s.ledger.Dead(ctx, p, first[p]-1, id.Seq)
		if err != nil {
			return false, nil
		}
		for _, d := range letters {
			dead[d.ID] = d
		}
	}
	return true, dead
}
