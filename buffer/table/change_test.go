package table

import (
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestAddDecimal(t *testing.T) {
	for _, c := range [][3]string{
		{"1", "2", "3"}, {"-1", "1", "0"}, {"0.10", "0.20", "0.30"}, {"1.5", "-2", "-0.5"}, {"-0.005", "0.001", "-0.004"},
		{"9007199254740993", "1", "9007199254740994"}, {"0.10000000000000000001", "1", "1.10000000000000000001"},
		{"9.99", "0.01", "10.00"}, {"-10.00", "0.01", "-9.99"}, {"NaN", "1", "NaN"}, {"Infinity", "-5", "Infinity"}, {"Infinity", "-Infinity", "NaN"},
	} {
		require.Equal(t, c[2], string(AddDecimal([]byte(c[0]), []byte(c[1]))), "%s + %s", c[0], c[1])
		require.Equal(t, c[2], string(AddDecimal([]byte(c[1]), []byte(c[0]))), "%s + %s", c[1], c[0])
	}
}

func TestAddDecimalIsExact(t *testing.T) {
	number := rapid.StringMatching(`-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := number.Draw(t, "a"), number.Draw(t, "b")
		x, _ := new(big.Rat).SetString(a)
		y, _ := new(big.Rat).SetString(b)
		got, ok := new(big.Rat).SetString(string(AddDecimal([]byte(a), []byte(b))))
		require.True(t, ok)
		require.Zero(t, got.Cmp(new(big.Rat).Add(x, y)))
	})
}

func TestChanges(t *testing.T) {
	all := []Change{{Column: 0}, {Column: 2, Add: []byte("-1.50")}, {Column: 65535, Add: []byte("7")}}
	line := AppendChanges([]byte("a\tb"), all)
	cells := ParseLine(append(line, '\n'))
	require.Len(t, cells, 3)
	got, err := ParseChanges(cells[2].Text)
	require.NoError(t, err)
	require.Equal(t, all, got)
	none, err := ParseChanges(ParseLine(AppendChanges([]byte("a"), nil))[1].Text)
	require.NoError(t, err)
	require.Empty(t, none)
	for _, bad := range []string{"x", "1,", "1=", "-1", "70000"} {
		_, err := ParseChanges([]byte(bad))
		require.ErrorIs(t, err, ErrCorruptFrame, bad)
	}
}

func TestAppendSum(t *testing.T) {
	sum := func(k Type, a, b string) string {
		out, err := k.AppendSum(nil, []byte(a), []byte(b))
		if err != nil {
			return err.(*FieldError).Code //nolint:errorlint,forcetypeassert // it must be one
		}
		return string(out)
	}
	require.Equal(t, "32767", sum(Type{Kind: KindInt2}, "32766", "1"))
	require.Equal(t, "out_of_range", sum(Type{Kind: KindInt2}, "32767", "1"))
	require.Equal(t, "out_of_range", sum(Type{Kind: KindInt8}, "9223372036854775807", "1"))
	require.Equal(t, "9223372036854775807", sum(Type{Kind: KindInt8}, "9223372036854775806", "1"))
	require.Equal(t, "-9.99", sum(Type{Kind: KindNumeric, Precision: 4, Scale: 2}, "-10.00", "0.01"))
	require.Equal(t, "out_of_range", sum(Type{Kind: KindNumeric, Precision: 4, Scale: 2}, "99.99", "0.01"))
	require.Equal(t, "0.30000000000000004", sum(Type{Kind: KindFloat8}, "0.1", "0.2"))
	require.Equal(t, "0.3", sum(Type{Kind: KindFloat4}, "0.1", "0.2"))
	require.Equal(t, "out_of_range", sum(Type{Kind: KindFloat8}, "1.7976931348623157e+308", "1e+308"))
	require.Equal(t, "not_numeric", sum(Type{Kind: KindText}, "1", "2"))
}
