package table

import (
	"bytes"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

const maxKey = 1024 // bytes of key text

// AppendKey appends the key text of row: the texts of its key columns in key
// order, joined by commas; inside a text, % is %25 and a comma %2C. Values that
// Postgres holds to be equal have one key text: 1.50 and 1.5, -0 and 0, and
// char(n) with and without its padding. See KeyIsExact for where that fails.
func (t *Table) AppendKey(dst []byte, row Row) []byte {
	for i, c := range t.Key {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendKeyPart(dst, keyForm(t.Columns[c].Type, row[c].Text))
	}
	return dst
}

func appendKeyPart(dst, text []byte) []byte {
	if bytes.IndexByte(text, '%') < 0 && bytes.IndexByte(text, ',') < 0 {
		return append(dst, text...)
	}
	for _, b := range text {
		switch b {
		case '%':
			dst = append(dst, "%25"...)
		case ',':
			dst = append(dst, "%2C"...)
		default:
			dst = append(dst, b)
		}
	}
	return dst
}

// keyForm is the one text of all values that are equal to the given one.
func keyForm(t *Type, text []byte) []byte {
	switch t.bottom().Kind {
	case KindBpchar:
		return bytes.TrimRight(text, " ")
	case KindNumeric:
		if bytes.IndexByte(text, '.') >= 0 {
			text = bytes.TrimRight(bytes.TrimRight(text, "0"), ".")
		}
	case KindFloat4, KindFloat8:
		if string(text) == "-0" {
			return text[1:]
		}
	}
	return text
}

// Bottom is the type beneath all domains.
func (t *Type) Bottom() *Type { return t.bottom() }

// bottom is the type beneath all domains.
func (t *Type) bottom() *Type {
	for t.Kind == KindDomain && t.Base != nil {
		t = t.Base
	}
	return t
}

// exactOthers are types of KindOther whose values are equal only when their
// texts are: "char", name, oid, cidr, macaddr8, money, macaddr, inet, time,
// timetz, bit, varbit. Unlike interval, where '24:00' = '1 day'.
var exactOthers = map[uint32]bool{
	18: true, 19: true, 26: true, 650: true, 774: true, 790: true, 829: true, 869: true,
	1083: true, 1266: true, 1560: true, 1562: true,
}

// KeyIsExact reports whether values of the type that Postgres holds to be equal
// always have the same key text, under a deterministic collation. Where it is
// false, one row may have two keys, and the order of its writes is not kept.
func (t *Type) KeyIsExact() bool {
	switch b := t.bottom(); b.Kind {
	case KindJSON, KindJSONB:
		return false
	case KindOther:
		return exactOthers[b.OID]
	case KindArray:
		return b.Elem != nil && b.Elem.exactInside()
	case KindComposite:
		for i := range b.Fields {
			if !b.Fields[i].Type.exactInside() {
				return false
			}
		}
	}
	return true
}

// exactInside: within arrays and composites no key form is made.
func (t *Type) exactInside() bool {
	switch t.bottom().Kind {
	case KindNumeric, KindFloat4, KindFloat8, KindBpchar:
		return false
	}
	return t.KeyIsExact()
}

// PathKey is the key of row as the last segment of a path, percent-encoded.
func (t *Table) PathKey(row Row) string {
	parts := make([]string, len(t.Key))
	for i, c := range t.Key {
		parts[i] = url.PathEscape(string(keyForm(t.Columns[c].Type, row[c].Text)))
	}
	return strings.Join(parts, ",")
}

// ParseKeyPath reads the last segment of a path, still percent-encoded. cells
// are the key columns in key order, key is the key text; it is nil when a cell
// is left to Postgres (Judge, its Text the JSON to ask about). err has the code
// bad_key when the segment cannot be read, invalid_key when it is not a key of
// this table.
func (t *Table) ParseKeyPath(raw string) (cells []Cell, key []byte, err *FieldError) {
	parts := strings.Split(raw, ",")
	if len(parts) != len(t.Key) {
		return nil, nil, refuse(codeBadKey, "The key of %s has %d parts (%s), separated by commas; this one has %d.",
			t.Name, len(t.Key), t.KeyNames(), len(parts))
	}
	for i, part := range parts {
		text, err := url.PathUnescape(part)
		if err != nil {
			return nil, nil, refuse(codeBadKey, "The key is not percent-encoded rightly: %s.", piece([]byte(part)))
		}
		parts[i] = text
	}
	return t.parseKey(parts)
}

// ParseKeyText reads a key as answers show it: bare when it is one column, else
// as ParseKeyPath does.
func (t *Table) ParseKeyText(text string) (cells []Cell, key []byte, err *FieldError) {
	if len(t.Key) > 1 {
		return t.ParseKeyPath(text)
	}
	return t.parseKey([]string{text})
}

func (t *Table) parseKey(parts []string) (cells []Cell, key []byte, err *FieldError) {
	size := 0
	for _, part := range parts {
		size += len(part) + 1
	}
	cells, key = make([]Cell, len(parts)), make([]byte, 0, size)
	judged := false
	for i, part := range parts {
		if err := checkPart(part); err != nil {
			return nil, nil, err
		}
		if len(part) == 0 && len(parts) == 1 {
			return nil, nil, refuse(codeBadKey, "The key is empty.")
		}
		column := &t.Columns[t.Key[i]]
		_, cells[i], err = column.Type.TextCell(make([]byte, 0, len(part)), []byte(part))
		if err != nil {
			return nil, nil, refuse(codeInvalidKey, "The key column %s: %s", column.Name, err.Detail)
		}
		judged = judged || cells[i].State == Judge
		if i > 0 {
			key = append(key, ',')
		}
		key = appendKeyPart(key, keyForm(column.Type, cells[i].Text))
	}
	if len(key) > maxKey {
		return nil, nil, refuse(codeInvalidKey, "The key is longer than %d bytes.", maxKey)
	}
	if judged {
		key = nil
	}
	return cells, key, nil
}

func checkPart(text string) *FieldError {
	if !utf8.ValidString(text) {
		return refuse(codeBadKey, "The key is not valid UTF-8.")
	}
	for i := range len(text) {
		if text[i] < ' ' || text[i] == 0x7f {
			return refuse(codeBadKey, "The key holds a control character.")
		}
	}
	return nil
}

// TextCell reads bare text, a part of a key or a field of CSV, as a value of the
// type: Set, or Judge when it is left to Postgres. The cell's text is appended to
// arena and is a slice of it; arena must not be nil, for the empty text is a
// value, and nil is NULL to Postgres. err has no Column. Safe for concurrent use.
func (t *Type) TextCell(arena, s []byte) (_ []byte, cell Cell, err *FieldError) {
	out, failure := t.appendText(arena, s)
	switch bad := failure.(type) { //nolint:errorlint // never wrapped
	case nil:
		cell.State = Set
	case *FieldError:
		own := *bad // some are shared
		return arena, Cell{}, &own
	default: // ErrJudge
		cell.State = Judge
		if t.bottom().isJSON() { // there the text is JSON, and not a string of it
			out = append(arena, s...)
		} else {
			out = appendQuoted(arena, s)
		}
	}
	cell.Text = out[len(arena):len(out):len(out)]
	return out, cell, nil
}

// WritableColumn finds a column that clients may give. err is unknown_column or
// read_only_column, and has its Column.
func (t *Table) WritableColumn(name string) (column int, err *FieldError) {
	column, known := t.byName[name]
	switch {
	case !known:
		return 0, t.unknownColumn(name)
	case t.Columns[column].ReadOnly():
		err = refuse("read_only_column", "The column %s is made by the database and cannot be given.", name)
		err.Column = name
		return 0, err
	}
	return column, nil
}

func (t *Type) isJSON() bool { return t.Kind == KindJSON || t.Kind == KindJSONB }

// appendText appends canonical text. It may leave rubbish after dst when it
// fails.
func (t *Type) appendText(dst, s []byte) ([]byte, error) {
	switch {
	case !utf8.Valid(s):
		return dst, refuse(codeInvalidUTF8, "The value is not valid UTF-8.")
	case bytes.IndexByte(s, 0) >= 0:
		return dst, errNUL
	case t.isJSON():
		return t.appendJSONText(dst, s)
	case t.Kind == KindDomain && t.Base != nil: // what its base refuses, it refuses too
		if _, err := t.Base.appendText(dst, s); err != nil {
			return dst, err
		}
		return dst, ErrJudge
	}
	return t.appendBare(dst, s)
}

func (t *Type) appendJSONText(dst, s []byte) ([]byte, error) {
	switch {
	case !jsontext.Value(s).IsValid():
		return dst, errNotJSON
	case depthOf(s) >= maxDepth:
		return dst, refuse("too_deep", "The value is nested more than %d levels deep.", maxDepth-1)
	case t.Kind == KindJSONB:
		return appendJSONB(dst, s)
	}
	return appendVerbatimJSON(dst, s)
}

func (t *Type) appendBare(dst, s []byte) ([]byte, error) {
	switch t.Kind {
	case KindBool:
		switch string(s) {
		case "t", "true":
			return append(dst, 't'), nil
		case "f", "false":
			return append(dst, 'f'), nil
		}
		return dst, refuse(codeTypeMismatch, "%q is neither true nor false.", piece(s))
	case KindInt2:
		return t.appendIntText(dst, s, 16)
	case KindInt4:
		return t.appendIntText(dst, s, 32)
	case KindInt8:
		return t.appendIntText(dst, s, 64)
	case KindFloat4, KindFloat8:
		if name := specialNumber(s); name != "" {
			return append(dst, name...), nil
		}
		return t.appendFloatText(dst, s, t.floatBits())
	case KindNumeric:
		return t.appendNumericText(dst, s)
	case KindText, KindVarchar, KindBpchar:
		return t.fitLength(append(dst, s...), len(dst))
	case KindUUID:
		return appendUUID(dst, s)
	case KindDate, KindTimestamp, KindTimestamptz:
		return t.appendDatetime(dst, s)
	case KindBytea:
		return appendBytea(dst, s)
	case KindEnum:
		return t.appendLabel(dst, s)
	}
	return dst, ErrJudge
}
