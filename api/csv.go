package api

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/headpond/headpond/buffer/table"
)

// csvScanner reads records as RFC 4180 has them. encoding/csv would do, but it
// does not tell a quoted field from a bare one, and goes on after a misplaced
// quote: then the inside of a quoted field could be taken for rows.
type csvScanner struct {
	rest   []byte     // what follows the last record
	line   int        // the line in which rest begins, from 1
	first  int        // the line in which the last record begins
	keep   int        // so many fields of a record are kept; further ones are counted
	count  int        // fields of the last record
	fields []csvField // of the last record
}

type csvField struct {
	text   []byte
	quoted bool
}

// next reads a record into s, and is false at the end. Empty lines are passed
// over. After an error nobody can say where the next record begins.
func (s *csvScanner) next() (bool, error) {
	for s.newline() {
	}
	if len(s.rest) == 0 {
		return false, nil
	}
	s.first, s.count, s.fields = s.line, 0, s.fields[:0]
	for {
		field, err := s.field()
		if err != nil {
			return false, err
		}
		if s.count++; s.count <= s.keep {
			s.fields = append(s.fields, field)
		}
		switch {
		case len(s.rest) == 0, s.newline():
			return true, nil
		case s.rest[0] != ',':
			r, _ := utf8.DecodeRune(s.rest)
			return false, fault(codeInvalidCSV, "In line %d a field is followed by %q, not by a comma or the end of the line.", s.line, r).
				hint(`A field with a quote, comma, line feed or carriage return in it must stand in quotes, and quotes in it be doubled: "say ""hi""".`)
		}
		s.rest = s.rest[1:]
	}
}

// newline takes the end of a line, if it is there.
func (s *csvScanner) newline() bool {
	n := 0
	switch {
	case bytes.HasPrefix(s.rest, []byte("\n")):
		n = 1
	case bytes.HasPrefix(s.rest, []byte("\r\n")):
		n = 2
	}
	s.rest = s.rest[n:]
	s.line += min(n, 1)
	return n > 0
}

func (s *csvScanner) field() (csvField, error) {
	if len(s.rest) > 0 && s.rest[0] == '"' {
		return s.quoted()
	}
	end := 0
	for end < len(s.rest) && s.rest[end] != ',' && s.rest[end] != '\n' && s.rest[end] != '\r' && s.rest[end] != '"' {
		end++
	}
	text := s.rest[:end]
	s.rest = s.rest[end:]
	return csvField{text: text}, nil
}

func (s *csvScanner) quoted() (csvField, error) {
	end, doubled := 1, false
	for {
		n := bytes.IndexByte(s.rest[end:], '"')
		if n < 0 {
			return csvField{}, fault(codeInvalidCSV, "The quote that begins in line %d never ends.", s.line)
		}
		end += n + 1
		if end == len(s.rest) || s.rest[end] != '"' {
			break
		}
		end++
		doubled = true
	}
	text := s.rest[1 : end-1]
	s.rest = s.rest[end:]
	s.line += bytes.Count(text, []byte{'\n'})
	if doubled {
		text = bytes.ReplaceAll(text, []byte(`""`), []byte(`"`))
	}
	return csvField{text, true}, nil
}

// readCSV reads a header line and rows: a row that cannot be accepted is bad by
// itself, the others are not touched by it.
func (in *incoming) readCSV(body []byte, most int) error {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")) // of spreadsheets; it names the encoding and is no text
	s := csvScanner{rest: body, line: 1, keep: len(in.t.Columns) + 1}
	columns, err := in.header(&s)
	if err != nil {
		return err
	}
	for {
		more, err := s.next()
		switch {
		case err != nil:
			return err
		case !more && len(in.rows) == 0:
			return fault(codeEmptyBatch, "The body holds no rows.")
		case !more:
			return nil
		case len(in.rows) == most:
			return tooMany(most)
		}
		if err := in.record(in.add(), &s, columns); err != nil {
			return err
		}
	}
}

// mostNames bounds the errors about a header.
const mostNames = 100

// header reads the line that names the columns: their indexes.
func (in *incoming) header(s *csvScanner) ([]int, error) {
	if _, err := s.next(); err != nil {
		return nil, err
	}
	columns := make([]int, 0, len(s.fields))
	seen := make([]bool, len(in.t.Columns))
	var wrong []ProblemItem
	for _, field := range s.fields {
		name := string(field.text)
		if !utf8.ValidString(name) {
			return nil, fault("invalid_utf8", "The header is not valid UTF-8.")
		}
		c, err := in.t.WritableColumn(name)
		switch {
		case err != nil && len(wrong) < mostNames:
			wrong = append(wrong, ProblemItem{Pointer: pointer(-1, err.Column), Code: err.Code, Detail: err.Detail})
		case err == nil && seen[c]:
			return nil, fault("duplicate_field", "The header names the column %q twice.", name)
		case err == nil:
			seen[c] = true
			columns = append(columns, c)
		}
	}
	if len(wrong) > 0 {
		p := fault(code(wrong[0].Code), "%s", wrong[0].Detail)
		p.Errors = wrong
		return nil, p
	}
	return columns, nil
}

// record reads the scanner's record into a row. The error is about the request
// as a whole.
func (in *incoming) record(row *inRow, s *csvScanner, columns []int) error {
	clear(row.cells)
	if s.count != len(columns) {
		in.fail(row, rowFault{"", string(codeInvalidCSV), fmt.Sprintf("Line %d has %s, and the header has %d.", s.first, plural(s.count, "field"), len(columns))})
		return nil
	}
	for i, field := range s.fields {
		c := &in.t.Columns[columns[i]]
		cell := &row.cells[columns[i]]
		switch {
		case !field.quoted && len(field.text) == 0:
			// left out
		case !field.quoted && string(field.text) == "NULL" && c.NotNull:
			in.fail(row, rowFault{c.Name, "null_not_allowed", "The column " + c.Name + " must not be null."})
		case !field.quoted && string(field.text) == "NULL":
			cell.State = table.Null
		default:
			var err *table.FieldError
			if in.arena, *cell, err = c.Type.TextCell(in.arena, field.text); err != nil {
				in.fail(row, rowFault{c.Name, err.Code, err.Detail})
			}
		}
	}
	return in.bounded()
}
