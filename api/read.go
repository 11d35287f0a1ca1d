package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// reading is one GET of one row.
type reading struct {
	sv        *Served
	place     buffer.Place
	key       string
	cells     []table.Cell // of the key columns
	choose    []int        // columns that are asked for, nil for all
	row       table.Row
	committed bool
	status    string // Cache-Status, after "headpond; "
}

var errNoRow = errors.New("no such row")

// getRow is GET and HEAD /v1/{table}/{key}.
func (s *Server) getRow(c echo.Context) error {
	r := c.Request()
	sv, err := s.served(segment(r, 2))
	if err != nil {
		return err
	}
	if !sv.Table.HasKey() {
		return fault(codeNoPrimaryKey, "This table has no primary key: its rows cannot be read one by one.")
	}
	choose, err := selection(sv.Table, c.QueryParam("select"))
	if err != nil {
		return err
	}
	g := &reading{sv: sv, choose: choose}
	if err := s.parseKey(r.Context(), g, rawSegment(r, 3)); err != nil {
		return err
	}
	onlyCached := strings.Contains(r.Header.Get("Cache-Control"), "only-if-cached")
	err = s.lookUp(r.Context(), g, onlyCached)
	h := c.Response().Header()
	if g.status != "" {
		h.Set("Cache-Status", "headpond; "+g.status)
	}
	if errors.Is(err, errNoRow) {
		return fault(codeRowNotFound, "There is no row with this key.")
	}
	if err != nil {
		return err
	}
	tag := etag(sv.Table, g.row)
	h.Set("ETag", tag)
	h.Set("Headpond-Durability", "pending")
	if g.committed {
		h.Set("Headpond-Durability", "committed")
	}
	if matches(r.Header.Values("If-None-Match"), tag) {
		return c.NoContent(http.StatusNotModified)
	}
	body := append(appendRow(make([]byte, 0, 512), sv.Table, g.row, choose), '\n')
	if r.Method == http.MethodHead {
		h.Set(echo.HeaderContentType, echo.MIMEApplicationJSON)
		h.Set(echo.HeaderContentLength, fmt.Sprint(len(body)))
		return c.NoContent(http.StatusOK)
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, body)
}

// parseKey turns the path's last part into the key text of the index.
func (s *Server) parseKey(ctx context.Context, g *reading, raw string) error {
	cells, key, bad := g.sv.Table.ParseKeyPath(raw)
	if bad != nil {
		return fault(code(bad.Code), "%s", bad.Detail)
	}
	return s.locate(ctx, g, cells, key)
}

// locate has Postgres judge those parts of a key that only it can, and finds
// the partition.
func (s *Server) locate(ctx context.Context, g *reading, cells []table.Cell, key []byte) error {
	var items []table.JudgeItem
	for i, c := range cells {
		if c.State == table.Judge {
			items = append(items, table.JudgeItem{Type: g.sv.Table.Columns[g.sv.Table.Key[i]].Type, JSON: c.Text})
		}
	}
	if len(items) > 0 {
		results, err := s.edge.Judge(ctx, items)
		if err != nil {
			return storeUnavailable(err, "Postgres must judge this key, and cannot be asked now.")
		}
		n := 0
		for i := range cells {
			if cells[i].State != table.Judge {
				continue
			}
			if results[n].Err != nil {
				return fault("invalid_key", "%s", results[n].Err.Detail)
			}
			cells[i] = table.Cell{State: table.Set, Text: results[n].Text}
			n++
		}
		row := make(table.Row, len(g.sv.Table.Columns))
		for i, k := range g.sv.Table.Key {
			row[k] = cells[i]
		}
		if key = g.sv.Table.AppendKey(nil, row); len(key) > maxKey {
			return fault("invalid_key", "The key is longer than 1,024 bytes.")
		}
	}
	g.cells, g.key = cells, string(key)
	g.place = buffer.Place{Table: g.sv.Target.Table, Partition: table.Partition(key, g.sv.Target.Partitions)}
	return nil
}

// lookUp answers from the log, else from a clean row, else from Postgres: once
// per key at a time, under a lease, so that a slow load can never overwrite a
// newer row.
func (s *Server) lookUp(ctx context.Context, g *reading, onlyCached bool) error {
	if !g.sv.Target.Index {
		if onlyCached {
			return notCached(g)
		}
		return s.load(ctx, g, "")
	}
	// A lease that somebody else holds ends, at the latest, after its time; by
	// then, 3 s and 100 tries, the row is loaded without one, and not stored.
	for try := 0; ; try++ {
		found, err := s.buffer.Get(ctx, g.place, g.key, !onlyCached)
		if err != nil && g.sv.Target.Drained() && !onlyCached { // no row is newer than in Postgres
			err = s.load(ctx, g, "")
			g.status = "fwd=bypass; detail=buffer-unavailable"
			return err
		}
		if err != nil {
			return err
		}
		if found.Source != buffer.Miss {
			return s.cached(ctx, g, found)
		}
		if onlyCached {
			return notCached(g)
		}
		if found.Lease != "" {
			return s.load(ctx, g, found.Lease)
		}
		if try == 100 {
			return s.load(ctx, g, "")
		}
		g.status = "fwd=miss; collapsed"
		select {
		case <-ctx.Done():
			return fault(codeStoreUnavailable, "The row is being loaded, and that takes too long.")
		case <-time.After(time.Duration(5+rand.N(try+5)) * time.Millisecond): //nolint:gosec // jitter
		}
	}
}

func notCached(g *reading) error {
	g.status = "fwd=miss"
	return fault(codeNotCached, "The row is not in the cache, and the request asked for nothing else.")
}

// cached takes a row from Redis.
func (s *Server) cached(ctx context.Context, g *reading, f *buffer.Found) error {
	if f.Deleted() {
		g.status = "hit"
		return errNoRow
	}
	row, whole := byColumns(g.sv.Table, f.Columns, f.Line)
	if !whole {
		// The table has columns that the row does not: generated ones, or some
		// that were added since.
		return s.widen(ctx, g, f, row)
	}
	g.row = row
	g.committed = f.Source == buffer.Clean || f.Committed
	if g.status == "" {
		g.status = "hit"
		if f.Source == buffer.Clean {
			g.status = fmt.Sprintf("hit; ttl=%d", int(f.TTL.Seconds()))
		} else if !f.Committed {
			g.status = "hit; detail=pending"
		}
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

// byColumns lays a line out in table order. whole is false when a column of
// the table is not in it.
func byColumns(t *table.Table, columns, line []byte) (row table.Row, whole bool) {
	cells := table.ParseLine(line)
	row = make(table.Row, len(t.Columns))
	if bytes.Equal(columns, t.Header()) && len(t.Stored()) == len(cells) {
		for i, c := range t.Stored() {
			row[c] = cells[i]
		}
		return row, len(t.Stored()) == len(t.Columns)
	}
	known := 0
	places, retyped := t.Places(columns)
	for _, i := range retyped {
		places[i] = -1
	}
	for i, c := range places {
		if c >= 0 && i < len(cells) {
			row[c] = cells[i]
			known++
		}
	}
	return row, known == len(t.Columns)
}

// load reads the row from Postgres, and stores it when the lease still stands.
// Loads are not shared between requests: one that began before a write must
// not answer a request that came after it. The lease is what keeps them few.
func (s *Server) load(ctx context.Context, g *reading, lease string) error {
	g.status = "fwd=miss"
	row, found, err := s.edge.LoadRow(ctx, g.sv.Table, g.cells)
	if err != nil || !found {
		s.releaseLease(ctx, g, lease)
	}
	if bad := new(table.FieldError); errors.As(err, &bad) {
		return fault(code(bad.Code), "%s", bad.Detail)
	}
	if err != nil {
		s.log.Warn("load row", "table", g.sv.Target.Table, "error", err)
		return storeUnavailable(err, "The row is not in the cache, and Postgres cannot be asked now.")
	}
	if !found {
		return errNoRow
	}
	g.row, g.committed = row, true
	if lease != "" && s.keep(ctx, g, lease) {
		g.status = "fwd=miss; stored"
	}
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

// keep stores the loaded row with the table's TTL and up to a tenth more, so
// that rows loaded together do not end together.
func (s *Server) keep(ctx context.Context, g *reading, lease string) bool {
	columns, line := allColumns(g.sv.Table, g.row)
	ttl := g.sv.TTL + rand.N(g.sv.TTL/10+1) //nolint:gosec // jitter
	ok, err := s.buffer.Fill(ctx, g.place, g.key, lease, columns, line, ttl)
	if err != nil {
		s.log.Warn("store clean row", "table", g.sv.Target.Table, "error", err)
	}
	return ok
}

// allColumns lays out a row with its generated columns: clean rows have them.
func allColumns(t *table.Table, row table.Row) (columns, line []byte) {
	for i := range t.Columns {
		if i > 0 {
			line = append(line, '\t')
		}
		if row[i].State == table.Set {
			line = table.AppendEscaped(line, row[i].Text)
		} else {
			line = append(line, '\\', 'N')
		}
	}
	return t.AllHeader(), append(line, '\n')
}

// etag is a hash of the row's canonical text, without its generated columns:
// the same before and after the flush.
func etag(t *table.Table, row table.Row) string {
	sum := sha256.Sum256(t.AppendLine(make([]byte, 0, 512), row))
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

func matches(fields []string, tag string) bool {
	for _, field := range fields {
		for _, item := range strings.Split(field, ",") {
			item = strings.TrimSpace(item)
			if item == "*" || strings.TrimPrefix(item, "W/") == tag {
				return true
			}
		}
	}
	return false
}

// selection reads ?select=a,b; nil means all columns.
func selection(t *table.Table, text string) ([]int, error) {
	if text == "" || text == "*" {
		return nil, nil
	}
	var out []int
	for _, name := range strings.Split(text, ",") {
		c, ok := t.Column(strings.TrimSpace(name))
		if !ok {
			return nil, fault(codeBadFilter, "select: there is no column %q.", clip(name))
		}
		if !slices.Contains(out, c) { // a name twice is not JSON that everybody reads
			out = append(out, c)
		}
	}
	return out, nil
}

func appendRow(dst []byte, t *table.Table, row table.Row, choose []int) []byte {
	if choose == nil {
		return t.AppendRowJSON(dst, row)
	}
	dst = append(dst, '{')
	for i, c := range choose {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendQuoted(dst, t.Columns[c].Name), ':')
		if row[c].State == table.Set {
			dst = t.Columns[c].Type.AppendJSON(dst, row[c].Text)
		} else {
			dst = append(dst, "null"...)
		}
	}
	return append(dst, '}')
}

// keyText is the key as a client would name it: the canonical text, parts of a
// composite key joined as in the path.
func keyText(t *table.Table, row table.Row) string {
	if len(t.Key) == 1 {
		return string(row[t.Key[0]].Text)
	}
	return t.PathKey(row)
}
