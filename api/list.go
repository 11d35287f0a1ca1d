package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer/table"
)

// listTimeout bounds what one list may cost Postgres: a filter without an
// index on a large table must not hold a connection for ever.
const listTimeout = 30 * time.Second

// listing is one GET of a list.
type listing struct {
	sv     *Served
	q      *table.Query
	only   bool // from Redis alone
	fresh  bool // not from the cache
	name   string
	text   *listText
	age    time.Duration
	status string // Cache-Status, after "headpond; "
	hit    bool
}

// listText is a list as it is printed.
type listText struct {
	tag  string
	body []byte
}

// list is GET and HEAD /v1/{table}: rows as they are in Postgres, or were a
// moment ago.
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
	l := &listing{sv: sv, q: q}
	l.only, l.fresh = cacheControl(r.Header)
	err = s.lookUpList(r.Context(), l)
	if l.status != "" {
		h.Set("Cache-Status", "headpond; "+l.status)
	}
	if err != nil {
		return err
	}
	if l.hit {
		h.Set("Age", strconv.Itoa(int(l.age.Seconds())))
	}
	h.Set("ETag", l.text.tag)
	h.Set("Headpond-Durability", "committed")
	if matches(r.Header.Values("If-None-Match"), l.text.tag) {
		return c.NoContent(http.StatusNotModified)
	}
	if r.Method == http.MethodHead {
		h.Set(echo.HeaderContentType, echo.MIMEApplicationJSON)
		h.Set(echo.HeaderContentLength, fmt.Sprint(len(l.text.body)))
		return c.NoContent(http.StatusOK)
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, l.text.body)
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
		s.log.WarnContext(r.Context(), "flush before list", "table", sv.Target.Table, "error", err)
		return nil
	}
	if len(left) == 0 {
		p.write(h, "wait")
	}
	return nil
}

// listRows prints the rows as a JSON array, which may be as large as a decoded
// body: so many rows of any size do not fit into memory.
func (s *Server) listRows(ctx context.Context, sv *Served, q *table.Query) (*listText, error) {
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
		s.log.WarnContext(ctx, "list rows", "table", sv.Target.Table, "error", err)
		return nil, storeUnavailable(err, "Lists are read from Postgres, which cannot be asked now or did not answer in time.")
	}
	if len(body) > limit {
		return nil, fault(codeBadFilter, "The rows of this list are larger than %d bytes.", limit).
			hint("Ask for fewer rows with limit, or for fewer columns with select.")
	}
	return newListText(append(body, ']', '\n')), nil
}
