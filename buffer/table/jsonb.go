package table

import (
	"bytes"
	"errors"
	"slices"
	"unicode/utf8"
)

// maxGrowth bounds, in bytes, what exponents may add to one jsonb value: 1e131071 is
// eight bytes on the wire and 131,072 in Postgres' text.
const maxGrowth = 1 << 20

// appendJSONB appends the text that jsonb prints: keys by length and then by
// bytes, the last of equal keys, numbers as numeric, its own escapes.
func appendJSONB(dst, raw []byte) ([]byte, error) {
	n := normaliser{src: raw}
	dst, err := n.all(dst)
	return dst, err
}

// appendVerbatimJSON is for json, which keeps its text. \u0000 is refused: it
// could be stored but never read as a value.
func appendVerbatimJSON(dst, raw []byte) ([]byte, error) {
	for s := raw; ; {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(dst, raw...), nil
		}
		_, n, err := readEscape(s[i:])
		if err != nil {
			return dst, err
		}
		s = s[i+n:]
	}
}

// normaliser turns JSON into the text of jsonb.
type normaliser struct {
	src   []byte
	at    int
	grown int
	// lenient keeps as they are the numbers and escapes that json can store but
	// jsonb cannot, and is set for text that came from Postgres.
	lenient bool
}

func (n *normaliser) all(dst []byte) ([]byte, error) {
	dst, err := n.value(dst)
	if n.space(); err == nil && n.at != len(n.src) {
		err = errNotJSON
	}
	return dst, err
}

func (n *normaliser) space() {
	for n.at < len(n.src) && (n.src[n.at] == ' ' || n.src[n.at] == '\n' || n.src[n.at] == '\t' || n.src[n.at] == '\r') {
		n.at++
	}
}

// take steps over c, if it comes next after white space.
func (n *normaliser) take(c byte) bool {
	n.space()
	if n.at < len(n.src) && n.src[n.at] == c {
		n.at++
		return true
	}
	return false
}

func (n *normaliser) value(dst []byte) ([]byte, error) {
	n.space()
	if n.at >= len(n.src) {
		return dst, errNotJSON
	}
	switch c := n.src[n.at]; c {
	case '{':
		return n.object(dst)
	case '[':
		return n.array(dst)
	case '"':
		return n.str(dst)
	case 't', 'f', 'n':
		for _, word := range [...]string{"true", "false", "null"} {
			if bytes.HasPrefix(n.src[n.at:], []byte(word)) {
				n.at += len(word)
				return append(dst, word...), nil
			}
		}
		return dst, errNotJSON
	}
	return n.number(dst)
}

func (n *normaliser) array(dst []byte) ([]byte, error) {
	n.at++
	dst = append(dst, '[')
	for first := true; ; first = false {
		if first && n.take(']') {
			return append(dst, ']'), nil
		}
		var err error
		if dst, err = n.value(dst); err != nil {
			return dst, err
		}
		if n.take(']') {
			return append(dst, ']'), nil
		}
		if !n.take(',') {
			return dst, errNotJSON
		}
		dst = append(dst, ',', ' ')
	}
}

func (n *normaliser) object(dst []byte) ([]byte, error) {
	n.at++
	dst = append(dst, '{')
	if n.take('}') {
		return append(dst, '}'), nil
	}
	base, before, ordered := len(dst), len(dst), true
	for beforeEnd := base; ; dst = append(dst, ',', ' ') {
		n.space()
		if n.at >= len(n.src) || n.src[n.at] != '"' {
			return dst, errNotJSON
		}
		start := len(dst)
		var err error
		if dst, err = n.str(dst); err != nil {
			return dst, err
		}
		if start > base && ordered {
			ordered = compareKeys(keyName(dst[before:beforeEnd]), keyName(dst[start:])) < 0
		}
		before, beforeEnd = start, len(dst)
		if !n.take(':') {
			return dst, errNotJSON
		}
		if dst, err = n.value(append(dst, ':', ' ')); err != nil {
			return dst, err
		}
		if n.take('}') {
			if !ordered {
				dst = sortMembers(dst, base)
			}
			return append(dst, '}'), nil
		}
		if !n.take(',') {
			return dst, errNotJSON
		}
	}
}

// str copies a string with jsonb's escapes.
func (n *normaliser) str(dst []byte) ([]byte, error) {
	body := n.src[n.at+1:]
	dst = append(dst, '"')
	for {
		i := 0
		for i < len(body) && body[i] != '"' && body[i] != '\\' {
			i++
		}
		if i == len(body) {
			return dst, errNotJSON
		}
		dst = append(dst, body[:i]...)
		if body[i] == '"' {
			n.at = len(n.src) - len(body) + i + 1
			return append(dst, '"'), nil
		}
		r, size, err := readEscape(body[i:])
		switch {
		case err == nil && r < utf8.RuneSelf:
			dst = appendEscapedByte(dst, byte(r))
		case err == nil:
			dst = utf8.AppendRune(dst, r)
		case n.lenient && !errors.Is(err, errNotJSON):
			size = 6
			dst = append(dst, body[i:i+size]...)
		default:
			return dst, err
		}
		body = body[i+size:]
	}
}

func (n *normaliser) number(dst []byte) ([]byte, error) {
	end := n.at
	for end < len(n.src) && isNumberByte(n.src[end]) {
		end++
	}
	text := n.src[n.at:end]
	if len(text) == 0 {
		return dst, errNotJSON
	}
	n.at = end
	out, ok := appendPlain(dst, text)
	if !ok && n.lenient {
		return append(dst, text...), nil
	}
	if !ok {
		return dst, refuse(codeOutOfRange, "The number %s is out of range for jsonb.", piece(text))
	}
	if n.grown += max(0, len(out)-len(dst)-len(text)); n.grown > maxGrowth && !n.lenient {
		return dst, refuse(codeTooLong, "The numbers of the value have too many digits when written out.")
	}
	return out, nil
}

func isNumberByte(c byte) bool {
	return isDigit(c) || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'
}

// compareKeys orders as jsonb does: the shorter first.
func compareKeys(a, b []byte) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return bytes.Compare(a, b)
}

// keyName is the key that a string stands for. An escape that cannot be read
// is only possible in lenient mode: it then counts as it is written.
func keyName(quoted []byte) []byte {
	if name, err := unquote(quoted); err == nil {
		return name
	}
	return quoted[1 : len(quoted)-1]
}

// member is one key and its value; text is both as they are printed.
type member struct{ key, text []byte }

func compareMembers(a, b member) int { return compareKeys(a.key, b.key) }

// sortMembers puts the members of the object that begins at base, which are in
// jsonb's form already, into jsonb's order.
func sortMembers(dst []byte, base int) []byte {
	end := len(dst)
	dst = append(dst, dst[base:]...) // a copy to read from, behind what is written
	var room [16]member
	list := splitMembers(room[:0], dst[end:])
	slices.SortStableFunc(list, compareMembers)
	out := dst[:base]
	for i, m := range list {
		if i+1 < len(list) && bytes.Equal(m.key, list[i+1].key) {
			continue // the last one wins
		}
		if len(out) > base {
			out = append(out, ',', ' ')
		}
		out = append(out, m.text...)
	}
	return out
}

func splitMembers(list []member, s []byte) []member {
	n := normaliser{src: s}
	for {
		start := n.at
		key, err := n.skip()
		if err != nil || !n.take(':') {
			return list
		}
		if _, err = n.skip(); err != nil {
			return list
		}
		list = append(list, member{keyName(key), s[start:n.at]})
		if !n.take(',') {
			return list
		}
		n.space()
	}
}
