package table

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// trimSpace cuts JSON's white space off both ends.
func trimSpace(s []byte) []byte {
	if len(s) > 0 && s[0] > ' ' && s[len(s)-1] > ' ' {
		return s
	}
	return bytes.Trim(s, " \t\r\n")
}

// unquote gives the string that a JSON string stands for; without escapes it
// is a slice of raw. Nothing is ever replaced by U+FFFD.
func unquote(raw []byte) ([]byte, error) {
	body, err := stringBody(raw)
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(body, '\\') < 0 {
		return body, nil
	}
	return appendUnescaped(make([]byte, 0, len(body)), body)
}

// stringBody cuts the quotes off.
func stringBody(raw []byte) ([]byte, error) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return nil, errNotJSON
	}
	return raw[1 : len(raw)-1], nil
}

var errNotJSON = refuse(codeInvalidJSON, "The value is not valid JSON.")

func appendUnescaped(dst, body []byte) ([]byte, error) {
	for {
		i := bytes.IndexByte(body, '\\')
		if i < 0 {
			return append(dst, body...), nil
		}
		dst, body = append(dst, body[:i]...), body[i:]
		r, n, err := readEscape(body)
		if err != nil {
			return dst, err
		}
		dst, body = utf8.AppendRune(dst, r), body[n:]
	}
}

// readEscape reads the escape at the start of s and says how long it is. NUL
// and half a surrogate pair are errors.
func readEscape(s []byte) (r rune, n int, err error) {
	if len(s) < 2 {
		return 0, 0, errNotJSON
	}
	switch s[1] {
	case '"', '\\', '/':
		return rune(s[1]), 2, nil
	case 'b':
		return '\b', 2, nil
	case 'f':
		return '\f', 2, nil
	case 'n':
		return '\n', 2, nil
	case 'r':
		return '\r', 2, nil
	case 't':
		return '\t', 2, nil
	}
	r, ok := readUnit(s)
	if !ok {
		return 0, 0, errNotJSON
	}
	if r == 0 {
		return 0, 0, errNUL
	}
	if !utf16.IsSurrogate(r) {
		return r, 6, nil
	}
	second, ok := readUnit(s[6:])
	if r = utf16.DecodeRune(r, second); !ok || r == utf8.RuneError {
		return 0, 0, refuse(codeInvalidUnicode, "The value holds one half of a surrogate pair.")
	}
	return r, 12, nil
}

// readUnit reads \uXXXX.
func readUnit(s []byte) (r rune, ok bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	for _, c := range s[2:6] {
		h := hexValue[c]
		if h < 0 {
			return 0, false
		}
		r = r<<4 | rune(h)
	}
	return r, true
}

// hexValue is the value of a hexadecimal digit, -1 for other bytes.
var hexValue = func() (v [256]int8) {
	for c := range v {
		switch {
		case c >= '0' && c <= '9':
			v[c] = int8(c - '0')
		case c >= 'a' && c <= 'f':
			v[c] = int8(c - 'a' + 10)
		case c >= 'A' && c <= 'F':
			v[c] = int8(c - 'A' + 10)
		default:
			v[c] = -1
		}
	}
	return v
}()

const hexDigit = "0123456789abcdef"

// appendString reads text, varchar(n) and char(n).
func (t *Type) appendString(dst, raw []byte) ([]byte, error) {
	if raw[0] != '"' {
		return dst, t.mismatch(raw, "a string")
	}
	body, err := stringBody(raw)
	if err != nil {
		return dst, err
	}
	start := len(dst)
	if dst, err = appendUnescaped(dst, body); err != nil {
		return dst, err
	}
	return t.fitLength(dst, start)
}

// fitLength makes dst[start:] fit varchar(n) or char(n): blanks beyond n
// characters are cut, anything else there is refused, char(n) is padded.
// Source: PostgreSQL documentation, "Character Types".
func (t *Type) fitLength(dst []byte, start int) ([]byte, error) {
	if t.Length == 0 || t.Kind == KindText {
		return dst, nil
	}
	s := dst[start:]
	if t.Kind == KindVarchar && len(s) <= t.Length {
		return dst, nil
	}
	chars, end := 0, 0
	for end < len(s) && chars < t.Length {
		_, size := utf8.DecodeRune(s[end:])
		end += size
		chars++
	}
	for _, c := range s[end:] {
		if c != ' ' {
			return dst, refuse(codeTooLong, "The string has %d characters, and %s takes %d.", utf8.RuneCount(s), t.Name, t.Length)
		}
	}
	dst = dst[:start+end]
	if t.Kind == KindBpchar {
		for ; chars < t.Length; chars++ {
			dst = append(dst, ' ')
		}
	}
	return dst, nil
}

// appendUUID reads all that uuid_in does: 32 hexadecimal digits, a hyphen
// allowed after every four, braces around.
func appendUUID(dst, s []byte) ([]byte, error) {
	bad := refuseUUID
	rest := s
	if len(s) > 0 && s[0] == '{' {
		if s[len(s)-1] != '}' {
			return dst, bad(s)
		}
		rest = s[1 : len(s)-1]
	}
	for i := range 16 {
		if len(rest) < 2 || hexValue[rest[0]]|hexValue[rest[1]] < 0 {
			return dst, bad(s)
		}
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hexDigit[hexValue[rest[0]]], hexDigit[hexValue[rest[1]]])
		rest = rest[2:]
		if len(rest) > 0 && rest[0] == '-' && i%2 == 1 && i < 15 {
			rest = rest[1:]
		}
	}
	if len(rest) > 0 {
		return dst, bad(s)
	}
	return dst, nil
}

func refuseUUID(s []byte) error {
	return refuse(codeInvalidValue, "%q is not a UUID.", piece(s))
}

// appendBytea reads \x and pairs of digits; other forms are for Postgres.
func appendBytea(dst, s []byte) ([]byte, error) {
	if len(s) < 2 || s[0] != '\\' || s[1] != 'x' || len(s)%2 != 0 {
		return dst, ErrJudge
	}
	dst = append(dst, '\\', 'x')
	for _, c := range s[2:] {
		if hexValue[c] < 0 {
			return dst, ErrJudge
		}
		dst = append(dst, hexDigit[hexValue[c]])
	}
	return dst, nil
}
