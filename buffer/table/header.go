package table

import (
	"bytes"
	"fmt"
	"strconv"
)

// The column list of a frame names each column with its number in the catalog,
// which a column keeps when it is renamed, and which no other column of the
// table ever gets: "1:id", "4:total". So rows that were accepted before ALTER
// TABLE still find their columns.

// appendHeader appends a column as it stands in a column list.
func (c *Column) appendHeader(dst []byte) []byte {
	dst = append(strconv.AppendInt(dst, int64(c.Number), 10), ':')
	return AppendEscaped(dst, []byte(c.Name))
}

func splitHeader(field []byte) (number int, name string) {
	digits, rest, ok := bytes.Cut(field, []byte{':'})
	if n, err := strconv.ParseUint(string(digits), 10, 16); ok && err == nil {
		return int(n), string(rest)
	}
	return 0, string(field)
}

// HeaderNames are the names of a column list's columns, as they were then.
func HeaderNames(header []byte) []string {
	cells := ParseLine(header)
	names := make([]string, len(cells))
	for i, c := range cells {
		_, names[i] = splitHeader(c.Text)
	}
	return names
}

// AllHeader is the column list of every column, generated ones too.
func (t *Table) AllHeader() []byte {
	var header []byte
	for i := range t.Columns {
		if i > 0 {
			header = append(header, '\t')
		}
		header = t.Columns[i].appendHeader(header)
	}
	return header
}

// Places finds the columns of a column list in the table as it is now: indexes
// into Columns, and -1 for a column that is gone.
func (t *Table) Places(header []byte) []int {
	cells := ParseLine(header)
	places := make([]int, len(cells))
	for i, cell := range cells {
		number, name := splitHeader(cell.Text)
		places[i] = t.place(number, name)
	}
	return places
}

func (t *Table) place(number int, name string) int {
	for i := range t.Columns {
		if c := &t.Columns[i]; c.Number == number && (number > 0 || c.Name == name) {
			return i
		}
	}
	return -1 // also when another column has its name now
}

// Adapt gives a frame as the table would have it now: renamed columns under
// their new names, and without those that are gone or are generated now. It is
// the frame itself when its column list is that of today.
func (t *Table) Adapt(f *Frame) (*Frame, error) {
	if bytes.Equal(f.Columns, t.header) {
		return f, nil
	}
	places := t.Places(f.Columns)
	out := &Frame{Last: f.Last, Base: f.Base, Bytes: f.Bytes, Heads: bytes.Clone(f.Heads)}
	moved := make([]int, len(places)) // old position → new one, -1 for none
	n := 0
	for i, p := range places {
		moved[i] = -1
		if p < 0 || t.Columns[p].Generated {
			continue
		}
		if n > 0 {
			out.Columns = append(out.Columns, '\t')
		}
		out.Columns = t.Columns[p].appendHeader(out.Columns)
		moved[i] = n
		n++
	}
	for row := range f.Len() {
		line, err := adaptLine(f, row, moved)
		if err != nil {
			return nil, err
		}
		out.Data = append(out.Data, line...)
		setEnd(out.Heads, row, len(out.Data))
	}
	return out, nil
}

func adaptLine(f *Frame, row int, moved []int) ([]byte, error) {
	cells := ParseLine(f.Line(row))
	width := len(moved)
	if f.Op(row).Changes() {
		width++
	}
	if len(cells) != width {
		return nil, fmt.Errorf("%w: %d values for %d columns in %s", ErrCorruptFrame, len(cells), width, f.Last)
	}
	var line []byte
	for i, to := range moved {
		if to < 0 {
			continue
		}
		if to > 0 {
			line = append(line, '\t')
		}
		if cells[i].State == Null {
			line = append(line, '\\', 'N')
		} else {
			line = AppendEscaped(line, cells[i].Text)
		}
	}
	if f.Op(row).Changes() {
		changes, err := ParseChanges(cells[width-1].Text)
		if err != nil {
			return nil, err
		}
		kept := changes[:0]
		for _, c := range changes {
			if c.Column >= len(moved) {
				return nil, ErrCorruptFrame
			}
			if to := moved[c.Column]; to >= 0 {
				kept = append(kept, Change{Column: to, Add: c.Add})
			}
		}
		line = AppendChanges(line, kept)
	}
	return append(line, '\n'), nil
}
