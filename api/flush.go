package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
)

// defaultFlushWait is how long a flush is waited for when nobody says.
const defaultFlushWait = 10 * time.Second

// flushTable is POST /v1/{table}/flush.
func (s *Server) flushTable(c echo.Context) error {
	sv, err := s.served(segment(c.Request(), 2))
	if err != nil {
		return err
	}
	return s.flush(c, places(sv))
}

// flushAll is POST /v1/flush. A table that cannot be served any more may still
// have rows to flush.
func (s *Server) flushAll(c echo.Context) error {
	tables := s.tables.Load()
	if tables == nil {
		_, err := s.served("")
		return err
	}
	progress, _ := s.progress(c.Request().Context()) // or what it was last
	return s.flush(c, everyPlace(*tables, progress))
}

func places(sv *Served) []buffer.Place {
	out := make([]buffer.Place, sv.Target.Partitions)
	for i := range out {
		out[i] = buffer.Place{Table: sv.Target.Table, Partition: i}
	}
	return out
}

// flush answers when all that was accepted before is committed or lies in the
// dead letters. It hurries nobody: the flushers are at work already.
func (s *Server) flush(c echo.Context, of []buffer.Place) error {
	wait, err := s.waitParam(c)
	if err != nil {
		return err
	}
	if c.QueryParam("wait") == "" {
		wait = min(defaultFlushWait, s.limits.Wait)
	}
	waited, left, err := s.awaitFlush(c.Request().Context(), of, wait)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return flushTimeout(left, wait)
	}
	return c.JSON(http.StatusOK, struct {
		Flushed bool        `json:"flushed"`
		Tables  []tableRows `json:"tables"` // those that had rows to flush
	}{true, rowsByTable(waited)})
}

// awaitFlush waits until the places are settled as far as they were accepted
// when it was called. It gives those that were not settled then, and those that
// are not yet when the time is over.
func (s *Server) awaitFlush(ctx context.Context, of []buffer.Place, wait time.Duration) (waited, left []buffer.Tail, err error) {
	tails, err := s.buffer.Tails(ctx, of)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range tails {
		if t.Backlog() > 0 {
			waited = append(waited, t)
		}
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	left = waited
	for len(left) > 0 {
		inTime := s.waitSettled(waiting, left[0].Place, left[0].Last)
		if left, err = s.unsettled(ctx, left); err != nil || !inTime {
			return waited, left, err
		}
	}
	return waited, nil, nil
}

// unsettled looks again where places stand, and gives those that are not
// settled as far as their tail was.
func (s *Server) unsettled(ctx context.Context, tails []buffer.Tail) ([]buffer.Tail, error) {
	of := make([]buffer.Place, len(tails))
	for i := range tails {
		of[i] = tails[i].Place
	}
	now, err := s.buffer.Tails(ctx, of)
	if err != nil {
		return nil, err
	}
	var out []buffer.Tail
	for i, t := range tails {
		if t.Settled = now[i].Settled; t.Backlog() > 0 {
			out = append(out, t)
		}
	}
	return out, nil
}

// tableRows is how many rows of a table are or were to be flushed.
type tableRows struct {
	Table string `json:"table"`
	Rows  int64  `json:"rows"`
}

func rowsByTable(tails []buffer.Tail) []tableRows {
	sorted := slices.SortedFunc(slices.Values(tails), func(a, b buffer.Tail) int { return cmp.Compare(a.Place.Table, b.Place.Table) })
	out := []tableRows{}
	for _, t := range sorted {
		if n := len(out); n == 0 || out[n-1].Table != t.Place.Table {
			out = append(out, tableRows{Table: t.Place.Table})
		}
		out[len(out)-1].Rows += t.Backlog()
	}
	return out
}

// flushTimeout says of each table what is left.
func flushTimeout(left []buffer.Tail, wait time.Duration) error {
	p := fault(codeFlushTimeout, "Not all rows that were accepted before are committed after %s. Those that are left wait in the buffer.", wait).
		hint("GET /admin/v1/status says what the flushers are doing.")
	for _, t := range rowsByTable(left) {
		p.Errors = append(p.Errors, ProblemItem{
			Pointer: pointer(-1, t.Table), Code: "pending", Detail: fmt.Sprintf("Rows of %s that are left: %d.", t.Table, t.Rows),
		})
	}
	return p
}
