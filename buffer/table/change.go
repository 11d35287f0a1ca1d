package table

import (
	"bytes"
	"math/big"
	"strconv"
)

// A row that changes a key carries the whole new row, for readers, and after it
// one more field that says what changed, for the flush: the positions of the
// changed columns among those of the frame, from 0, divided by commas. "4" is a
// column that is set to its value in the row, "2=-1.50" one that -1.50 was
// added to. So what others change in Postgres meanwhile is not overwritten.
//
// Behind a semicolon stands the base, when the change was computed on a row that
// lay in the log: the id of that row, or nothing when it is the row right before
// this one. A change whose base became a dead letter cannot be applied without it.

// Change is one column that a patch or an increment changes.
type Change struct {
	Column int    // position among the columns of the frame
	Add    []byte // what is added, as decimal text; nil: the column is set
}

// AppendChanges appends a tab and the field of changes to a line that has no
// newline yet.
func AppendChanges(line []byte, changes []Change) []byte {
	line = append(line, '\t')
	for i, c := range changes {
		if i > 0 {
			line = append(line, ',')
		}
		line = strconv.AppendInt(line, int64(c.Column), 10)
		if c.Add != nil {
			line = append(append(line, '='), c.Add...)
		}
	}
	return line
}

// ParseChanges reads the field. Texts are slices of it.
func ParseChanges(field []byte) ([]Change, error) {
	field, _, _ = bytes.Cut(field, []byte{';'})
	if len(field) == 0 {
		return nil, nil
	}
	changes := make([]Change, 0, bytes.Count(field, []byte{','})+1)
	for item := range bytes.SplitSeq(field, []byte{','}) {
		position, add, adds := bytes.Cut(item, []byte{'='})
		n, err := strconv.ParseUint(string(position), 10, 16)
		if err != nil || adds && len(add) == 0 {
			return nil, ErrCorruptFrame
		}
		c := Change{Column: int(n)}
		if adds {
			c.Add = add
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// Base is how a field of changes ends that was computed on the row with an id;
// the zero ID stands for the row right before it.
func Base(on ID) string {
	if on == (ID{}) {
		return ";"
	}
	return ";" + on.String()
}

// BaseOf reads of the row id, a change whose line is given, which row it was
// computed on. ok is false when that was not in the log, or is not known.
func BaseOf(line []byte, id ID) (base ID, ok bool) {
	line = bytes.TrimSuffix(line, []byte{'\n'})
	text := baseOf(line[bytes.LastIndexByte(line, '\t')+1:])
	switch len(text) {
	case 0:
		return ID{}, false
	case 1:
		return ID{Epoch: id.Epoch, Seq: id.Seq - 1}, true
	}
	base, err := ParseID(string(text[1:]))
	return base, err == nil
}

// baseOf is the base in a field of changes, with its semicolon.
func baseOf(field []byte) []byte {
	if i := bytes.IndexByte(field, ';'); i >= 0 {
		return field[i:]
	}
	return nil
}

// Changes reports whether rows of the operation carry a field of changes.
func (o Op) Changes() bool { return o == OpPatch || o == OpIncrement }

// AddDecimal adds two numbers as Postgres adds numerics: exactly, with the
// longer of their fractions. They are canonical texts of integers or numerics.
func AddDecimal(a, b []byte) []byte {
	if special := addSpecial(string(a), string(b)); special != "" {
		return []byte(special)
	}
	x, xs := unscaled(a)
	y, ys := unscaled(b)
	scale := max(xs, ys)
	sum := new(big.Int).Add(raise(x, scale-xs), raise(y, scale-ys))
	neg := sum.Sign() < 0
	digits := sum.Abs(sum).Text(10)
	if len(digits) <= scale {
		digits = string(bytes.Repeat([]byte{'0'}, scale-len(digits)+1)) + digits
	}
	out := make([]byte, 0, len(digits)+2)
	if neg {
		out = append(out, '-')
	}
	out = append(out, digits[:len(digits)-scale]...)
	if scale > 0 {
		out = append(append(out, '.'), digits[len(digits)-scale:]...)
	}
	return out
}

// addSpecial is the sum when one of the numbers is NaN or infinite, else "".
func addSpecial(a, b string) string {
	special := func(s string) bool { return s == "NaN" || s == "Infinity" || s == "-Infinity" }
	switch {
	case !special(a) && !special(b):
		return ""
	case a == "NaN" || b == "NaN" || special(a) && special(b) && a != b:
		return "NaN"
	case special(a):
		return a
	}
	return b
}

// unscaled is the number without its point, and how many digits were after it.
func unscaled(text []byte) (n *big.Int, scale int) {
	whole, fraction, _ := bytes.Cut(text, []byte{'.'})
	n, ok := new(big.Int).SetString(string(whole)+string(fraction), 10)
	if !ok {
		n = new(big.Int) // not a canonical text; the types' own checks come before
	}
	return n, len(fraction)
}

func raise(n *big.Int, digits int) *big.Int {
	if digits == 0 {
		return n
	}
	return new(big.Int).Mul(n, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil))
}

// Countable reports whether values of the type can be added to: integers,
// numeric, floats, and domains over them.
func (t *Type) Countable() bool {
	switch t.bottom().Kind {
	case KindInt2, KindInt4, KindInt8, KindNumeric, KindFloat4, KindFloat8:
		return true
	}
	return false
}

// Exact reports whether sums of a countable type do not depend on their order:
// not those of floats.
func (t *Type) Exact() bool {
	k := t.bottom().Kind
	return k != KindFloat4 && k != KindFloat8
}

// AppendSum appends the canonical text of value + delta, both canonical. The
// error is a *FieldError when the type cannot hold the sum.
func (t *Type) AppendSum(dst, value, delta []byte) ([]byte, error) {
	b := t.bottom()
	var out []byte
	var err error
	switch b.Kind {
	case KindInt2:
		out, err = b.appendIntText(dst, AddDecimal(value, delta), 16)
	case KindInt4:
		out, err = b.appendIntText(dst, AddDecimal(value, delta), 32)
	case KindInt8:
		out, err = b.appendIntText(dst, AddDecimal(value, delta), 64)
	case KindNumeric:
		out, err = b.appendNumericText(dst, AddDecimal(value, delta))
	case KindFloat4, KindFloat8:
		out, err = b.appendFloatSum(dst, value, delta)
	default:
		return dst, refuse("not_numeric", "The column is of type %s, to which nothing can be added.", t.Name)
	}
	if err != nil {
		return dst, ownError(err)
	}
	return out, nil
}

// appendFloatSum adds in the column's own precision, as Postgres does.
func (t *Type) appendFloatSum(dst, value, delta []byte) ([]byte, error) {
	bits := t.floatBits()
	x, err1 := strconv.ParseFloat(string(value), bits)
	y, err2 := strconv.ParseFloat(string(delta), bits)
	if err1 != nil || err2 != nil {
		return dst, refuse(codeOutOfRange, "The sum is out of the range of %s.", t.Name)
	}
	sum := x + y
	if bits == 32 {
		sum = float64(float32(x) + float32(y))
	}
	text := strconv.AppendFloat(nil, sum, 'g', -1, bits)
	if name := specialNumber(text); name != "" {
		if name != string(value) && name != "NaN" { // it was finite before
			return dst, refuse(codeOutOfRange, "The sum is out of the range of %s.", t.Name)
		}
		return append(dst, name...), nil
	}
	return t.appendFloatText(dst, text, bits)
}
