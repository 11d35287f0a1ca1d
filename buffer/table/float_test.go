package table_test

import (
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
)

// TestFloatBitsEqualPostgres: random bits, whole numbers beyond the mantissa
// (where shortest digits may lie on a bound) and powers of two.
func TestFloatBitsEqualPostgres(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	random := rand.New(rand.NewPCG(1, uint64(rand.Int64())))
	for _, ty := range []*table.Type{tFloat8, tFloat4} {
		var literals []string
		for i := range 60000 {
			literals = append(literals, floatLiteral(ty, random, i))
		}
		for i, v := range o.prints(t, ty.Name, literals) {
			doc := literals[i]
			if strings.ContainsAny(doc, "NI") {
				doc = `"` + doc + `"`
			}
			got, err := ty.AppendCanonical(nil, []byte(doc))
			require.NoError(t, err, doc)
			require.Equal(t, v.text, string(got), "%s %s", ty.Name, doc)
			require.Equal(t, v.json, string(ty.AppendJSON(nil, got)), "%s %s", ty.Name, doc)
		}
	}
}

func floatLiteral(ty *table.Type, random *rand.Rand, i int) string {
	bits := random.Uint64()
	if ty.Kind == table.KindFloat8 {
		switch i % 5 {
		case 4: // few binary places: in the middle between two candidates
			return strconv.FormatFloat(float64(random.Uint64N(1<<53)>>random.IntN(53)+1)/float64(uint64(1)<<random.IntN(40)), 'f', -1, 64)
		case 1: // 2^53 … 1e40
			bits = bits&(1<<52-1) | uint64(1023+53+random.IntN(82))<<52
		case 2: // short numbers, which lie on bounds
			return strconv.FormatInt(random.Int64N(1e5), 10) + "e" + strconv.Itoa(random.IntN(330)-320)
		case 3:
			bits = uint64(random.IntN(2047))<<52 | uint64(random.IntN(3))
		}
		f := math.Float64frombits(bits)
		if f == 0 {
			f = 1
		}
		return name(strconv.FormatFloat(f, 'g', 17, 64))
	}
	low := uint32(bits)
	switch i % 5 {
	case 4:
		return strconv.FormatFloat(float64(random.Uint32N(1<<24)>>random.IntN(24)+1)/float64(uint64(1)<<random.IntN(40)), 'f', -1, 64)
	case 1: // 2^24 … 1e20
		low = low&(1<<23-1) | uint32(127+24+random.IntN(44))<<23
	case 2:
		return strconv.FormatInt(random.Int64N(1e4)+1, 10) + "e" + strconv.Itoa(random.IntN(70)-40)
	case 3:
		low = uint32(random.IntN(255))<<23 | uint32(random.IntN(3))
	}
	f := math.Float32frombits(low)
	if f == 0 {
		f = 1
	}
	return name(strconv.FormatFloat(float64(f), 'g', 9, 32))
}

// name gives Postgres' names to Go's special values.
func name(s string) string {
	return map[string]string{"NaN": "NaN", "+Inf": "Infinity", "-Inf": "-Infinity"}[s] + strings.NewReplacer("NaN", "", "+Inf", "", "-Inf", "").Replace(s)
}
