package api

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// lookUp answers from the log, else from a clean row, else from Postgres: once
// per key at a time, under a lease, so that a slow load can never overwrite a
// newer row.
func (s *Server) lookUp(ctx context.Context, g *reading, only, fresh bool) error {
	if !g.sv.Target.Index {
		if only {
			return notCached(g)
		}
		return s.load(ctx, g, nil)
	}
	want := buffer.Want{Lease: !only || g.lend, Negative: g.sv.NegativeTTL > 0, Take: fresh}
	if !fresh {
		want.Stale, want.Ahead = g.sv.Stale, g.sv.RefreshAhead
	}
	read := s.buffer.Read
	if g.sv.Target.Drained() && !only {
		read = s.buffer.ReadSoon
	}
	for w := (waiting{s: s, g: g}); ; {
		found, err := read(g.place, g.key, want)
		switch {
		case err != nil && g.sv.Target.Drained() && !only: // no row is newer than in Postgres
			g.fwd, g.bypassed = "fwd=bypass; detail=buffer-unavailable", true
			return s.load(ctx, g, nil)
		case err != nil:
			return err
		case found.Source == buffer.Dirty, found.Source != buffer.Miss && !fresh:
			return s.cached(ctx, g, found)
		case only:
			g.lease = found.Lease
			return notCached(g)
		case fresh && found.Source != buffer.Miss:
			g.fwd = "fwd=request"
			return s.load(ctx, g, found)
		case found.Lease != "":
			defer s.loads.begin(g.id())()
			return s.load(ctx, g, found)
		case found.Written, fresh, w.over():
			return s.load(ctx, g, nil)
		}
		g.collapsed = true
		if err := w.pause(ctx); err != nil {
			return err
		}
	}
}

func notCached(g *reading) error {
	g.status = "fwd=miss"
	return fault(codeNotCached, "The row is not in the cache, and the request asked for nothing else.")
}

// cached takes a row from Redis.
func (s *Server) cached(ctx context.Context, g *reading, f *buffer.Found) error {
	if f.Again {
		s.refresh(g, f)
	}
	switch {
	case f.Source != buffer.Dirty:
		g.stored, g.negative, g.stale = f.Stored, f.Source == buffer.Absent, f.TTL <= 0
		g.status = "hit; ttl=" + strconv.Itoa(int(math.Floor(f.TTL.Seconds())))
		if g.stale {
			g.status += "; detail=stale"
		}
	case f.Committed:
		g.status = "hit"
	default:
		g.status = "hit; detail=pending"
	}
	g.hit, g.pending = true, f.Source == buffer.Dirty && !f.Committed
	if f.Deleted() || g.negative {
		return errNoRow
	}
	row, whole := byColumns(g.sv.Table, f.Columns, f.Line)
	if !whole {
		// The table has columns that the row does not: generated ones, or some
		// that were added since.
		return s.widen(ctx, g, f, row)
	}
	g.row, g.committed = row, !g.pending
	return nil
}

// widen completes a row of the log that lacks columns. When it is committed
// Postgres has the whole row; else the columns that are not there yet take
// their defaults, and generated ones only Postgres can compute.
func (s *Server) widen(ctx context.Context, g *reading, f *buffer.Found, row table.Row) error {
	if f.Source == buffer.Clean {
		return s.load(ctx, g, f)
	}
	if f.Committed {
		return s.load(ctx, g, nil)
	}
	if err := s.fillStored(ctx, g.sv, g.cells, f, row); err != nil {
		return err
	}
	if err := s.generateChosen(ctx, g, row); err != nil {
		return err
	}
	g.row = row
	return nil
}

// generateChosen computes the generated columns when the request wants one. A
// row for which Postgres cannot compute them is no row that it will ever hold:
// null would be a lie, and so would be that Postgres cannot be asked.
func (s *Server) generateChosen(ctx context.Context, g *reading, row table.Row) error {
	t := g.sv.Table
	if g.choose != nil && !slices.ContainsFunc(g.choose, func(c int) bool { return t.Columns[c].Generated }) {
		return nil
	}
	err := s.edge.Generate(ctx, t, row)
	if bad := new(table.FieldError); errors.As(err, &bad) {
		return columnFault(bad.Column, bad.Code, "This row is accepted and not flushed yet, and its column "+bad.Column+" cannot be computed: "+bad.Detail).
			hint("Postgres will refuse the row for it, and it becomes a dead letter then. With select, the other columns can be read.")
	}
	return storeUnavailable(err, "Postgres must compute a column of this row, and cannot be asked now.")
}

// load reads the row from Postgres, and stores it in the place of what was found
// in Redis, if that still lies there; over is nil when nothing may be stored.
// Loads are not shared between requests: one that began before a write must
// not answer a request that came after it. The lease is what keeps them few.
func (s *Server) load(ctx context.Context, g *reading, over *buffer.Found) error {
	g.hit, g.stored, g.status = false, time.Time{}, g.fwd
	if g.status == "" {
		g.status = "fwd=miss"
	}
	row, found, err := s.edge.LoadRow(ctx, g.sv.Table, g.cells)
	if err != nil && over != nil && over.Source == buffer.Miss {
		s.releaseLease(ctx, g, over.Lease)
	}
	if bad := new(table.FieldError); errors.As(err, &bad) {
		return fault(code(bad.Code), "%s", bad.Detail)
	}
	if err != nil {
		s.log.WarnContext(ctx, "load row", "table", g.sv.Target.Table, "error", err)
		return storeUnavailable(err, "The row is not in the cache, and Postgres cannot be asked now.")
	}
	if over != nil && s.keep(ctx, g, over, row) {
		g.status += "; stored"
	}
	if !found {
		return errNoRow
	}
	g.row, g.committed = row, true
	return nil
}

func (s *Server) releaseLease(ctx context.Context, g *reading, lease string) {
	if lease == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = s.buffer.Release(ctx, g.place, g.key, lease) // it ends by itself otherwise
}

// keep stores what was loaded in the place of what was found in Redis: a row,
// or nil for none.
func (s *Server) keep(ctx context.Context, g *reading, over *buffer.Found, row table.Row) (ok bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // others wait for it
	defer cancel()
	var err error
	if row == nil {
		ok, err = s.buffer.FillAbsent(ctx, g.place, g.key, over.Lease, buffer.Life{TTL: jitter(g.sv.NegativeTTL)})
	} else {
		columns, line := allColumns(g.sv.Table, row)
		ok, err = s.buffer.Fill(ctx, g.place, g.key, over.Lease, buffer.Row{Columns: columns, Line: line}, g.sv.life())
	}
	if err != nil {
		s.log.WarnContext(ctx, "store clean row", "table", g.sv.Target.Table, "error", err)
	}
	return ok
}
