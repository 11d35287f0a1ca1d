package api

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// parseReceipt reads "orders.3.1.871". Table names may hold dots: the three
// numbers are at the end.
func parseReceipt(s string) (p buffer.Place, id table.ID, ok bool) {
	parts := strings.Split(s, ".")
	n := len(parts)
	if n < 4 {
		return p, id, false
	}
	partition, err1 := strconv.ParseUint(parts[n-3], 10, 16)
	epoch, err2 := strconv.ParseUint(parts[n-2], 10, 53)
	seq, err3 := strconv.ParseUint(parts[n-1], 10, 53)
	if err1 != nil || err2 != nil || err3 != nil || epoch == 0 || seq == 0 {
		return p, id, false
	}
	p = buffer.Place{Table: strings.Join(parts[:n-3], "."), Partition: int(partition)}
	return p, table.ID{Epoch: epoch, Seq: seq}, true
}

// getReceipt is GET /v1/receipts/{receipt}?wait=5s.
func (s *Server) getReceipt(c echo.Context) error {
	text := segment(c.Request(), 3)
	p, id, ok := parseReceipt(text)
	sv, err := s.served(p.Table)
	if !ok || err != nil || p.Partition >= sv.Target.Partitions {
		return noReceipt()
	}
	wait, err := s.waitParam(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	tails, err := s.buffer.Tails(ctx, []buffer.Place{p})
	if err != nil {
		return err
	}
	if id.After(tails[0].Last) {
		return noReceipt()
	}
	if id.Epoch < tails[0].Last.Epoch {
		var lost bool
		if id, lost, err = s.whereNow(ctx, p, id); err != nil {
			return err
		}
		if lost {
			return c.JSON(http.StatusOK, map[string]any{"receipt": text, "state": "lost",
				"reason": "Redis lost this row before it was committed, and the process that had accepted it was gone too."})
		}
	}
	settled := tails[0].Settled >= id.Seq
	if wait > 0 {
		waiting, cancel := context.WithTimeout(ctx, wait)
		settled = s.waitSettled(waiting, p, id) || settled
		cancel()
	}
	out, _, err := s.receiptState(ctx, p, id, tails[0].Last)
	if err != nil {
		return err
	}
	if !settled && out["state"] != "pending" { // Postgres says so; Redis has not heard of it, and may have lists from before
		s.touchLists(ctx, sv)
	}
	out["receipt"] = text
	return c.JSON(http.StatusOK, out)
}

func noReceipt() error {
	return fault(codeReceiptNotFound, "No write has this receipt.").
		hint("A receipt is table, partition, epoch and seq, as an answer to a write gave it: orders.3.1.871.")
}

// waitParam reads ?wait=5s (or plain seconds), capped by the server.
func (s *Server) waitParam(c echo.Context) (time.Duration, error) {
	text := c.QueryParam("wait")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d < 0 {
		return 0, fault(codeBadFilter, "wait must be a duration such as 5s.")
	}
	return min(d, s.limits.Wait), nil
}

// receiptState says what became of a row; replayed, when a replay of it was written.
func (s *Server) receiptState(ctx context.Context, p buffer.Place, id, last table.ID) (out map[string]any, replayed *buffer.Replayed, err error) {
	const unasked = "Postgres must be asked about this write, and does not answer now."
	wm, err := s.ledger.Watermark(ctx, p)
	if err != nil {
		s.log.WarnContext(ctx, "receipt", "error", err)
		return nil, nil, storeUnavailable(err, unasked)
	}
	dead, err := s.ledger.Dead(ctx, p, id.Seq-1, id.Seq)
	if err == nil && len(dead) == 0 && !id.After(wm) {
		replayed, err = s.ledger.Replayed(ctx, p, id)
	}
	if err != nil {
		return nil, nil, storeUnavailable(err, unasked)
	}
	accepted, life, err := s.buffer.Life(ctx, p, id)
	if err != nil {
		return nil, nil, err
	}
	if gone := id.Epoch < wm.Epoch && life.Epoch != id.Epoch || id.Epoch < last.Epoch && id.After(wm); gone && len(dead) == 0 && replayed == nil && accepted.IsZero() {
		return nil, nil, fault(codeReceiptGone, "This receipt is from before Redis lost data, and it cannot be told any more what became of the write.").
			hint("Look for the row itself.")
	}
	out = map[string]any{"state": "pending"}
	if !accepted.IsZero() {
		out["accepted_at"] = accepted.UTC().Format(timeFormat)
	}
	end, as := time.Now(), table.Letter{}
	if !id.After(wm) {
		out["state"] = "committed"
		if end = life.Committed; replayed != nil { // it was refused then
			end, as = replayed.At, replayed.As
		}
		if !end.IsZero() {
			out["committed_at"] = end.UTC().Format(timeFormat)
		}
	}
	if len(dead) > 0 {
		out["state"] = "dead-lettered"
		out["sqlstate"], out["reason"] = dead[0].SQLState, dead[0].Message
		as = dead[0].Lies
	}
	if as != (table.Letter{}) && as != (table.Letter{Partition: p.Partition, ID: id}) {
		out["replayed_as"] = receiptOf(p.Table, as)
	}
	if !accepted.IsZero() && !end.IsZero() {
		out["lag_ms"] = max(end.Sub(accepted).Milliseconds(), 0)
	}
	return out, replayed, nil
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// whereNow gives the id under which a row of an earlier epoch is now: another one
// when Redis had lost it and a process gave it back.
func (s *Server) whereNow(ctx context.Context, p buffer.Place, id table.ID) (now table.ID, lost bool, err error) {
	epochs, err := s.ledger.Recorded(ctx, p, id.Epoch)
	if err != nil {
		return id, false, storeUnavailable(err, "Postgres must be asked about this write, and does not answer now.")
	}
	for i := range epochs {
		e := &epochs[i]
		if !id.After(e.Kept) {
			continue
		}
		at := slices.IndexFunc(e.Moves, func(m buffer.Move) bool {
			return m.From.Epoch == id.Epoch && id.Seq <= m.From.Seq && id.Seq+uint64(m.Rows) > m.From.Seq //nolint:gosec // rows of one call
		})
		if at < 0 {
			return id, true, nil
		}
		m := e.Moves[at]
		id = table.ID{Epoch: m.To.Epoch, Seq: m.To.Seq - (m.From.Seq - id.Seq)}
	}
	return id, false, nil
}

// waitSettled waits until the partition is committed up to a row, and reports
// whether it is. Notices can be lost, so it looks by itself now and then. When
// Redis loses the row meanwhile it is not: where it is then, its receipt tells.
func (s *Server) waitSettled(ctx context.Context, p buffer.Place, id table.ID) bool {
	return s.settledUpTo(ctx, p, id.Seq) && (id.Epoch == 0 || s.buffer.Intact(p, id))
}

func (s *Server) settledUpTo(ctx context.Context, p buffer.Place, seq uint64) bool {
	look := time.NewTicker(250 * time.Millisecond)
	defer look.Stop()
	for {
		heard, next := s.buffer.Settled(p)
		if heard >= seq {
			return true
		}
		select {
		case <-next:
		case <-ctx.Done():
			return false
		case <-look.C:
			if tails, err := s.buffer.Tails(ctx, []buffer.Place{p}); err == nil && tails[0].Settled >= seq {
				return true
			}
		}
	}
}
