package table

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxDepth  = 32  // levels of nesting in a row, the row's own braces included
	maxErrors = 100 // a row with more is not described further
)

// DecodeObject reads one JSON object from dec into row, which has a cell for
// each column and is set to Missing first. Texts are appended to arena and the
// cells are slices of it; when it grows, earlier cells stay valid in the old
// one. dec must be strict, as jsontext's default is.
//
// errs is what is wrong with single columns, at most 100; their cells are
// Missing. Values for which AppendCanonical returns ErrJudge become Judge
// cells with the raw JSON. fatal is a *JSONError, or an error of the reader
// beneath dec; nothing in row counts then.
func DecodeObject(dec *jsontext.Decoder, t *Table, row Row, arena []byte) (_ []byte, errs []*FieldError, fatal error) {
	clear(row)
	if dec.PeekKind() != '{' {
		return arena, nil, notAnObject(dec)
	}
	if _, err := dec.ReadToken(); err != nil {
		return arena, nil, decoderError(dec, err)
	}
	d := rowDecoder{t: t, row: row, arena: arena}
	for dec.PeekKind() != '}' {
		if err := d.member(dec); err != nil {
			return d.arena, nil, err
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return d.arena, nil, decoderError(dec, err)
	}
	return d.arena, d.errs, nil
}

type rowDecoder struct {
	t     *Table
	row   Row
	arena []byte
	errs  []*FieldError
}

// member reads one name and its value.
func (d *rowDecoder) member(dec *jsontext.Decoder) error {
	quoted, err := dec.ReadValue()
	if err != nil {
		return decoderError(dec, err)
	}
	column, known := d.find(quoted)
	raw, err := dec.ReadValue()
	if err != nil {
		return decoderError(dec, err)
	}
	if (raw[0] == '{' || raw[0] == '[') && depthOf(raw) >= maxDepth {
		return tooDeep(dec.InputOffset() - int64(len(raw)))
	}
	if known {
		d.cell(column, raw)
	}
	return nil
}

// find looks the column up and notes an unknown one. quoted is valid until the
// next read only.
func (d *rowDecoder) find(quoted []byte) (column int, known bool) {
	name, err := unquote(quoted)
	if err == nil {
		if column, known = d.t.byName[string(name)]; known {
			return column, true
		}
	} else {
		name = quoted
	}
	if len(d.errs) < maxErrors {
		d.errs = append(d.errs, d.t.unknownColumn(string(name)))
	}
	return 0, false
}

func (d *rowDecoder) cell(column int, raw []byte) {
	c, cell := &d.t.Columns[column], &d.row[column]
	switch {
	case c.ReadOnly():
		d.fail(c, refuse("read_only_column", "The column %s is made by the database and cannot be given.", c.Name))
		return
	case raw[0] == 'n' && c.NotNull:
		d.fail(c, refuse("null_not_allowed", "The column %s must not be null.", c.Name))
		return
	case raw[0] == 'n':
		cell.State = Null
		return
	}
	start := len(d.arena)
	arena, err := c.Type.AppendCanonical(d.arena, raw)
	switch err := err.(type) { //nolint:errorlint // never wrapped
	case nil:
		cell.State = Set
	case *FieldError:
		d.fail(c, err)
		return
	default: // ErrJudge
		cell.State = Judge
		arena = append(d.arena, raw...)
	}
	d.arena = arena
	cell.Text = arena[start:len(arena):len(arena)]
}

func (d *rowDecoder) fail(c *Column, err *FieldError) {
	if len(d.errs) < maxErrors {
		err.Column = c.Name
		d.errs = append(d.errs, err)
	}
}

// MissingRequired returns an error for every column that the row must hold and
// does not.
func (t *Table) MissingRequired(row Row) []*FieldError {
	var errs []*FieldError
	for i := range t.Columns {
		c := &t.Columns[i]
		if row[i].State == Missing && c.NotNull && !c.Generated && c.Default.Kind == DefaultNone {
			errs = append(errs, &FieldError{
				Column: c.Name, Code: "required",
				Detail: fmt.Sprintf("The column %s must be given: it has no default and must not be null.", c.Name),
			})
		}
	}
	return errs
}

// unknownColumn names the column that was perhaps meant.
func (t *Table) unknownColumn(name string) *FieldError {
	err := refuse("unknown_column", "The table %s has no column %q.", t.Name, piece([]byte(name)))
	err.Column = name
	const longest = 64 // identifiers have at most 63 bytes
	if len(name) > longest {
		err.Column = piece([]byte(name))
		return err
	}
	best, near := "", 3
	for i := range t.Columns {
		c := t.Columns[i].Name
		distance := editDistance(name, c)
		if strings.EqualFold(name, c) {
			distance = 0
		}
		if distance < near && distance*2 < len(c)+1 {
			best, near = c, distance
		}
	}
	if best != "" {
		err.Detail += fmt.Sprintf(" Did you mean %q?", best)
	}
	return err
}

// editDistance counts the bytes to insert, delete or replace (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return slices.Max(row[len(b):])
}
