package table

import (
	"math"
	"strconv"
)

// appendInt reads a JSON number that is whole as numeric prints it: 1e3 is,
// 1.0 is not. int8 also takes a string of plain digits.
func (t *Type) appendInt(dst, raw []byte, bits uint) ([]byte, error) {
	switch c := raw[0]; {
	case c == '"' && t.Kind == KindInt8:
		s, err := unquote(raw)
		if err != nil {
			return dst, err
		}
		return t.appendIntText(dst, s, bits)
	case c != '-' && !isDigit(c):
		return dst, t.mismatch(raw, "a whole number")
	}
	n, ok := smallInt(raw)
	if !ok {
		return t.appendIntSlow(dst, raw, bits)
	}
	if !fits(n, bits) {
		return dst, t.outOfRange(raw)
	}
	return strconv.AppendInt(dst, n, 10), nil
}

// appendIntText reads [+-]digits, and leaves to Postgres what some version of
// it takes: blanks around, 0x10, 1_000.
func (t *Type) appendIntText(dst, s []byte, bits uint) ([]byte, error) {
	digits := s
	if len(s) > 0 && (s[0] == '+' || s[0] == '-') {
		digits = s[1:]
	}
	if len(digits) == 0 || !allDigits(digits) {
		if oddNumber(s) {
			return dst, ErrJudge
		}
		return dst, refuse(codeTypeMismatch, "%q is not a whole number.", piece(s))
	}
	if len(s) > 1<<12 { // a number in any case; keep it out of the parser
		digits = trimZeros(digits)
		if len(digits) > 20 {
			return dst, t.outOfRange(s)
		}
		s = append([]byte{s[0]}, digits...)
		if isDigit(s[0]) {
			s[0] = '+'
		}
		if len(digits) == 0 {
			s = []byte("0")
		}
	}
	n, err := strconv.ParseInt(string(s), 10, 64)
	if err != nil || !fits(n, bits) {
		return dst, t.outOfRange(s)
	}
	return strconv.AppendInt(dst, n, 10), nil
}

// smallInt reads -?[0-9]{1,18}: no overflow to think of.
func smallInt(raw []byte) (n int64, ok bool) {
	digits, neg := raw, false
	if raw[0] == '-' {
		digits, neg = raw[1:], true
	}
	if len(digits) == 0 || len(digits) > 18 {
		return 0, false
	}
	for _, c := range digits {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if neg {
		n = -n
	}
	return n, true
}

// appendIntSlow reads numbers with a point, an exponent or many digits.
func (t *Type) appendIntSlow(dst, raw []byte, bits uint) ([]byte, error) {
	d, ok := parseDecimal(raw)
	if !ok {
		return dst, t.mismatch(raw, "a whole number")
	}
	if d.tooLarge() {
		return dst, t.outOfRange(raw)
	}
	if d.scale() > 0 {
		return dst, t.mismatch(raw, "a whole number")
	}
	const longest = 19 // digits of 2^63
	if !d.zero() && d.lead() > longest {
		return dst, t.outOfRange(raw)
	}
	var room [64]byte
	whole, _ := d.expand(room[:0])
	whole = trimZeros(whole)
	u, _ := strconv.ParseUint("0"+string(whole), 10, 64)
	limit := uint64(math.MaxInt64)
	if d.neg {
		limit++
	}
	if u > limit {
		return dst, t.outOfRange(raw)
	}
	n := int64(u) //nolint:gosec // for 2^63 the conversion gives -2^63, and so does negating it
	if d.neg {
		n = -n
	}
	if !fits(n, bits) {
		return dst, t.outOfRange(raw)
	}
	return strconv.AppendInt(dst, n, 10), nil
}

func fits(n int64, bits uint) bool {
	limit := int64(1) << (bits - 1) // for 64 bits this is the least int64, and every n fits
	return bits == 64 || n >= -limit && n < limit
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func allDigits(s []byte) bool {
	for _, c := range s {
		if !isDigit(c) {
			return false
		}
	}
	return true
}

func trimZeros(digits []byte) []byte {
	for len(digits) > 0 && digits[0] == '0' {
		digits = digits[1:]
	}
	return digits
}

// oddNumber reports whether s could be a number to some version of Postgres
// though it is not a plain one: it has blanks around it, or is a literal such
// as 0x10 or 1_000 (from version 16).
func oddNumber(s []byte) bool {
	if len(s) == 0 {
		return false
	}
	digit := false
	for _, c := range s {
		digit = digit || isDigit(c)
		switch {
		case isDigit(c), c == '_', c == '+', c == '-', isBlank(c), c == '.':
		case c >= 'a' && c <= 'f', c >= 'A' && c <= 'F', c == 'x', c == 'X', c == 'o', c == 'O':
		default:
			return false
		}
	}
	return digit && (isBlank(s[0]) || isBlank(s[len(s)-1]) || hasAny(s, "_xXoObB"))
}

func hasAny(s []byte, set string) bool {
	for _, c := range s {
		for i := range len(set) {
			if c == set[i] {
				return true
			}
		}
	}
	return false
}

// isBlank is isspace() in the C locale.
func isBlank(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
