package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// What a look at a row reads at most: of the log frames of the backlog, from the
// newest on, and so many writes and dead letters of the row.
const (
	mostLookedFrames = 256
	mostRowWrites    = 20
)

// rowState is all that is known of one row.
type rowState struct {
	Table     string         `json:"table"`
	Key       string         `json:"key"`
	Partition int            `json:"partition"`
	Buffer    rowInBuffer    `json:"buffer"`
	Postgres  rowInPostgres  `json:"postgres"`
	Same      *bool          `json:"same"` // null when one side is not known
	Pending   []pendingWrite `json:"pending"`
	// Complete: the whole backlog of the partition was looked through for them.
	Complete bool        `json:"pending_complete"`
	Letters  []rowLetter `json:"dead_letters"`
}

// rowInBuffer is the row as Redis has it.
type rowInBuffer struct {
	State   string          `json:"state"` // pending, clean, gone, none
	Row     json.RawMessage `json:"row"`
	Receipt *string         `json:"receipt"`
	Expires *int64          `json:"expires_in_ms"`
}

// rowInPostgres is the row as Postgres has it.
type rowInPostgres struct {
	Row   json.RawMessage `json:"row"`
	Error *string         `json:"error"`
}

// pendingWrite is an operation on the row that waits.
type pendingWrite struct {
	Receipt   string          `json:"receipt"`
	Operation string          `json:"operation"`
	Accepted  time.Time       `json:"accepted_at"`
	Row       json.RawMessage `json:"row"`
}

type rowLetter struct {
	ID     int64  `json:"id"`
	Reason string `json:"reason"`
}

// getRowState is GET /admin/v1/tables/{table}/rows/{key}: it changes nothing, and
// loads nothing into the cache.
func (s *Server) getRowState(c echo.Context) error {
	r := c.Request()
	ctx, cancel := context.WithTimeout(r.Context(), 2*statusTime)
	defer cancel()
	sv, err := s.served(segment(r, 4))
	if err != nil {
		return err
	}
	if !sv.Table.HasKey() {
		return fault(codeNoPrimaryKey, "This table has no primary key: its rows cannot be looked at one by one.")
	}
	g := &reading{sv: sv}
	if err := s.parseKey(ctx, g, rawSegment(r, 6)); err != nil {
		return err
	}
	out := rowState{Table: sv.Target.Table, Key: g.key, Partition: g.place.Partition, Pending: []pendingWrite{}, Letters: []rowLetter{}}
	buffered, known, err := s.lookInBuffer(ctx, g, &out.Buffer)
	if err != nil {
		return err
	}
	if err := s.lookInLog(ctx, g, &out); err != nil {
		return err
	}
	stored, asked, err := s.lookInPostgres(ctx, g, &out.Postgres)
	if err != nil {
		return err
	}
	if known && asked {
		same := sameRow(buffered, stored)
		out.Same = &same
	}
	if s.letters != nil {
		letters, _ := s.letters.OfKey(ctx, sv.Target.Table, g.key, mostRowWrites) // that Postgres is away is said already
		for i := range letters {
			out.Letters = append(out.Letters, rowLetter{letters[i].Number, reasonOf(&letters[i]).why})
		}
	}
	return c.JSON(http.StatusOK, out)
}

// lookInBuffer gives the row that readers are given; known is false when Redis does
// not say what the row is.
func (s *Server) lookInBuffer(ctx context.Context, g *reading, out *rowInBuffer) (row table.Row, known bool, err error) {
	out.State = "none"
	if !g.sv.Target.Index {
		return nil, false, nil
	}
	f, err := s.buffer.Get(ctx, g.place, g.key, false)
	if err != nil || f.Source == buffer.Miss {
		return nil, false, err
	}
	if f.Source == buffer.Dirty {
		name := receipt(g.place, f.ID)
		out.Receipt = &name
	} else {
		ms := max(f.TTL.Milliseconds(), 0)
		out.Expires = &ms
	}
	if f.Source == buffer.Absent || f.Deleted() {
		out.State = "gone"
		return nil, true, nil
	}
	if out.State = "clean"; f.Source == buffer.Dirty && !f.Committed {
		out.State = "pending"
	}
	row, _ = byColumns(g.sv.Table, f.Columns, f.Line)
	out.Row = knownJSON(g.sv.Table, row)
	return row, true, nil
}

// knownJSON leaves out the columns that are not known: generated ones, and those that
// were added since.
func knownJSON(t *table.Table, row table.Row) json.RawMessage {
	choose := make([]int, 0, len(row))
	for i := range row {
		if row[i].State != table.Missing {
			choose = append(choose, i)
		}
	}
	return appendRow(nil, t, row, choose)
}

// lookInPostgres gives the row, nil for none; asked is false when Postgres could not
// be.
func (s *Server) lookInPostgres(ctx context.Context, g *reading, out *rowInPostgres) (row table.Row, asked bool, err error) {
	asking, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	row, found, err := s.edge.LoadRow(asking, g.sv.Table, g.cells)
	if bad := new(table.FieldError); errors.As(err, &bad) {
		return nil, false, fault(code(bad.Code), "%s", bad.Detail)
	}
	if err != nil {
		text := "Postgres cannot be asked now."
		out.Error = &text
		return nil, false, nil //nolint:nilerr // it is told in the answer
	}
	if !found {
		return nil, true, nil
	}
	out.Row = appendRow(nil, g.sv.Table, row, nil)
	return row, true, nil
}

// sameRow compares what is known of both; nil is no row.
func sameRow(a, b table.Row) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	for i := range a {
		if a[i].State != table.Missing && (a[i].State != b[i].State || !bytes.Equal(a[i].Text, b[i].Text)) {
			return false
		}
	}
	return true
}

// lookInLog finds the operations on the row that wait.
func (s *Server) lookInLog(ctx context.Context, g *reading, out *rowState) error {
	tails, err := s.buffer.Tails(ctx, []buffer.Place{g.place})
	if err != nil {
		return err
	}
	settled := table.ID{Epoch: tails[0].Last.Epoch, Seq: tails[0].Settled}
	frames, all, err := s.buffer.Newest(ctx, g.place, settled, mostLookedFrames)
	if err != nil {
		return err
	}
	out.Complete = all
	for _, f := range frames {
		for i := f.Len() - 1; i >= 0; i-- {
			row, _ := byColumns(g.sv.Table, f.Columns, f.Line(i))
			if string(g.sv.Table.AppendKey(nil, row)) != g.key {
				continue
			}
			if len(out.Pending) == mostRowWrites {
				out.Complete = false
				return nil
			}
			first := f.First()
			w := pendingWrite{
				Receipt:   receipt(g.place, table.ID{Epoch: first.Epoch, Seq: first.Seq + uint64(i)}), //nolint:gosec // never negative
				Operation: f.Op(i).String(), Accepted: f.Accepted(i).UTC(),
			}
			if f.Op(i) != table.OpDelete {
				w.Row = knownJSON(g.sv.Table, row)
			}
			out.Pending = append(out.Pending, w)
		}
	}
	return nil
}
