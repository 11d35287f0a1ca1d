package table

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The column list of a frame names each column with its number in the catalog,
// which a column keeps when it is renamed, and which no other column of the
// table ever gets, and with its type: "1.20:id", "4.1700:total". So rows that
// were accepted before ALTER TABLE still find their columns, and none is read as
// something that it never was. The list begins with the table's oid,
// "16384/1.20:id": when the table was restored or created again, or another one
// has its name now, the numbers are those of another table, and names count.

// newHeader begins a column list.
func (t *Table) newHeader() []byte {
	return append(strconv.AppendUint(nil, uint64(t.OID), 10), '/')
}

// cutHeader divides a column list into the table's oid and its columns.
func cutHeader(header []byte) (oid uint32, columns []byte) {
	digits, rest, ok := bytes.Cut(header, []byte{'/'})
	digits, _, _ = bytes.Cut(digits, []byte{'!'}) // see Replaying
	if n, err := strconv.ParseUint(string(digits), 10, 32); ok && err == nil {
		return uint32(n), rest
	}
	return 0, header
}

// appendHeader appends a column as it stands in a column list.
func (c *Column) appendHeader(dst []byte) []byte {
	dst = append(strconv.AppendInt(dst, int64(c.Number), 10), '.')
	dst = append(strconv.AppendUint(dst, uint64(c.Type.OID), 10), ':')
	return AppendEscaped(dst, []byte(c.Name))
}

func splitHeader(field []byte) (number int, typeOID uint32, name string) {
	digits, rest, ok := bytes.Cut(field, []byte{':'})
	attribute, oid, ok2 := strings.Cut(string(digits), ".")
	n, err := strconv.ParseUint(attribute, 10, 16)
	o, err2 := strconv.ParseUint(oid, 10, 32)
	if ok && ok2 && err == nil && err2 == nil {
		return int(n), uint32(o), string(rest)
	}
	return 0, 0, string(field)
}

// HeaderNames are the names of a column list's columns, as they were then.
func HeaderNames(header []byte) []string {
	_, columns := cutHeader(header)
	cells := ParseLine(columns)
	names := make([]string, len(cells))
	for i, c := range cells {
		_, _, names[i] = splitHeader(c.Text)
	}
	return names
}

// AllHeader is the column list of every column, generated ones too.
func (t *Table) AllHeader() []byte {
	header := t.newHeader()
	for i := range t.Columns {
		if i > 0 {
			header = append(header, '\t')
		}
		header = t.Columns[i].appendHeader(header)
	}
	return header
}

// Places finds the columns of a column list in the table as it is now: indexes
// into Columns, and -1 for a column that is gone. Those in retyped have a type
// now that reads the values of then as other values, or not at all.
func (t *Table) Places(header []byte) (places []int, retyped []int) {
	oid, columns := cutHeader(header)
	cells := ParseLine(columns)
	places = make([]int, len(cells))
	for i, cell := range cells {
		number, typeOID, name := splitHeader(cell.Text)
		if oid != t.OID {
			number = 0
		}
		places[i] = t.place(number, name)
		if p := places[i]; p >= 0 && !readsAlike(typeOID, t.Columns[p].Type) {
			retyped = append(retyped, i)
		}
	}
	return places, retyped
}

// Newer reports whether a column list has a column that was added to the table
// after t was read.
func (t *Table) Newer(header []byte) bool {
	oid, columns := cutHeader(header)
	if oid != t.OID || bytes.Equal(header, t.header) {
		return false
	}
	for _, cell := range ParseLine(columns) {
		if number, _, _ := splitHeader(cell.Text); number > t.Numbered {
			return true
		}
	}
	return false
}

func (t *Table) place(number int, name string) int {
	for i := range t.Columns {
		if c := &t.Columns[i]; number > 0 && c.Number == number || number == 0 && c.Name == name {
			return i
		}
	}
	return -1 // also when another column has its name now
}

// Adapt gives a frame as the table would have it now: renamed columns under
// their new names, and without those that are gone or are generated now. It is
// the frame itself when its column list is that of today. Rows of it that hold a
// value of a retyped column (Places) are in stale, with the column's name.
func (t *Table) Adapt(f *Frame) (out *Frame, stale map[int]string, err error) {
	if bytes.Equal(f.Columns, t.header) {
		return f, nil, nil
	}
	places, retyped := t.Places(f.Columns)
	out = &Frame{Last: f.Last, Base: f.Base, Bytes: f.Bytes, Heads: bytes.Clone(f.Heads), Traces: f.Traces, Columns: t.newHeader()}
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
		cells := ParseLine(f.Line(row))
		line, err := adaptLine(f, row, cells, moved)
		if err != nil {
			return nil, nil, err
		}
		out.Data = append(out.Data, line...)
		setEnd(out.Heads, row, len(out.Data))
		for _, i := range retyped {
			if cells[i].State == Set && (f.Op(row) != OpDelete || t.IsKey(places[i])) {
				if stale == nil {
					stale = make(map[int]string)
				}
				stale[row] = t.Columns[places[i]].Name
			}
		}
	}
	return out, stale, nil
}

func adaptLine(f *Frame, row int, cells Row, moved []int) ([]byte, error) {
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
		line = append(AppendChanges(line, kept), baseOf(cells[width-1].Text)...)
	}
	return append(line, '\n'), nil
}

// Types whose texts mean the same to each other, by their oids.
var alike = [][]uint32{
	{21, 23, 20, 1700, 700, 701}, // int2, int4, int8, numeric, float4, float8
	{1082, 1114, 1184},           // date, timestamp, timestamptz, in UTC
	{114, 3802},                  // json, jsonb
}

// elements of the built-in arrays of these types and of text, by their oids.
var elements = map[uint32]uint32{
	1005: 21, 1007: 23, 1016: 20, 1231: 1700, 1021: 700, 1022: 701, 1182: 1082, 1115: 1114, 1185: 1184,
	199: 114, 3807: 3802, 1009: 25, 1015: 1043, 1014: 1042,
}

const (
	oidBool, oidText, oidBpchar, oidVarchar, oidInet = 16, 25, 1042, 1043, 869

	firstUserOID = 16384 // of types that Postgres does not come with
)

// readsAlike reports whether a type reads the canonical text of a column that
// had the type old when the text was written, as the value that ALTER TABLE
// without USING makes of it, or refuses it. What is not known to do so does not.
func readsAlike(old uint32, t *Type) bool {
	if old == t.OID || old == 0 { // 0 where it is not known
		return true
	}
	if t.Kind == KindDomain {
		return readsAlike(old, t.bottom())
	}
	switch {
	case old == oidText || old == oidVarchar:
		return true // any type reads text as it would in a request
	case t.Kind == KindText || t.Kind == KindVarchar || t.Kind == KindBpchar:
		return old != oidBool && old != oidBpchar && old != oidInet // as text they are something else than they print
	case t.Kind == KindArray && elements[old] != 0:
		return readsAlike(elements[old], t.Elem)
	case old >= firstUserOID:
		return t.OID >= firstUserOID // an enum's labels, a domain's values
	}
	for _, group := range alike {
		if slices.Contains(group, old) {
			return slices.Contains(group, t.OID)
		}
	}
	return false
}
