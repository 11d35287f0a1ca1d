package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// cacheRoutes are what a client or an operator does to the cache itself.
func (s *Server) cacheRoutes(e *echo.Echo) {
	e.GET("/admin/v1/cache/stats", s.getCacheStats)
	e.DELETE("/admin/v1/cache", s.invalidateMatching)
	e.DELETE("/admin/v1/cache/:table", s.invalidateTable)
	e.DELETE("/admin/v1/cache/:table/:key", s.invalidateKey)
	e.PUT("/admin/v1/cache/:table/:key", s.putCached)
}

// invalidated is the answer to an invalidation, and its progress.
type invalidated struct {
	Gone    int64 `json:"invalidated"`
	Kept    int64 `json:"kept_dirty"`
	Scanned int64 `json:"scanned"`
	Done    *bool `json:"done,omitempty"`
}

func (s *Server) invalidateKey(c echo.Context) error {
	g, err := s.cacheKey(c)
	if err != nil {
		return err
	}
	sum, err := s.buffer.Invalidate(c.Request().Context(), g.place, g.key)
	if err != nil {
		return err
	}
	s.noteInvalidated(c.Request().Context(), g.sv, sum)
	return c.JSON(http.StatusOK, invalidated{Gone: sum.Gone, Kept: sum.Kept, Scanned: sum.Scanned})
}

// cacheKey reads table and key of a path under /admin/v1/cache.
func (s *Server) cacheKey(c echo.Context) (*reading, error) {
	r := c.Request()
	sv, err := s.served(segment(r, 4))
	if err != nil {
		return nil, err
	}
	if err := cacheable(sv); err != nil {
		return nil, err
	}
	g := &reading{sv: sv}
	return g, s.parseKey(r.Context(), g, rawSegment(r, 5))
}

func cacheable(sv *Served) error {
	if !sv.Table.HasKey() {
		return fault(codeNoPrimaryKey, "This table has no primary key: its rows are not cached.")
	}
	if !sv.Target.Index {
		return fault(codeTableNotUsable, "This table has cache: none.")
	}
	return nil
}

func (s *Server) invalidateTable(c echo.Context) error {
	sv, err := s.served(segment(c.Request(), 4))
	if err != nil {
		return err
	}
	if err := cacheable(sv); err != nil {
		return err
	}
	return s.invalidate(c, []*Served{sv}, func(*table.Table, string) bool { return true })
}

// invalidateMatching is DELETE /admin/v1/cache?pattern=orders:*: a glob over
// "table:key", as Redis has them.
func (s *Server) invalidateMatching(c echo.Context) error {
	pattern, ok := parsePattern(c.QueryParam("pattern"))
	if !ok {
		return fault(codeBadPattern, "pattern must be a table and a key, as in orders:* or orders:42.").
			hint("* stands for anything, ? for one character, [ab] for one of them, \\ before one of these takes it as it is. DELETE /admin/v1/cache/{table} takes a whole table.")
	}
	all := s.tables.Load()
	if all == nil {
		_, err := s.served("")
		return err
	}
	var of []*Served
	for _, name := range all.names() {
		if sv := (*all)[name]; pattern.tables.MatchString(name) && sv.Table.Unusable == "" && cacheable(sv) == nil {
			of = append(of, sv)
		}
	}
	return s.invalidate(c, of, pattern.key)
}

// tellEvery is how often a long invalidation tells how far it is.
const tellEvery = time.Second

// invalidate walks over those keys of tables that match reports. With Accept:
// application/x-ndjson the answer tells its progress, a line a second; a client that
// goes away ends it.
func (s *Server) invalidate(c echo.Context, of []*Served, match func(*table.Table, string) bool) error {
	ctx, w := c.Request().Context(), c.Response()
	telling := strings.Contains(c.Request().Header.Get("Accept"), "application/x-ndjson")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // it may take long
	told, done := time.Now(), false
	tell := func(sum buffer.Invalidated, at *bool) error {
		if !telling {
			return ctx.Err()
		}
		if !w.Committed {
			w.Header().Set(echo.HeaderContentType, "application/x-ndjson")
			w.WriteHeader(http.StatusOK)
		}
		told = time.Now()
		err := json.NewEncoder(w).Encode(invalidated{sum.Gone, sum.Kept, sum.Scanned, at})
		w.Flush()
		return errors.Join(err, ctx.Err())
	}
	keys := make([]buffer.Selection, len(of))
	for i, sv := range of {
		keys[i] = buffer.Selection{Target: sv.Target, Match: func(key string) bool { return match(sv.Table, key) }}
	}
	sums, err := map[string]buffer.Invalidated(nil), error(nil)
	if len(of) > 0 {
		sums, err = s.buffer.InvalidateMatching(ctx, keys, func(sum buffer.Invalidated) error {
			if time.Since(told) < tellEvery {
				return ctx.Err()
			}
			return tell(sum, &done)
		})
	}
	var sum buffer.Invalidated
	for _, sv := range of {
		one := sums[sv.Target.Table]
		s.noteInvalidated(context.WithoutCancel(ctx), sv, one)
		sum.Add(one)
	}
	switch {
	case err != nil && w.Committed:
		return json.NewEncoder(w).Encode(map[string]any{"invalidated": sum.Gone, "kept_dirty": sum.Kept, "scanned": sum.Scanned, "done": false, "error": problemOf(err).Detail})
	case err != nil:
		return problemOf(err).hint(fmt.Sprintf("%d were invalidated before that; the rest is as it was. It can be repeated.", sum.Gone))
	case telling:
		done = true
		return tell(sum, &done)
	}
	return c.JSON(http.StatusOK, invalidated{Gone: sum.Gone, Kept: sum.Kept, Scanned: sum.Scanned})
}

func (s *Server) noteInvalidated(ctx context.Context, sv *Served, sum buffer.Invalidated) {
	s.touchLists(ctx, sv)
	s.reads.of(sv.Target.Table).invalidated.Add(sum.Gone)
	s.reads.of(sv.Target.Table).keptDirty.Add(sum.Kept)
}

// mostCachedFor bounds what a client may ask for.
const mostCachedFor = 720 * time.Hour

// putCached is PUT /admin/v1/cache/{table}/{key}: a row that the client loaded
// itself.
func (s *Server) putCached(c echo.Context) error {
	r := c.Request()
	g, err := s.cacheKey(c)
	if err != nil {
		return err
	}
	life := g.sv.life()
	if text := c.QueryParam("ttl"); c.QueryParams().Has("ttl") {
		if life.TTL, err = time.ParseDuration(text); err != nil || life.TTL < time.Millisecond || life.TTL > mostCachedFor {
			return fault(codeBadPreference, "ttl must be a duration from 1ms to 720h, such as 90s or 1h, not %q.", clip(text))
		}
	}
	row, err := s.readCached(c, g)
	if err != nil {
		return err
	}
	columns, line := allColumns(g.sv.Table, row)
	out, err := s.buffer.Put(r.Context(), g.place, g.key, r.Header.Get(leaseHeader), buffer.Row{Columns: columns, Line: line}, life)
	switch {
	case err != nil:
		return err
	case out == buffer.PutDirty:
		return fault(codeRowPending, "The log has a newer row of this key, which is served until it is in Postgres and after. Nothing was stored.")
	case out == buffer.PutWritten:
		return fault(codeRowPending, "This key is being written. Nothing was stored.")
	case out == buffer.PutNoLease:
		return fault(codeVersionMismatch, "The lease does not stand any more: the key was written since, or its time is over. Nothing was stored.")
	}
	return c.JSON(http.StatusOK, map[string]any{"key": keyText(g.sv.Table, row), "ttl_s": int(life.TTL.Seconds())})
}

// leaseHeader hands a lease to a client that loads a row itself, and takes it
// back with the row.
const leaseHeader = "Headpond-Lease"

// readCached reads a whole row. Its generated columns are computed again.
func (s *Server) readCached(c echo.Context, g *reading) (table.Row, error) {
	r, t := c.Request(), g.sv.Table
	f, err := objectMedia("Accept").read(r.Header)
	if err != nil {
		return nil, err
	}
	body, err := s.readBody(c.Response(), r, s.limits.Body)
	if err != nil {
		return nil, err
	}
	defer bodies.Put(body)
	in := newIncoming(t)
	defer in.release()
	if err := in.read(withoutGenerated(t, body.Bytes()), f, 1); err != nil {
		return nil, err
	}
	if !in.single {
		return nil, fault(codeInvalidJSONShape, "The body must be one object.")
	}
	row := &in.rows[0]
	if err := s.judge(r.Context(), in); err != nil {
		return nil, err
	}
	matchKey(t, row, g.cells)
	for _, i := range t.Stored() {
		told := slices.ContainsFunc(row.errs, func(e rowFault) bool { return e.column == t.Columns[i].Name })
		if row.cells[i].State == table.Missing && !told && !t.IsKey(i) && len(row.errs) < mostListed { // the key is in the path
			row.errs = append(row.errs, rowFault{t.Columns[i].Name, "required", "The column " + t.Columns[i].Name + " is missing: a row is cached as a whole."})
		}
	}
	if len(row.errs) > 0 {
		return nil, rejected(in)
	}
	out := cloneRow(row.cells)
	if len(t.Stored()) != len(t.Columns) {
		if err := s.edge.Generate(r.Context(), t, out); err != nil {
			return nil, storeUnavailable(err, "Postgres must compute a column of this row, and cannot be asked now.")
		}
	}
	return out, nil
}

// withoutGenerated takes generated columns out of an object: a row that was read
// has them, one that is written must not.
func withoutGenerated(t *table.Table, body []byte) []byte {
	if len(t.Stored()) == len(t.Columns) {
		return body
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return body // it is told what is wrong with it
	}
	for i := range t.Columns {
		if t.Columns[i].Generated {
			delete(members, t.Columns[i].Name)
		}
	}
	out, err := json.Marshal(members)
	if err != nil {
		return body
	}
	return out
}

// CacheStats is what the reads of a table came to in this process, since it
// began.
type CacheStats struct {
	Table     string   `json:"table,omitempty"`
	Strategy  string   `json:"strategy,omitempty"`
	Hits      int64    `json:"hits"`
	Misses    int64    `json:"misses"`
	HitRate   *float64 `json:"hit_rate"` // null when there were no reads
	HitMS     float64  `json:"hit_ms"`
	MissMS    float64  `json:"miss_ms"`
	Effective *float64 `json:"effective_latency_ms"` // hit rate × hit time + miss rate × miss time

	Pending   int64 `json:"pending"`
	Negative  int64 `json:"negative"`
	Stale     int64 `json:"stale"`
	Collapsed int64 `json:"collapsed"`
	Bypassed  int64 `json:"bypassed"`
	Refreshed int64 `json:"refreshed"`

	ListHits    int64 `json:"list_hits"`
	ListMisses  int64 `json:"list_misses"`
	Invalidated int64 `json:"invalidated"`
	KeptDirty   int64 `json:"kept_dirty"`

	HitSeconds, MissSeconds float64 `json:"-"`
}

func (c *cacheStats) snapshot() CacheStats {
	out := CacheStats{
		Hits: c.hits.count.Load(), Misses: c.misses.count.Load(),
		Pending: c.pending.Load(), Negative: c.negative.Load(), Stale: c.stale.Load(), Collapsed: c.collapsed.Load(),
		Bypassed: c.bypassed.Load(), Refreshed: c.refreshed.Load(),
		ListHits: c.listHits.Load(), ListMisses: c.listMisses.Load(),
		Invalidated: c.invalidated.Load(), KeptDirty: c.keptDirty.Load(),
		HitSeconds: time.Duration(c.hits.nanos.Load()).Seconds(), MissSeconds: time.Duration(c.misses.nanos.Load()).Seconds(),
	}
	out.rate()
	return out
}

// rate computes what follows from the counts.
func (c *CacheStats) rate() {
	if c.Hits > 0 {
		c.HitMS = 1000 * c.HitSeconds / float64(c.Hits)
	}
	if c.Misses > 0 {
		c.MissMS = 1000 * c.MissSeconds / float64(c.Misses)
	}
	if reads := float64(c.Hits + c.Misses); reads > 0 {
		rate := float64(c.Hits) / reads
		effective := rate*c.HitMS + (1-rate)*c.MissMS
		c.HitRate, c.Effective = &rate, &effective
	}
}

func (c *CacheStats) add(o *CacheStats) {
	c.Hits, c.Misses = c.Hits+o.Hits, c.Misses+o.Misses
	c.HitSeconds, c.MissSeconds = c.HitSeconds+o.HitSeconds, c.MissSeconds+o.MissSeconds
	c.Pending, c.Negative, c.Stale = c.Pending+o.Pending, c.Negative+o.Negative, c.Stale+o.Stale
	c.Collapsed, c.Bypassed, c.Refreshed = c.Collapsed+o.Collapsed, c.Bypassed+o.Bypassed, c.Refreshed+o.Refreshed
	c.ListHits, c.ListMisses = c.ListHits+o.ListHits, c.ListMisses+o.ListMisses
	c.Invalidated, c.KeptDirty = c.Invalidated+o.Invalidated, c.KeptDirty+o.KeptDirty
}

// CacheStats of the tables that are served, by name. Safe for concurrent use.
func (s *Server) CacheStats() []CacheStats {
	all := s.tables.Load()
	if all == nil {
		return nil
	}
	out := make([]CacheStats, 0, len(*all))
	for _, name := range all.names() {
		if sv := (*all)[name]; sv.Table.Unusable == "" && sv.Table.HasKey() {
			c := s.reads.of(name).snapshot()
			c.Table, c.Strategy = name, sv.Target.Strategy()
			out = append(out, c)
		}
	}
	return out
}

// getCacheStats is GET /admin/v1/cache/stats.
func (s *Server) getCacheStats(c echo.Context) error {
	out := struct {
		Since  time.Time    `json:"since"`
		Total  CacheStats   `json:"total"`
		Tables []CacheStats `json:"tables"`
	}{Since: s.began.UTC(), Tables: []CacheStats{}}
	only := c.QueryParam("table")
	if only != "" {
		if _, err := s.served(only); err != nil {
			return err
		}
	}
	for _, t := range s.CacheStats() {
		if only == "" || only == t.Table {
			out.Tables = append(out.Tables, t)
			out.Total.add(&t)
		}
	}
	out.Total.rate()
	return c.JSON(http.StatusOK, out)
}
