package table

import (
	"math"
	"math/big"
	"strconv"
)

// appendFloat reads a number, or the names of the values that JSON cannot write.
func (t *Type) appendFloat(dst, raw []byte) ([]byte, error) {
	switch c := raw[0]; {
	case c == '"':
		s, err := unquote(raw)
		if err != nil {
			return dst, err
		}
		if name := specialNumber(s); name != "" {
			return append(dst, name...), nil
		}
		return dst, t.mismatch(raw, `a number, "NaN", "Infinity" or "-Infinity"`)
	case c != '-' && !isDigit(c):
		return dst, t.mismatch(raw, "a number")
	}
	if d, ok := parseDecimal(raw); ok && (d.tooLarge() || d.scale() > maxScale) {
		return dst, t.outOfRange(raw) // jsonb cannot hold it, not even where it is a zero
	}
	return t.appendFloatText(dst, raw, t.floatBits())
}

func (t *Type) floatBits() int {
	if t.Kind == KindFloat4 {
		return 32
	}
	return 64
}

func (t *Type) appendFloatText(dst, s []byte, bits int) ([]byte, error) {
	d, ok := parseDecimal(s)
	if !ok {
		return dst, t.mismatch(s, "a number")
	}
	f, err := strconv.ParseFloat(string(s), bits)
	if err != nil || f == 0 && !d.zero() { // a value that vanishes is an error to Postgres too
		return dst, t.outOfRange(s)
	}
	return appendShortest(dst, f, bits), nil
}

// appendShortest prints as float8out and float4out do with
// extra_float_digits=1: the shortest digits that lead back to f, with an
// exponent from 1e15 (1e6 for float4) and below 1e-4. Source: d2s.c, f2s.c.
func appendShortest(dst []byte, f float64, bits int) []byte {
	var room [32]byte
	sci := shortestDigits(room[:0], f, bits)
	mark := 1
	for sci[mark] != 'e' {
		mark++
	}
	exp, _ := strconv.Atoi(string(sci[mark+1:]))
	top := 15
	if bits == 32 {
		top = 6
	}
	if math.Signbit(f) {
		dst = append(dst, '-')
	}
	if f != 0 && (exp < -4 || exp >= top) {
		return append(dst, sci...)
	}
	d := decimal{whole: sci[:1], exp: exp}
	if mark > 1 {
		d.frac = sci[2:mark]
	}
	var more [64]byte
	whole, frac := d.expand(more[:0])
	return appendDigits(dst, false, whole, frac)
}

// shortestDigits gives |f| as d.ddde±dd. Postgres takes digits only from within
// the interval of numbers that round to f; strconv also takes its bounds, which
// belong to it when the mantissa is even (1e23 is such a bound).
func shortestDigits(dst []byte, f float64, bits int) []byte {
	f = math.Abs(f)
	dst = strconv.AppendFloat(dst, f, 'e', -1, bits)
	// Only a whole number of few digits can be a bound: beyond 2^53 (2^24) all
	// are whole, and beyond 17 digits × 5^23 none has few digits.
	low, high := float64(1<<53), 1e40
	if bits == 32 {
		low, high = 1<<24, 1e20
	}
	if f < low || f > high {
		return dst
	}
	return insideBounds(dst, f, bits)
}

// insideBounds replaces digits that lie on a bound of f's interval.
func insideBounds(sci []byte, f float64, bits int) []byte {
	value, lower, upper := interval(f, bits)
	given, ok := new(big.Int).SetString(plainWhole(sci), 10)
	if !ok {
		return sci
	}
	given.Lsh(given, 2)
	if given.Cmp(lower) != 0 && given.Cmp(upper) != 0 {
		return sci
	}
	exact := new(big.Int).Rsh(value, 2).String()
	for n := 1; n <= len(exact); n++ {
		if best := nearest(exact, n, value, lower, upper); best != nil {
			digits := best.String()
			exp := len(digits) - 1
			for len(digits) > 1 && digits[len(digits)-1] == '0' {
				digits = digits[:len(digits)-1]
			}
			sci = append(sci[:0], digits[0])
			if len(digits) > 1 {
				sci = append(append(sci, '.'), digits[1:]...)
			}
			return strconv.AppendInt(append(sci, 'e', '+'), int64(exp), 10) // at least 15
		}
	}
	return sci
}

// interval gives four times f and the bounds of the numbers that round to it.
func interval(f float64, bits int) (value, lower, upper *big.Int) {
	next := math.Nextafter(f, math.Inf(1)) - f
	prev := f - math.Nextafter(f, 0)
	if bits == 32 {
		next = float64(math.Nextafter32(float32(f), float32(math.Inf(1)))) - f
		prev = f - float64(math.Nextafter32(float32(f), 0))
	}
	times := func(f float64, n uint) *big.Int {
		i, _ := new(big.Float).SetFloat64(f).Int(nil)
		return i.Lsh(i, n)
	}
	value = times(f, 2)
	lower = new(big.Int).Sub(value, times(prev, 1))
	upper = new(big.Int).Add(value, times(next, 1))
	return value, lower, upper
}

// nearest is the number of n digits that is nearest to the value and lies
// within the bounds, or nil. Of two as near it is the even one.
func nearest(exact string, n int, value, lower, upper *big.Int) *big.Int {
	step := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(len(exact)-n)), nil)
	head, _ := new(big.Int).SetString(exact[:n], 10)
	var best, far *big.Int
	for range 2 {
		number := new(big.Int).Mul(head, step)
		four := new(big.Int).Lsh(number, 2)
		away := new(big.Int).Sub(four, value)
		away.Abs(away)
		within := four.Cmp(lower) > 0 && four.Cmp(upper) < 0
		if within && (best == nil || away.Cmp(far) < 0 || away.Cmp(far) == 0 && head.Bit(0) == 0) {
			best, far = number, away
		}
		head.Add(head, big.NewInt(1))
	}
	return best
}

// plainWhole writes d.ddde+dd without the exponent; the number is whole.
func plainWhole(sci []byte) string {
	out, _ := appendPlain(nil, sci)
	return string(out)
}
