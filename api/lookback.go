package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
)

// lookBack notices that Postgres has gone back: it was restored, or a standby
// took over that lacks the last commits. A flush would notice too, but there may
// be nothing to flush, and readers must not be given what Postgres has no more.
// Postgres is read before Redis, so a commit between the two looks the same once.
func (s *Server) lookBack(ctx context.Context, lines map[string][]partitionLine) {
	s.books.mu.Lock()
	before, now := s.books.back, make(map[buffer.Place]uint64)
	s.books.mu.Unlock()
	gaps := make(map[buffer.Place]string)
	for _, of := range lines {
		for i := range of {
			l := &of[i]
			if l.Watermark >= l.settled {
				continue
			}
			now[l.place] = l.Watermark
			if seq, twice := before[l.place]; !twice || seq != l.Watermark {
				continue
			}
			if err := s.buffer.Reopen(ctx, l.place, 0); err != nil {
				s.log.Error("Postgres has gone back", "partition", l.place.String(), "error", err)
				if gap := new(buffer.DataGap); errors.As(err, &gap) {
					gaps[l.place] = gap.Error()
				}
			}
		}
	}
	s.books.mu.Lock()
	defer s.books.mu.Unlock()
	s.books.back, s.books.gaps = now, gaps
}

// gapWarnings say what somebody must decide.
func (s *Server) gapWarnings() (out []string) {
	s.books.mu.Lock()
	defer s.books.mu.Unlock()
	for _, text := range s.books.gaps {
		out = append(out, text)
	}
	slices.Sort(out)
	return out
}

// acceptGap is POST /admin/v1/tables/{table}/accept-gap: rows that were committed
// once, and that nobody has any more, are counted as lost, and the table goes on.
func (s *Server) acceptGap(c echo.Context) error {
	ctx := c.Request().Context()
	sv, err := s.served(segment(c.Request(), 4))
	if err != nil {
		return err
	}
	lost := uint64(0)
	for _, p := range places(sv) {
		err := s.buffer.Reopen(ctx, p, 0)
		gap := new(buffer.DataGap)
		if err != nil && !errors.As(err, &gap) {
			return storeUnavailable(err, "Redis and Postgres must be compared, and one of them does not answer now.")
		}
		if err == nil {
			continue
		}
		if err := s.ledger.Skip(ctx, p, gap.Have, gap.Next-1); err != nil {
			return storeUnavailable(err, "Postgres must note what is lost, and does not answer now.")
		}
		lost += gap.Next - 1 - gap.Have
		if err := s.buffer.Reopen(ctx, p, 0); err != nil {
			return fmt.Errorf("open partition=%s: %w", p, err)
		}
	}
	return c.JSON(http.StatusOK, map[string]any{"lost": lost})
}
