package api

import (
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// writeLife is the life of one write. Times are those of the process that took it,
// of Redis and of the flusher, each by its own clock.
type writeLife struct {
	Receipt   string      `json:"receipt"`
	Table     string      `json:"table"`
	Partition int         `json:"partition"`
	Epoch     uint64      `json:"epoch"`
	Seq       uint64      `json:"seq"`
	State     string      `json:"state"` // as of receipts
	Steps     []lifeStep  `json:"steps"`
	LagMS     *int64      `json:"lag_ms"`
	TraceID   *string     `json:"trace_id"`
	Batch     *writeBatch `json:"batch"`
	Detail    string      `json:"detail"`
}

// lifeStep is null where the time is not known (any more), or has not come.
type lifeStep struct {
	Name string     `json:"name"`
	At   *time.Time `json:"at"`
}

// writeBatch is the rows of the partition that were committed together.
type writeBatch struct {
	Rows uint64 `json:"rows"`
	From uint64 `json:"from"` // seq
	To   uint64 `json:"to"`
}

// getWrite is GET /admin/v1/writes/{receipt}.
func (s *Server) getWrite(c echo.Context) error {
	text, ctx := segment(c.Request(), 4), c.Request().Context()
	p, id, ok := parseReceipt(text)
	sv, err := s.served(p.Table)
	if !ok || err != nil || p.Partition >= sv.Target.Partitions {
		return noReceipt()
	}
	tails, err := s.buffer.Tails(ctx, []buffer.Place{p})
	if err != nil {
		return err
	}
	if id.After(tails[0].Last) {
		return noReceipt()
	}
	out := writeLife{Receipt: text, Table: p.Table, Partition: p.Partition, Epoch: id.Epoch, Seq: id.Seq}
	if id.Epoch < tails[0].Last.Epoch {
		var lost bool
		if id, lost, err = s.whereNow(ctx, p, id); err != nil {
			return err
		}
		if lost {
			out.State, out.Steps = "lost", steps(&buffer.Story{})
			out.Detail = "Redis lost this row before it was committed, and the process that had accepted it was gone too."
			return c.JSON(http.StatusOK, out)
		}
	}
	became, replayed, err := s.receiptState(ctx, p, id, tails[0].Last)
	if err != nil {
		return err
	}
	story, err := s.buffer.Story(ctx, p, id)
	if err != nil {
		return err
	}
	out.State, _ = became["state"].(string)
	if out.State == "pending" || id.Epoch != story.Commit.Epoch {
		story.Commit = buffer.Commit{}
	}
	if replayed != nil { // the commit of its own batch was without it
		story.Commit = buffer.Commit{Epoch: id.Epoch, Committed: replayed.At}
	}
	out.tell(&story, id, became)
	if replayed != nil {
		out.Detail += " Postgres had refused it; a replay wrote it."
	}
	if all, err := s.buffer.Pauses(ctx); err == nil && out.State == "pending" && !all[p.Table].Since.IsZero() {
		out.Detail += " Its table is paused."
	}
	return c.JSON(http.StatusOK, out)
}

// tell fills in what is known.
func (w *writeLife) tell(story *buffer.Story, id table.ID, became map[string]any) {
	w.Steps = steps(story)
	if story.Span != (table.Span{}) {
		id := story.Span.TraceID()
		w.TraceID = &id
	}
	if ms, known := became["lag_ms"].(int64); known {
		w.LagMS = &ms
	}
	if k := story.Commit; k.From > 0 && id.Seq >= k.From {
		w.Batch = &writeBatch{Rows: k.To - k.From + 1, From: k.From, To: k.To}
	}
	switch {
	case w.State == "pending" && w.LagMS != nil:
		w.Detail = fmt.Sprintf("It lies in Redis since %d ms, and waits for a flush.", *w.LagMS)
	case w.State == "pending":
		w.Detail = "It lies in Redis, and waits for a flush."
	case w.State == "dead-lettered":
		w.Detail = fmt.Sprintf("Postgres refused it: %v", became["reason"])
	case w.LagMS != nil:
		w.Detail = fmt.Sprintf("It was committed in Postgres %d ms after it was accepted.", *w.LagMS)
	default:
		w.Detail = "It is committed in Postgres; when is not known any more."
	}
}

// steps of a life, in order. The clock of Redis may be another one: its time is kept
// between the others'.
func steps(story *buffer.Story) []lifeStep {
	k := story.Commit
	appended := story.Appended
	if !appended.IsZero() {
		if appended.Before(story.Accepted) {
			appended = story.Accepted
		}
		if !k.Picked.IsZero() && appended.After(k.Picked) {
			appended = k.Picked
		}
	}
	if k.Epoch == 0 {
		k = buffer.Commit{}
	}
	var out []lifeStep
	for _, step := range []struct {
		name string
		at   time.Time
	}{{"accepted", story.Accepted}, {"in_redis", appended}, {"picked_up", k.Picked}, {"copied", k.Copied}, {"committed", k.Committed}} {
		one := lifeStep{Name: step.name}
		if !step.at.IsZero() {
			at := step.at.UTC()
			one.At = &at
		}
		out = append(out, one)
	}
	return out
}
