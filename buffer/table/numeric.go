package table

import "bytes"

// Limits of numeric. Source: PostgreSQL documentation, "Numeric Types", and
// numeric.c (make_result, set_var_from_str).
const (
	maxWhole    = 131072    // digits before the point
	maxScale    = 16383     // digits after the point
	maxExponent = 1<<30 - 1 // INT_MAX/2: anything from here on overflows, even 0e…
)

// decimal is a number as it was written: whole.frac × 10^exp, |exp| capped at maxExponent.
type decimal struct {
	neg         bool
	whole, frac []byte
	exp         int
}

// parseDecimal reads [+-]digits[.digits][e[+-]digits], at least one digit
// before the exponent. That is the grammar of numeric_in; JSON's lies within.
func parseDecimal(s []byte) (d decimal, ok bool) {
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		d.neg = s[0] == '-'
		s = s[1:]
	}
	n := digitsOf(s)
	d.whole, s = s[:n], s[n:]
	if len(s) > 0 && s[0] == '.' {
		n = digitsOf(s[1:])
		d.frac, s = s[1:1+n], s[1+n:]
	}
	if len(d.whole)+len(d.frac) == 0 {
		return d, false
	}
	if len(s) == 0 {
		return d, true
	}
	if s[0] != 'e' && s[0] != 'E' {
		return d, false
	}
	d.exp, ok = parseExponent(s[1:])
	return d, ok
}

func digitsOf(s []byte) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

func parseExponent(s []byte) (exp int, ok bool) {
	neg := false
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		neg = s[0] == '-'
		s = s[1:]
	}
	if len(s) == 0 || !allDigits(s) {
		return 0, false
	}
	for _, c := range s {
		exp = min(exp*10+int(c-'0'), maxExponent)
	}
	if neg {
		exp = -exp
	}
	return exp, true
}

// scale is the number of digits after the point that numeric keeps.
func (d *decimal) scale() int { return max(0, len(d.frac)-d.exp) }

func (d *decimal) zero() bool {
	return len(trimZeros(d.whole)) == 0 && len(trimZeros(d.frac)) == 0
}

// lead is the place of the first digit that is not 0: n digits before the
// point, or for 0 and less, -n zeros after it. Not for zero.
func (d *decimal) lead() int {
	if sig := trimZeros(d.whole); len(sig) > 0 {
		return len(sig) + d.exp
	}
	return len(trimZeros(d.frac)) - len(d.frac) + d.exp
}

// tooLarge reports whether numeric cannot hold the digits before the point.
func (d *decimal) tooLarge() bool {
	return d.exp >= maxExponent || d.exp <= -maxExponent || !d.zero() && d.lead() > maxWhole
}

// expand carries out the exponent: the digits before and after the point, the
// latter cut off after maxScale+2, where they no longer change a rounding.
// room is used when digits must be moved. Not for a number that is tooLarge.
func (d *decimal) expand(room []byte) (whole, frac []byte) {
	if d.exp == 0 {
		return d.whole, d.frac
	}
	digits, point := append(append(room, d.whole...), d.frac...), len(d.whole)+d.exp
	if d.exp > 0 {
		for lead := 0; lead < len(digits) && digits[lead] == '0' && point > 0; { // 0.0001e5: drop what would pad
			digits, point = digits[1:], point-1
		}
		if len(digits) == 0 {
			return nil, nil
		}
	}
	switch {
	case point >= len(digits):
		return appendZeros(digits, point-len(digits)), nil
	case point >= 0:
		return digits[:point:point], digits[point:]
	}
	zeros := min(-point, maxScale+2)
	frac = append(appendZeros(make([]byte, 0, zeros+len(digits)), zeros), digits...)
	return nil, frac[:min(len(frac), max(d.scale(), 0), maxScale+2)]
}

func appendZeros(dst []byte, n int) []byte {
	for ; n > 0; n-- {
		dst = append(dst, '0')
	}
	return dst
}

// appendNumeric reads a number, or a string that holds one. A number takes the
// way through jsonb, which checks the limits before the modifier applies; a
// string is rounded first.
func (t *Type) appendNumeric(dst, raw []byte) ([]byte, error) {
	switch c := raw[0]; {
	case c == '"':
		s, err := unquote(raw)
		if err != nil {
			return dst, err
		}
		return t.appendNumericText(dst, s)
	case c != '-' && !isDigit(c):
		return dst, t.mismatch(raw, "a number")
	}
	d, ok := parseDecimal(raw)
	if !ok {
		return dst, t.mismatch(raw, "a number")
	}
	if d.scale() > maxScale {
		return dst, t.outOfRange(raw)
	}
	return t.appendDecimal(dst, d, raw)
}

func (t *Type) appendNumericText(dst, s []byte) ([]byte, error) {
	if name := specialNumber(s); name != "" {
		if name != "NaN" && t.Precision > 0 {
			return dst, refuse(codeOutOfRange, "A column of type %s cannot hold an infinite value.", t.Name)
		}
		return append(dst, name...), nil
	}
	d, ok := parseDecimal(s)
	if !ok {
		if oddNumber(s) {
			return dst, ErrJudge
		}
		return dst, refuse(codeTypeMismatch, "%q is not a number.", piece(s))
	}
	if t.Precision == 0 && d.scale() > maxScale {
		return dst, t.outOfRange(s)
	}
	return t.appendDecimal(dst, d, s)
}

// specialNumber gives the server's name of a number that JSON cannot write.
func specialNumber(s []byte) string {
	if len(s) < 3 || len(s) > len("-infinity") {
		return ""
	}
	switch string(bytes.ToLower(s)) {
	case "nan":
		return "NaN"
	case "infinity", "+infinity", "inf", "+inf":
		return "Infinity"
	case "-infinity", "-inf":
		return "-Infinity"
	}
	return ""
}

// appendDecimal applies numeric(p,s) and prints.
func (t *Type) appendDecimal(dst []byte, d decimal, raw []byte) ([]byte, error) {
	if d.tooLarge() {
		return dst, t.outOfRange(raw)
	}
	var room, rounded [64]byte
	whole, frac := d.expand(room[:0])
	if t.Precision > 0 {
		whole, frac = roundDigits(rounded[:0], whole, frac, t.Scale)
		if !withinPrecision(whole, frac, t.Precision-t.Scale) {
			return dst, refuse(codeOutOfRange, "%s has too many digits before the point for type %s.", piece(raw), t.Name)
		}
	}
	dst = appendDigits(dst, d.neg, whole, frac)
	if t.Precision > 0 && len(frac) < t.Scale {
		if len(frac) == 0 {
			dst = append(dst, '.')
		}
		dst = appendZeros(dst, t.Scale-len(frac))
	}
	return dst, nil
}

// roundDigits rounds half away from zero to scale digits after the point; a
// negative scale rounds before it.
func roundDigits(room, whole, frac []byte, scale int) (w, f []byte) {
	if scale >= 0 && len(frac) <= scale {
		return whole, frac
	}
	digits := append(append(append(room, '0'), whole...), frac...)
	keep := 1 + len(whole) + scale
	if keep < 1 {
		return nil, nil
	}
	up := keep < len(digits) && digits[keep] >= '5'
	for i := keep - 1; up; i-- {
		if up = digits[i] == '9'; up {
			digits[i] = '0'
		} else {
			digits[i]++
		}
	}
	if scale >= 0 {
		return digits[:keep-scale], digits[keep-scale : keep]
	}
	for i := keep; i < 1+len(whole); i++ {
		digits[i] = '0'
	}
	return digits[:1+len(whole)], nil
}

// withinPrecision: at most n digits before the point, and for n below zero
// that many zeros after it.
func withinPrecision(whole, frac []byte, n int) bool {
	d := decimal{whole: whole, frac: frac}
	return d.zero() || d.lead() <= n
}

// appendDigits prints as numeric_out does: no sign of zero, one 0 before a bare point.
func appendDigits(dst []byte, neg bool, whole, frac []byte) []byte {
	whole = trimZeros(whole)
	if neg && (len(whole) > 0 || len(trimZeros(frac)) > 0) {
		dst = append(dst, '-')
	}
	if len(whole) == 0 {
		dst = append(dst, '0')
	}
	dst = append(dst, whole...)
	if len(frac) > 0 {
		dst = append(append(dst, '.'), frac...)
	}
	return dst
}

// appendPlain appends a number as jsonb prints it, which is as numeric does.
// ok is false when numeric cannot hold it.
func appendPlain(dst, number []byte) (out []byte, ok bool) {
	d, ok := parseDecimal(number)
	if !ok || d.tooLarge() || d.scale() > maxScale {
		return dst, false
	}
	var room [64]byte
	whole, frac := d.expand(room[:0])
	return appendDigits(dst, d.neg, whole, frac), true
}
