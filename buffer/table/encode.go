package table

import (
	"bytes"
	"slices"
)

// AppendRowJSON appends the row as a JSON object, columns in table order.
// Cells that are not Set are null.
func (t *Table) AppendRowJSON(dst []byte, row Row) []byte {
	dst = append(dst, '{')
	for i := range t.Columns {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendQuoted(dst, t.Columns[i].Name), ':')
		if row[i].State == Set {
			dst = t.Columns[i].Type.AppendJSON(dst, row[i].Text)
		} else {
			dst = append(dst, "null"...)
		}
	}
	return append(dst, '}')
}

// AppendJSON turns canonical text into the JSON that to_jsonb(value)::text
// prints with TimeZone=UTC. Text that is not of the type becomes a JSON
// string. Safe for concurrent use.
func (t *Type) AppendJSON(dst, text []byte) []byte {
	switch t.Kind {
	case KindBool:
		return appendBoolJSON(dst, text)
	case KindInt2, KindInt4, KindInt8, KindFloat4, KindFloat8, KindNumeric:
		if out, ok := appendPlain(dst, text); ok {
			return out
		}
	case KindUUID, KindDate:
		return append(append(append(dst, '"'), text...), '"')
	case KindTimestamp, KindTimestamptz:
		return appendMomentJSON(dst, text)
	case KindJSONB:
		return append(dst, text...)
	case KindJSON:
		n := normaliser{src: text, lenient: true}
		if out, err := n.all(dst); err == nil {
			return out
		}
	case KindArray:
		if out, ok := t.appendArrayJSON(dst, text); ok {
			return out
		}
	case KindComposite:
		if out, ok := t.appendRecordJSON(dst, text); ok {
			return out
		}
	case KindDomain:
		if t.Base != nil {
			return t.Base.AppendJSON(dst, text)
		}
	}
	return appendQuoted(dst, text)
}

func appendBoolJSON(dst, text []byte) []byte {
	if string(text) == "t" {
		return append(dst, "true"...)
	}
	return append(dst, "false"...)
}

// appendMomentJSON writes a T for the blank, and +00:00 for +00: ISO 8601 as
// to_jsonb has it. infinity has neither.
func appendMomentJSON(dst, text []byte) []byte {
	dst = append(dst, '"')
	if i := bytes.IndexByte(text, ' '); i >= 0 && i+1 < len(text) && isDigit(text[i+1]) {
		dst = append(append(dst, text[:i]...), 'T')
		text = text[i+1:]
		if zone := bytes.Index(text, []byte("+00")); zone >= 0 {
			dst = append(append(dst, text[:zone]...), "+00:00"...)
			text = text[zone+3:]
		}
	}
	return append(append(dst, text...), '"')
}

// appendQuoted appends a JSON string with the escapes of escape_json.
func appendQuoted[S []byte | string](dst []byte, s S) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			dst = append(dst, s[start:i]...)
			dst = appendEscapedByte(dst, c)
			start = i + 1
		}
	}
	return append(append(dst, s[start:]...), '"')
}

func appendEscapedByte(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	if c < ' ' {
		return append(dst, '\\', 'u', '0', '0', hexDigit[c>>4], hexDigit[c&15])
	}
	return append(dst, c)
}

// appendRecordJSON reads the text that record_out prints, (a,"b c",), and
// writes an object with the keys in jsonb's order.
func (t *Type) appendRecordJSON(dst, text []byte) (out []byte, ok bool) {
	values, ok := splitRecord(text, len(t.Fields))
	if !ok {
		return dst, false
	}
	order := make([]int, len(t.Fields))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return compareKeys([]byte(t.Fields[a].Name), []byte(t.Fields[b].Name))
	})
	dst = append(dst, '{')
	for n, i := range order {
		if n > 0 {
			dst = append(dst, ',', ' ')
		}
		dst = append(appendQuoted(dst, t.Fields[i].Name), ':', ' ')
		if values[i] == nil {
			dst = append(dst, "null"...)
		} else {
			dst = t.Fields[i].Type.AppendJSON(dst, values[i])
		}
	}
	return append(dst, '}'), true
}

// splitRecord gives the n fields of a record's text, nil for NULL.
func splitRecord(text []byte, n int) (values [][]byte, ok bool) {
	if len(text) < 2 || text[0] != '(' || text[len(text)-1] != ')' {
		return nil, false
	}
	rest := text[1 : len(text)-1]
	if n == 0 {
		return nil, len(rest) == 0
	}
	for {
		value, after, ok := recordField(rest)
		if !ok {
			return nil, false
		}
		values = append(values, value)
		if len(after) == 0 {
			return values, len(values) == n
		}
		rest = after[1:] // a comma
	}
}

// recordField reads up to the next comma. Nothing at all is NULL; inside
// quotes, "" and \\ stand for one of them.
func recordField(s []byte) (value, rest []byte, ok bool) {
	if len(s) == 0 || s[0] == ',' {
		return nil, s, true
	}
	value = make([]byte, 0, 16)
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			value = append(value, s[i])
		case c == '"' && quoted && i+1 < len(s) && s[i+1] == '"':
			i++
			value = append(value, '"')
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			return value, s[i:], true
		default:
			value = append(value, c)
		}
	}
	return value, nil, !quoted
}
