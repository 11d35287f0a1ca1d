package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer/table"
)

// listTimeout bounds what one list may cost Postgres: a filter without an
// index on a large table must not hold a connection for ever.
const listTimeout = 30 * time.Second

// list is GET and HEAD /v1/{table}: rows as they are in Postgres.
func (s *Server) list(c echo.Context) error {
	r := c.Request()
	sv, err := s.served(segment(r, 2))
	if err != nil {
		return err
	}
	q, err := parseQuery(sv.Table, r.URL.RawQuery, s.limits.List)
	if err != nil {
		return err
	}
	h := c.Response().Header()
	if err := s.flushFirst(r, h, sv); err != nil {
		return err
	}
	h.Set("Cache-Status", "headpond; fwd=miss")
	body, err := s.listRows(r.Context(), sv, q)
	if err != nil {
		return err
	}
	h.Set("Headpond-Durability", "committed")
	if r.Method == http.MethodHead {
		h.Set(echo.HeaderContentType, echo.MIMEApplicationJSON)
		h.Set(echo.HeaderContentLength, fmt.Sprint(len(body)))
		return c.NoContent(http.StatusOK)
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, body)
}

// flushFirst does as Prefer: wait asks. It is a wish: when it cannot be
// fulfilled the list is answered all the same, and does not say that it was.
func (s *Server) flushFirst(r *http.Request, h http.Header, sv *Served) error {
	p, err := readPreferences(r.Header, s.limits.Wait)
	if err != nil || !p.waits {
		return err
	}
	_, left, err := s.awaitFlush(r.Context(), places(sv), p.Wait)
	if err != nil {
		s.log.Warn("flush before list", "table", sv.Target.Table, "error", err)
		return nil
	}
	if len(left) == 0 {
		p.write(h, "wait")
	}
	return nil
}

// listRows prints the rows as a JSON array, which may be as large as a decoded
// body: so many rows of any size do not fit into memory.
func (s *Server) listRows(ctx context.Context, sv *Served, q *table.Query) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	limit := int(decodedRatio * s.limits.Body)
	body := append(make([]byte, 0, 4096), '[')
	err := s.edge.List(ctx, sv.Table, q, func(row table.Row) bool {
		if len(body) > 1 {
			body = append(body, ',')
		}
		body = appendRow(body, sv.Table, row, q.Select)
		return len(body) <= limit
	})
	if bad := new(table.FieldError); errors.As(err, &bad) {
		if bad.Column != "" {
			return nil, fault(codeBadFilter, "%s: %s", bad.Column, bad.Detail)
		}
		return nil, fault(codeBadFilter, "Postgres cannot filter or order so: %s", bad.Detail)
	}
	if err != nil {
		s.log.Warn("list rows", "table", sv.Target.Table, "error", err)
		return nil, storeUnavailable(err, "Lists are read from Postgres, which cannot be asked now or did not answer in time.")
	}
	if len(body) > limit {
		return nil, fault(codeBadFilter, "The rows of this list are larger than %d bytes.", limit).
			hint("Ask for fewer rows with limit, or for fewer columns with select.")
	}
	return append(body, ']', '\n'), nil
}
