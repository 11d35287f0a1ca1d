package api

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
)

// The history is what the charts of a page show: a point each second, of all
// tables together and of each, for 15 minutes. At four bytes a value a table takes
// 47 KB.
const (
	historyStep = time.Second
	historyKept = 900
	mostHistory = 200 // tables; those that come later are in the total alone
)

// column of the history, in the order of columnNames.
type column int

const (
	colOldest column = iota
	colLagP50
	colLagP99
	colIn
	colOut
	colBacklogRows
	colBacklogBytes
	colTimeToEmpty
	colBatchRows
	colSaved
	colHitRate
	colEffective
	colReads
	columns
)

var columnNames = [columns]string{
	"oldest_ms", "lag_p50_ms", "lag_p99_ms", "in_rows_per_s", "out_rows_per_s", "backlog_rows", "backlog_bytes", "time_to_empty_s",
	"batch_rows", "saved_rows_per_s", "hit_rate", "effective_latency_ms", "reads_per_s",
}

// point is one moment of one table: NaN is what nobody knows.
type point [columns]float64

func unknownPoint() (p point) {
	for i := range p {
		p[i] = math.NaN()
	}
	return p
}

// series is the last points of one table, in a ring.
type series struct {
	values [columns][historyKept]float32
	seen   int // number of the last point that had it
}

func newSeries() *series {
	s := &series{}
	for c := range s.values {
		for i := range s.values[c] {
			s.values[c][i] = float32(math.NaN())
		}
	}
	return s
}

func (s *series) set(n int, p *point) {
	for c, v := range p {
		s.values[c][n%historyKept] = float32(v)
	}
}

// history is safe for concurrent use.
type history struct {
	mu     sync.Mutex // guards what follows
	clock  clock
	told   time.Time // when the last point came
	points int       // that ever were
	t      [historyKept]int64
	total  *series
	tables map[string]*series
	whole  []byte // all of it as JSON, until the next point
}

// clock gives times that never go back and follow the wall's clock when that is
// ahead. When the wall's is set back it goes on at its own pace. Pure: it is told
// both the wall's time and what has passed by a clock that nobody sets.
type clock struct{ last int64 }

// tick gives the next time, unix ms.
func (c *clock) tick(wall time.Time, passed time.Duration) int64 {
	if c.last == 0 {
		c.last = wall.UnixMilli()
		return c.last
	}
	c.last = max(c.last+max(passed.Milliseconds(), 1), wall.UnixMilli())
	return c.last
}

// add takes a point of each table, and of all.
func (h *history) add(at int64, total *point, tables map[string]point) {
	if h.total == nil {
		h.total, h.tables = newSeries(), make(map[string]*series)
	}
	n := h.points
	h.points++
	h.t[n%historyKept] = at
	h.total.set(n, total)
	nothing := unknownPoint()
	for name, s := range h.tables {
		if p, there := tables[name]; there {
			s.seen = n
			s.set(n, &p)
			continue
		}
		s.set(n, &nothing)
		if n-s.seen >= historyKept {
			delete(h.tables, name)
		}
	}
	for name, p := range tables {
		if h.tables[name] == nil && len(h.tables) < mostHistory {
			h.tables[name] = newSeries()
			h.tables[name].seen = n
			h.tables[name].set(n, &p)
		}
	}
	h.whole = nil
}

// since is the JSON of the points after a time, unix ms. The caller holds mu, and
// must not change what it gets.
func (h *history) since(after int64) []byte {
	first := max(h.points-historyKept, 0)
	all := first
	for first < h.points && h.t[first%historyKept] <= after {
		first++
	}
	if first == all && h.whole != nil {
		return h.whole
	}
	text := h.appendJSON(nil, first)
	if first == all {
		h.whole = text
	}
	return text
}

// appendJSON appends the points from a number on.
func (h *history) appendJSON(dst []byte, first int) []byte {
	dst = append(dst, `{"step_ms":`...)
	dst = strconv.AppendInt(dst, historyStep.Milliseconds(), 10)
	dst = append(dst, `,"t":[`...)
	for n := first; n < h.points; n++ {
		if n > first {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, h.t[n%historyKept], 10)
	}
	dst = append(dst, `],"total":`...)
	total := h.total
	if total == nil {
		total = newSeries()
	}
	dst = h.appendSeries(dst, total, first)
	dst = append(dst, `,"tables":{`...)
	for i, name := range sortedKeys(h.tables) {
		if i > 0 {
			dst = append(dst, ',')
		}
		quoted, _ := json.Marshal(name) // a string always marshals
		dst = append(append(dst, quoted...), ':')
		dst = h.appendSeries(dst, h.tables[name], first)
	}
	return append(dst, "}}"...)
}

func (h *history) appendSeries(dst []byte, s *series, first int) []byte {
	for c, name := range columnNames {
		if c == 0 {
			dst = append(dst, '{')
		} else {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(append(dst, name...), `":[`...)
		for n := first; n < h.points; n++ {
			if n > first {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, s.values[c][n%historyKept])
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

func appendValue(dst []byte, v float32) []byte {
	if v != v || math.IsInf(float64(v), 0) { //nolint:gocritic // NaN alone is not itself
		return append(dst, "null"...)
	}
	return strconv.AppendFloat(dst, float64(v), 'f', -1, 32)
}

// getHistory is GET /admin/v1/history?since=.
func (s *Server) getHistory(c echo.Context) error {
	after := int64(math.MinInt64)
	if text := c.QueryParam("since"); text != "" {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return fault(codeBadFilter, "since must be a time such as 2026-01-31T12:00:00Z, not %q.", clip(text))
		}
		after = at.UnixMilli()
	}
	s.history.mu.Lock()
	text := s.history.since(after)
	s.history.mu.Unlock()
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, text)
}
