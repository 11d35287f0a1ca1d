package table

import "bytes"

// Rows lie in frames as lines of COPY's text format: fields divided by a tab,
// \N for NULL, and backslash escapes for backslash, tab, newline and carriage
// return. Source: PostgreSQL documentation, COPY, "Text Format".

// AppendEscaped appends s with COPY's escapes.
func AppendEscaped(dst, s []byte) []byte {
	start := 0
	for i, c := range s {
		if c > '\r' && c != '\\' {
			continue
		}
		var e byte
		switch c {
		case '\\':
			e = '\\'
		case '\t':
			e = 't'
		case '\n':
			e = 'n'
		case '\r':
			e = 'r'
		default:
			continue
		}
		dst = append(dst, s[start:i]...)
		dst = append(dst, '\\', e)
		start = i + 1
	}
	return append(dst, s[start:]...)
}

// AppendLine appends the stored columns of row as one line with its newline.
// Every stored cell must be Null or Set.
func (t *Table) AppendLine(dst []byte, row Row) []byte {
	for i, c := range t.stored {
		if i > 0 {
			dst = append(dst, '\t')
		}
		if row[c].State == Null {
			dst = append(dst, '\\', 'N')
			continue
		}
		dst = AppendEscaped(dst, row[c].Text)
	}
	return append(dst, '\n')
}

// ParseLine splits a line, with or without its newline, into cells that are
// Null or Set. Texts without escapes are slices of line.
func ParseLine(line []byte) Row {
	line = bytes.TrimSuffix(line, []byte{'\n'})
	row := make(Row, 0, bytes.Count(line, []byte{'\t'})+1)
	for {
		field, rest, more := bytes.Cut(line, []byte{'\t'})
		if len(field) == 2 && field[0] == '\\' && field[1] == 'N' {
			row = append(row, Cell{State: Null})
		} else {
			row = append(row, Cell{State: Set, Text: unescape(field)})
		}
		if !more {
			return row
		}
		line = rest
	}
}

func unescape(s []byte) []byte {
	i := bytes.IndexByte(s, '\\')
	if i < 0 {
		return s
	}
	out := append(make([]byte, 0, len(s)), s[:i]...)
	for ; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out = append(out, s[i])
			continue
		}
		i++
		switch s[i] {
		case 't':
			out = append(out, '\t')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		default:
			out = append(out, s[i])
		}
	}
	return out
}
