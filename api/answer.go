package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// answerOne answers a request of one row that was accepted.
func (s *Server) answerOne(c echo.Context, sv *Served, in *incoming, w *written, prefer preferences) error {
	r := w.chunks[0].Result()
	place := buffer.Place{Table: sv.Target.Table, Partition: w.chunks[0].Partition}
	row := &in.rows[0]
	h := c.Response().Header()
	if len(r.Dead) > 0 {
		prefer.write(h, "wait")
		return deadProblem(r.Dead[0], place, r.First)
	}
	prefer.write(h, "wait", "return")
	level := s.buffer.Durability().Level
	if w.committed {
		level = "committed"
	}
	rec := receipt(place, r.First)
	h.Set("Headpond-Receipt", rec)
	h.Set("Headpond-Durability", level)
	h.Set("ETag", etag(sv.Table, row.cells))
	if sv.Table.HasKey() {
		h.Set("Location", "/v1/"+pathSegment(sv.Target.Table)+"/"+notReserved(sv.Table.PathKey(row.cells)))
	}
	status := statusOf(true, w.committed)
	if prefer.Return == "minimal" {
		return c.NoContent(status)
	}
	body := make([]byte, 0, 256)
	body = append(body, '{')
	if sv.Table.HasKey() {
		body = appendQuoted(append(body, `"key":`...), keyText(sv.Table, row.cells))
		body = append(body, ',')
	}
	body = appendQuoted(append(body, `"receipt":`...), rec)
	body = append(append(append(body, `,"durability":"`...), level...), '"')
	if prefer.Return == "representation" {
		body = append(body, `,"row":`...)
		body = sv.Table.AppendRowJSON(body, row.cells)
	}
	body = append(body, '}', '\n')
	return c.Blob(status, echo.MIMEApplicationJSON, body)
}

func appendQuoted(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // fails only on invalid UTF-8, which it replaces
	return dst
}

// deadProblem is the answer to a request that waited for its commit and whose
// row, or its replay, Postgres refused.
func deadProblem(d buffer.DeadLetter, p buffer.Place, id table.ID) error {
	c := codeDeadLettered
	if d.SQLState == "23505" {
		c = codeRowExists
	}
	out := fault(c, "The write was accepted, and Postgres refused the row: %s (SQLSTATE %s).", d.Message, d.SQLState).
		header("Headpond-Receipt", receipt(p, id))
	if d.Lies == (table.Letter{}) {
		return out
	}
	return out.hint("The row lies in the dead letters, as " + receiptOf(p.Table, d.Lies) + ".")
}

// receiptOf a dead letter.
func receiptOf(tbl string, l table.Letter) string {
	return receipt(buffer.Place{Table: tbl, Partition: l.Partition}, l.ID)
}

// manyAnswer is the body of an answer to many rows or operations.
type manyAnswer struct {
	Accepted int               `json:"accepted"`
	Rejected int               `json:"rejected"`
	Receipts []string          `json:"receipts"`
	Errors   []ProblemItem     `json:"errors"`
	Rows     []json.RawMessage `json:"rows,omitempty"`
}

// answerMany answers a request of many rows of which at least one was
// accepted, or none because all are bad.
func (s *Server) answerMany(c echo.Context, sv *Served, in *incoming, w *written, prefer preferences) error {
	out, h := manyAnswer{Receipts: w.receipts()}, c.Response().Header()
	prefer.write(h, "handling", "wait")
	for i, chunk := range w.chunks {
		for _, d := range chunk.Result().Dead {
			// Rows that were refused at once are not in the chunk any more.
			n := nth(chunk.Result(), int(d.ID.Seq-chunk.Result().First.Seq)) //nolint:gosec // small
			if n < len(w.rows[i]) {                                          // as in settle
				in.rows[w.rows[i][n]].errs = []rowFault{{"", string(codeDeadLettered), fmt.Sprintf("%s (SQLSTATE %s)", d.Message, d.SQLState)}}
			}
		}
	}
	for i := range in.rows {
		row := &in.rows[i]
		if len(row.errs) == 0 {
			out.Accepted++
			if prefer.Return == "representation" {
				out.Rows = append(out.Rows, sv.Table.AppendRowJSON(nil, row.cells))
			}
			continue
		}
		out.Rejected++
	}
	out.Errors = in.faulty()
	status := statusOf(false, w.committed)
	switch {
	case out.Accepted == 0 && w.failed != nil:
		return problemOf(w.failed).with(out.Errors)
	case out.Accepted == 0:
		return rejected(in)
	case out.Rejected > 0:
		status = http.StatusMultiStatus
	}
	level := s.buffer.Durability().Level
	if w.committed {
		level = "committed"
	}
	h.Set("Headpond-Durability", level)
	for _, r := range out.Receipts {
		h.Add("Headpond-Receipt", r)
	}
	minimal := prefer.Return == "minimal" && out.Rejected == 0
	if minimal || prefer.Return == "representation" {
		prefer.write(h, "handling", "wait", "return")
	}
	if minimal {
		return c.NoContent(status)
	}
	return c.JSON(status, out)
}

// nth gives which of a chunk's rows, as they were sent, is the n-th accepted one.
func nth(r *buffer.Result, n int) int {
	for _, j := range r.Failed {
		if j <= n {
			n++
		}
	}
	return n
}

// receipt names one row for ever: table, partition, epoch, seq.
func receipt(p buffer.Place, id table.ID) string {
	return p.Receipt(id)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
