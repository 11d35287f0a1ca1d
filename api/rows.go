package api

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/headpond/headpond/buffer/table"
)

// incoming is the rows of one request while they are read and completed.
// Cells point into arena; both are reused, so nothing of them may be kept
// after release.
type incoming struct {
	t      *table.Table
	single bool // one object, not a list of them
	rows   []inRow
	cells  []table.Cell
	arena  []byte
	faults int // noted in all rows
	decode *jsontext.Decoder
	idem   *idempotency // of the request, or nil
}

// inRow is one row of a request, good or bad.
type inRow struct {
	cells table.Row
	errs  []rowFault // what is wrong with it
	key   string     // "" until it is known
	place int
	fresh bool // Headpond made the key just now
	drawn bool // the key comes from a sequence, by default
}

// rowFault is one thing that is wrong with one row.
type rowFault struct {
	column, code, detail string
}

// fail notes what is wrong with a row. A request that is bad all over is not
// described in full: past what an answer lists, a row keeps only one error.
func (in *incoming) fail(row *inRow, e rowFault) {
	if in.faults < mostListed || len(row.errs) == 0 {
		row.errs = append(row.errs, e)
		in.faults++
	}
}

func (r *inRow) fail(errs ...*table.FieldError) {
	for _, e := range errs {
		r.errs = append(r.errs, rowFault{e.Column, e.Code, e.Detail})
	}
}

var incomings = sync.Pool{New: func() any {
	// The arena is not nil: nor is then the text of an empty string, which
	// Postgres would be told is NULL.
	return &incoming{arena: []byte{}, decode: jsontext.NewDecoder(bytes.NewReader(nil))}
}}

func newIncoming(t *table.Table) *incoming {
	in := incomings.Get().(*incoming) //nolint:forcetypeassert // the pool holds nothing else
	in.t = t
	return in
}

func (in *incoming) release() {
	if cap(in.cells) > 1<<20 || cap(in.arena) > mostKept {
		return
	}
	clear(in.rows)
	in.rows, in.cells, in.arena, in.single, in.faults = in.rows[:0], in.cells[:0], in.arena[:0], false, 0
	incomings.Put(in)
}

// add makes room for one more row.
func (in *incoming) add() *inRow {
	n := len(in.t.Columns)
	if len(in.cells)+n > cap(in.cells) {
		in.cells = make([]table.Cell, 0, max(2*cap(in.cells), 64*n)) // rows so far keep the old one
	}
	at := len(in.cells)
	in.cells = in.cells[:at+n]
	in.rows = append(in.rows, inRow{cells: table.Row(in.cells[at : at+n : at+n])})
	return &in.rows[len(in.rows)-1]
}

// read parses a body. The error is about the request as a whole; what is wrong
// with single rows stays with them.
func (in *incoming) read(body []byte, f format, most int) error {
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	switch {
	case len(body) == 0:
		return fault(codeEmptyBody, "The body is empty.")
	case f == formatNDJSON:
		return in.readLines(body, most)
	case f == formatCSV:
		return in.readCSV(body, most)
	case len(trimmed) == 0:
		return fault(codeEmptyBody, "The body is empty.")
	case trimmed[0] == '{':
		in.single = true
		return in.readOne(body)
	case trimmed[0] == '[':
		return in.readArray(body, most)
	}
	if bytes.HasPrefix(body, []byte("\xef\xbb\xbf")) {
		return fault(codeInvalidJSON, "The body begins with a byte order mark, at byte offset 0; JSON has none.")
	}
	if jsontext.Value(body).IsValid() {
		return fault(codeInvalidJSONShape, "The body must be an object or an array of objects.")
	}
	return in.whole(body)
}

func (in *incoming) readOne(body []byte) error {
	in.decode.Reset(bytes.NewBuffer(body))
	if err := in.object(in.add()); err != nil {
		return err
	}
	return in.end(in.decode)
}

// object reads the next object of the decoder into a row.
func (in *incoming) object(row *inRow) error {
	arena, errs, err := table.DecodeObject(in.decode, in.t, row.cells, in.arena)
	in.arena = arena
	if err != nil {
		return err
	}
	for _, e := range errs {
		in.fail(row, rowFault{e.Column, e.Code, e.Detail})
	}
	return in.bounded()
}

// mostDecoded bounds what a body may grow to: a few bytes such as 1e131071 are
// many once they are written out.
const mostDecoded = 64 << 20

func (in *incoming) bounded() error {
	if len(in.arena) > mostDecoded {
		return fault(codeBodyTooLarge, "The values of the request are larger than %d bytes once they are written out.", mostDecoded).
			hint("A number such as 1e100000 is a hundred thousand digits.")
	}
	return nil
}

// end checks that nothing follows.
func (in *incoming) end(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return fault(codeInvalidJSON, "There is more after the end of the JSON value, at byte offset %d.", d.InputOffset())
	}
	return nil
}

func (in *incoming) readArray(body []byte, most int) error {
	in.decode.Reset(bytes.NewBuffer(body))
	d := in.decode
	if _, err := d.ReadToken(); err != nil {
		return in.whole(body)
	}
	for d.PeekKind() != ']' {
		if len(in.rows) == most {
			return tooMany(most)
		}
		if err := in.object(in.add()); err != nil {
			return err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return in.whole(body)
	}
	if err := in.end(d); err != nil {
		return err
	}
	if len(in.rows) == 0 {
		return fault(codeEmptyBatch, "The array holds no rows.")
	}
	return nil
}

// whole finds out what is wrong with a body that is not JSON.
func (in *incoming) whole(body []byte) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(body))
	if err := d.SkipValue(); err != nil {
		return table.AsJSONError(err)
	}
	return in.end(d)
}

// readLines reads NDJSON: a line that is not a row is bad by itself, the others
// are not touched by it. Empty lines are passed over.
func (in *incoming) readLines(body []byte, most int) error {
	for len(body) > 0 {
		line, rest, _ := bytes.Cut(body, []byte{'\n'})
		body = rest
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if len(in.rows) == most {
			return tooMany(most)
		}
		row := in.add()
		in.decode.Reset(bytes.NewBuffer(line))
		err := in.object(row)
		if err == nil {
			err = in.end(in.decode)
		}
		if err != nil {
			p := problemOf(err)
			row.errs = append(row.errs[:0], rowFault{code: string(p.Code), detail: p.Detail})
		}
	}
	if len(in.rows) == 0 {
		return fault(codeEmptyBatch, "The body holds no rows.")
	}
	return nil
}

func tooMany(most int) error {
	return fault(codeBatchTooLarge, "The request holds more than %d rows.", most).hint("Send fewer rows at a time.")
}
