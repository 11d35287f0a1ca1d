package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
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

	lend  bool   // with only-if-cached: the client loads the row itself, and wants a lease for it
	lease string // that it gets

	fwd    string // why Postgres is asked, as Cache-Status has it; "" when the row is not there
	status string // Cache-Status, after "headpond; "
	stored time.Time
	readOutcome
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
	began := time.Now()
	only, fresh := cacheControl(r.Header)
	g.lend = only && r.Header.Get(leaseHeader) != ""
	err = s.lookUp(r.Context(), g, only, fresh)
	s.reads.of(sv.Target.Table).add(g, time.Since(began))
	h := c.Response().Header()
	g.describe(h)
	if g.lease != "" {
		h.Set(leaseHeader, g.lease)
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

// describe says where the row comes from, as RFC 9211 and RFC 9111 have it.
func (g *reading) describe(h http.Header) {
	if g.collapsed && (g.hit || g.status == "") { // somebody else loaded it
		h.Set("Cache-Status", "headpond; fwd=miss; collapsed")
		return
	}
	if g.status != "" {
		h.Set("Cache-Status", "headpond; "+g.status)
	}
	if !g.stored.IsZero() {
		h.Set("Age", strconv.Itoa(max(int(time.Since(g.stored).Seconds()), 0)))
	}
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
