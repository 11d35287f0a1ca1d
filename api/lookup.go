package api

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// outcome of a read, for the counters.
type outcome int

const (
	outcomeNone      outcome = iota // it failed
	outcomeHit                      // a clean row, or a committed one in the log
	outcomePending                  // a row in the log
	outcomeNegative                 // it was remembered that there is none
	outcomeStale                    // a row past its time
	outcomeMiss                     // Postgres was asked
	outcomeCollapsed                // somebody else asked it meanwhile
	outcomeBypass                   // Redis could not be asked
)

// cacheControl reads what a request says of the cache (RFC 9111, 5.2.1).
func cacheControl(h http.Header) (only, fresh bool) {
	for _, field := range h.Values("Cache-Control") {
		for item := range strings.SplitSeq(field, ",") {
			switch strings.ToLower(strings.TrimSpace(item)) {
			case "only-if-cached":
				only = true
			case "no-cache", "no-store", "max-age=0":
				fresh = true
			}
		}
	}
	return only, fresh && !only
}

// lookUp answers from the log, else from a clean row, else from Postgres: once
// per key at a time, under a lease, so that a slow load can never overwrite a
// newer row.
func (s *Server) lookUp(ctx context.Context, g *reading) error {
	if !g.sv.Target.Index {
		if g.only {
			return notCached(g)
		}
		return s.load(ctx, g, "")
	}
	want := buffer.WantRow
	if g.fresh {
		want = buffer.WantFresh
	}
	// A lease that somebody else holds ends, at the latest, after its time; by
	// then, 3 s and 100 tries, the row is loaded without one, and not stored.
	for try := 0; ; try++ {
		found, err := s.buffer.Read(ctx, &buffer.Reading{Place: g.place, Key: g.key, Want: want, Lease: !g.only, Ahead: g.sv.RefreshAhead})
		switch {
		case err != nil && g.sv.Target.Drained() && !g.only: // no row is newer than in Postgres
			return s.bypass(ctx, g)
		case err != nil:
			return err
		case found.Source != buffer.Miss:
			return s.cached(ctx, g, found)
		case g.only:
			return notCached(g)
		case found.Lease != "":
			defer s.loads.begin(g)()
			return s.load(ctx, g, found.Lease)
		case found.Written || try == 100:
			return s.load(ctx, g, "")
		}
		g.status, g.outcome = "fwd=miss; collapsed", outcomeCollapsed
		if !s.loads.await(ctx, g, time.Duration(5+rand.N(try+5))*time.Millisecond) { //nolint:gosec // jitter
			return fault(codeStoreUnavailable, "The row is being loaded, and that takes too long.")
		}
	}
}

// bypass answers without Redis.
func (s *Server) bypass(ctx context.Context, g *reading) error {
	err := s.load(ctx, g, "")
	g.status, g.outcome = "fwd=bypass; detail=buffer-unavailable", outcomeBypass
	return err
}

func notCached(g *reading) error {
	g.status = "fwd=miss"
	return fault(codeNotCached, "The row is not in the cache, and the request asked for nothing else.")
}

// cached takes a row from Redis.
func (s *Server) cached(ctx context.Context, g *reading, f *buffer.Found) error {
	hit := func(o outcome, status string, args ...any) {
		if g.outcome != outcomeCollapsed {
			g.outcome, g.status = o, fmt.Sprintf(status, args...)
		}
	}
	switch {
	case f.Deleted():
		hit(outcomePending, "hit")
		return errNoRow
	case f.Source == buffer.Absent:
		hit(outcomeNegative, "hit; ttl=%d", int(f.TTL.Seconds()))
		return errNoRow
	}
	if f.Source == buffer.Clean && f.Lease != "" {
		s.refresh(g, f.Lease)
	}
	row, whole := byColumns(g.sv.Table, f.Columns, f.Line)
	if !whole {
		// The table has columns that the row does not: generated ones, or some
		// that were added since.
		return s.widen(ctx, g, f, row)
	}
	g.row = row
	g.committed = f.Source == buffer.Clean || f.Committed
	switch {
	case f.Source == buffer.Clean && f.TTL < 0:
		hit(outcomeStale, "hit; ttl=%d; detail=stale", -int((-f.TTL + time.Second - 1).Seconds()))
		g.age = f.Age
	case f.Source == buffer.Clean:
		hit(outcomeHit, "hit; ttl=%d", int(f.TTL.Seconds()))
		g.age = f.Age
	case f.Committed:
		hit(outcomeHit, "hit")
	default:
		hit(outcomePending, "hit; detail=pending")
	}
	return nil
}

// widen completes a row of the log that lacks columns. When it is committed
// Postgres has the whole row; else the columns that are not there yet take
// their defaults, and generated ones only Postgres can compute.
func (s *Server) widen(ctx context.Context, g *reading, f *buffer.Found, row table.Row) error {
	if f.Source == buffer.Clean || f.Committed {
		return s.load(ctx, g, "")
	}
	g.outcome = outcomePending
	if err := s.fillStored(ctx, g.sv, g.cells, f, row); err != nil {
		return err
	}
	if err := s.generateChosen(ctx, g, row); err != nil {
		return err
	}
	g.row, g.status = row, "hit; detail=pending"
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

// load reads the row from Postgres, and stores it when the lease still stands.
// Loads are not shared between requests: one that began before a write must
// not answer a request that came after it. The lease is what keeps them few.
func (s *Server) load(ctx context.Context, g *reading, lease string) error {
	g.status, g.outcome = "fwd=miss", outcomeMiss
	row, found, err := s.edge.LoadRow(ctx, g.sv.Table, g.cells)
	if err != nil {
		s.releaseLease(ctx, g, lease)
	}
	if bad := new(table.FieldError); errors.As(err, &bad) {
		return fault(code(bad.Code), "%s", bad.Detail)
	}
	if err != nil {
		s.log.Warn("load row", "table", g.sv.Target.Table, "error", err)
		return storeUnavailable(err, "The row is not in the cache, and Postgres cannot be asked now.")
	}
	if lease != "" && s.keep(ctx, g, lease, row) {
		g.status = "fwd=miss; stored"
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

// keep stores the loaded row, or, when it is nil, that there is none.
func (s *Server) keep(ctx context.Context, g *reading, lease string, row table.Row) (ok bool) {
	var err error
	switch {
	case row != nil:
		columns, line := allColumns(g.sv.Table, row)
		ok, err = s.buffer.Fill(ctx, g.place, g.key, lease, buffer.Row{Columns: columns, Line: line}, g.sv.life())
	case g.sv.NegativeTTL > 0:
		ok, err = s.buffer.FillAbsent(ctx, g.place, g.key, lease, buffer.Life{TTL: g.sv.NegativeTTL})
	default:
		s.releaseLease(ctx, g, lease)
	}
	if err != nil {
		s.log.Warn("store clean row", "table", g.sv.Target.Table, "error", err)
	}
	return ok
}

// mostRefreshes at a time are loaded again in the background; others wait for
// their end.
const mostRefreshes = 8

// refresh loads a clean row again that is close to its end, or past it, under
// the lease that lies in it: whatever is written meanwhile takes that away.
func (s *Server) refresh(g *reading, lease string) {
	select {
	case s.refreshing <- struct{}{}:
	default:
		s.releaseLease(context.Background(), g, lease)
		return
	}
	again := &reading{sv: g.sv, place: g.place, key: g.key, cells: g.cells}
	go func() {
		defer func() { <-s.refreshing }()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.load(ctx, again, lease); err == nil || errors.Is(err, errNoRow) {
			s.reads.of(g.sv.Target.Table).refreshed.Add(1)
		}
	}()
}
