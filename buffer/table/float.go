package table

import (
	"bytes"
	"math"
	"math/big"
	mathbits "math/bits"
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

// shortestDigits gives |f| as d.ddde±dd. It differs from strconv in two ways.
// Postgres takes digits only from within the interval of numbers that round to
// f; strconv also takes its bounds, which belong to it when the mantissa is
// even (1e23 is such a bound). And where f lies in the middle between two
// candidates, Postgres takes the even one.
func shortestDigits(dst []byte, f float64, bits int) []byte {
	f = math.Abs(f)
	dst = strconv.AppendFloat(dst, f, 'e', -1, bits)
	// Only a whole number of few digits can be a bound: beyond 2^53 (2^24) all
	// are whole, and beyond 17 digits × 5^23 none has few digits.
	low, high := float64(1<<53), 1e40
	if bits == 32 {
		low, high = 1<<24, 1e20
	}
	switch {
	case f < low:
		return evenTie(dst, f, bits)
	case f > high:
		return dst
	}
	return insideBounds(dst, f, bits)
}

// evenTie replaces odd digits when f lies in the middle between them and even
// ones: f then has exactly one digit more, a 5. So it is odd × 2^-n, that is
// odd × 5^n × 10^-n, and the product must be less than 10^18.
func evenTie(sci []byte, f float64, bits int) []byte {
	mantissa, exp := math.Frexp(f)
	odd := uint64(mantissa * (1 << 53))
	zeros := mathbits.TrailingZeros64(odd)
	n := 53 - zeros - exp
	if f == 0 || n < 1 || n > 25 {
		return sci
	}
	product := odd >> zeros
	for range n {
		if product > 1e18/5 {
			return sci
		}
		product *= 5
	}
	var room [24]byte
	exact := strconv.AppendUint(room[:0], product, 10)
	mark := bytes.IndexByte(sci, 'e')
	given := mark
	if mark > 1 {
		given-- // the point
	}
	if len(exact) != given+1 || (sci[mark-1]-'0')%2 == 0 {
		return sci
	}
	var more [32]byte
	even := append(more[:0], sci...)
	if last := exact[len(exact)-2]; last == sci[mark-1] {
		even[mark-1]++ // an odd digit below 10: no carry, but 9 becomes a colon
	} else {
		even[mark-1]--
	}
	if back, err := strconv.ParseFloat(string(even), bits); err != nil || back != f {
		return sci
	}
	return append(sci[:0], even...)
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
			return append2(append(sci, 'e', '+'), exp) // 7 to 40
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
