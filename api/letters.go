package api

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// letterRoutes are what an operator does with dead letters.
func (s *Server) letterRoutes(e *echo.Echo) {
	e.GET("/admin/v1/dead-letters", s.listLetters)
	e.DELETE("/admin/v1/dead-letters", s.discardLetters)
	e.POST("/admin/v1/dead-letters/replay", s.replayLetters)
	e.GET("/admin/v1/dead-letters/:id", s.getLetter)
	e.DELETE("/admin/v1/dead-letters/:id", s.discardLetter)
	e.POST("/admin/v1/dead-letters/:id/replay", s.replayLetter)
}

// letterView is a dead letter as an answer has it.
type letterView struct {
	ID         int64              `json:"id"`
	Table      string             `json:"table"`
	Receipt    string             `json:"receipt"`
	Key        string             `json:"key,omitempty"`
	Operation  string             `json:"operation"`
	Group      string             `json:"group"`
	SQLState   string             `json:"sqlstate"`
	Constraint string             `json:"constraint,omitempty"`
	Column     string             `json:"column,omitempty"`
	Reason     string             `json:"reason"`
	Advice     string             `json:"advice"`
	Message    string             `json:"message"`
	Detail     string             `json:"detail,omitempty"`
	Accepted   time.Time          `json:"accepted_at"`
	Died       time.Time          `json:"dead_lettered_at"`
	Replayed   time.Time          `json:"replayed_at,omitzero"`
	Replays    int                `json:"replays"`
	Behind     string             `json:"parked_behind,omitempty"`    // a receipt
	BehindID   int64              `json:"parked_behind_id,omitempty"` // its number, while it is there
	Parked     int                `json:"parked"`
	TraceID    string             `json:"trace_id,omitempty"` // of a sampled write
	Row        json.RawMessage    `json:"row,omitempty"`      // left out of a list when it is large
	RowBytes   int                `json:"row_bytes"`
	Writes     map[string]*string `json:"writes,omitempty"`
}

func viewOf(l *buffer.Letter) letterView {
	place := buffer.Place{Table: l.Table, Partition: l.Name.Partition}
	why := reasonOf(l)
	v := letterView{
		ID: l.Number, Table: l.Table, Receipt: receipt(place, l.Name.ID), Key: l.Key, Operation: l.Op.String(),
		Group: buffer.GroupName(l.SQLState, l.Constraint), SQLState: l.SQLState, Constraint: l.Constraint, Column: l.Column,
		Reason: why.why, Advice: why.advice, Message: l.Message, Detail: l.Detail,
		Accepted: l.Accepted.UTC(), Died: l.Died.UTC(), Replays: l.Replays, BehindID: l.BehindNumber, Parked: l.Parked, RowBytes: l.RowBytes,
	}
	if !l.Replayed.IsZero() {
		v.Replayed = l.Replayed.UTC()
	}
	if l.Behind != (table.ID{}) {
		v.Behind = receipt(place, l.Behind)
	}
	if l.Span != (table.Span{}) {
		v.TraceID = l.Span.TraceID()
	}
	if l.Row != "" {
		v.Row = json.RawMessage(l.Row)
	}
	return v
}

// groupView is a group of dead letters as an answer has it.
type groupView struct {
	Table      string     `json:"table"`
	Group      string     `json:"group"`
	SQLState   string     `json:"sqlstate"`
	Constraint string     `json:"constraint,omitempty"`
	Letters    int64      `json:"dead_letters"`
	First      time.Time  `json:"first_at"`
	Last       time.Time  `json:"last_at"`
	Reason     string     `json:"reason"`
	Sample     letterView `json:"sample"`
}

// Letters of one page, and of one request of many.
const (
	defaultLetters = 50
	mostLetters    = 500
)

// listLetters is GET /admin/v1/dead-letters. The groups come with the first page.
func (s *Server) listLetters(c echo.Context) error {
	f, err := letterFilter(c, defaultLetters, mostLetters)
	if err != nil {
		return err
	}
	if after := c.QueryParam("after"); after != "" {
		if f.After, err = letterNumber(after); err != nil {
			return fault(codeBadFilter, "after must be the next of the page before, not %q.", clip(after))
		}
	}
	out := struct {
		Groups  []groupView  `json:"groups,omitempty"`
		Letters []letterView `json:"dead_letters"`
		Next    string       `json:"next,omitempty"`
	}{Letters: []letterView{}}
	ctx := c.Request().Context()
	all, err := s.letters.List(ctx, f)
	if err != nil {
		return s.noLetters(err)
	}
	for i := range all {
		out.Letters = append(out.Letters, viewOf(&all[i]))
	}
	if len(all) == f.Limit {
		out.Next = strconv.FormatInt(all[len(all)-1].Number, 10)
	}
	if f.After == 0 {
		groups, err := s.letters.Groups(ctx, f)
		if err != nil {
			return s.noLetters(err)
		}
		for i := range groups {
			g := &groups[i]
			sample := viewOf(&g.Sample)
			out.Groups = append(out.Groups, groupView{
				Table: g.Table, Group: g.Name(), SQLState: g.SQLState, Constraint: g.Constraint, Letters: g.Letters,
				First: g.First.UTC(), Last: g.Last.UTC(), Reason: sample.Reason, Sample: sample,
			})
		}
	}
	return c.JSON(http.StatusOK, out)
}

func (s *Server) noLetters(err error) error {
	s.log.Warn("dead letters", "error", err)
	return storeUnavailable(err, "Postgres, which has the dead letters, cannot be asked now.")
}

// letterFilter reads table, group and limit. A table that is not served any more
// may have dead letters all the same.
func letterFilter(c echo.Context, limit, most int) (buffer.LetterFilter, error) {
	f := buffer.LetterFilter{Table: c.QueryParam("table"), Group: c.QueryParam("group"), Limit: limit}
	for _, text := range []string{f.Table, f.Group} {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return f, fault(codeBadFilter, "table and group must be UTF-8 without NUL.")
		}
	}
	if text := c.QueryParam("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return f, fault(codeBadFilter, "limit must be a number from 1, not %q.", clip(text))
		}
		f.Limit = min(n, most)
	}
	return f, nil
}

func letterNumber(text string) (int64, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	return int64(n), err //nolint:gosec // 63 bits
}

// letterOf a path.
func (s *Server) letterOf(c echo.Context) (*buffer.Letter, error) {
	number, err := letterNumber(segment(c.Request(), 4))
	if err != nil || number == 0 || number == math.MaxInt64 {
		return nil, noLetter()
	}
	l, err := s.letters.Get(c.Request().Context(), number)
	if err != nil {
		return nil, s.noLetters(err)
	}
	if l == nil {
		return nil, noLetter()
	}
	return l, nil
}

func noLetter() *Problem {
	return fault(codeLetterNotFound, "There is no dead letter of this number: it was replayed, discarded, or never was.").
		hint("GET /admin/v1/dead-letters lists them.")
}

// getLetter is GET /admin/v1/dead-letters/{id}: with what a replay writes.
func (s *Server) getLetter(c echo.Context) error {
	l, err := s.letterOf(c)
	if err != nil {
		return err
	}
	v := viewOf(l)
	v.Writes = make(map[string]*string, len(l.Columns))
	for i, name := range l.Columns {
		if i < len(l.Values) {
			v.Writes[name] = l.Values[i]
		}
	}
	return c.JSON(http.StatusOK, v)
}

// discarded is the answer to a DELETE.
type discarded struct {
	Discarded int64 `json:"discarded"`
	Parked    *int  `json:"parked,omitempty"` // behind the one: they can be replayed by themselves now
	More      *bool `json:"more,omitempty"`   // of many: repeat the request
}

func (s *Server) discardLetter(c echo.Context) error {
	number, err := letterNumber(segment(c.Request(), 4))
	if err != nil {
		return noLetter()
	}
	there, parked, err := s.letters.Discard(c.Request().Context(), number)
	switch {
	case err != nil:
		return s.noLetters(err)
	case !there:
		return noLetter()
	}
	return c.JSON(http.StatusOK, discarded{Discarded: 1, Parked: &parked})
}

// mostDiscarded at a time: a statement of half a second.
const mostDiscarded = 10_000

func (s *Server) discardLetters(c echo.Context) error {
	f, err := letterFilter(c, mostDiscarded, mostDiscarded)
	if err != nil {
		return err
	}
	if f.Table == "" {
		return needsTable("discarded")
	}
	n, err := s.letters.DiscardAll(c.Request().Context(), f)
	if err != nil {
		return s.noLetters(err)
	}
	more := n == int64(f.Limit)
	return c.JSON(http.StatusOK, discarded{Discarded: n, More: &more})
}

func needsTable(done string) error {
	return fault(codeBadFilter, "Dead letters are %s by their number, or those of a table: give table, and group to choose among them.", done)
}
