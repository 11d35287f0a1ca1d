package table_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/headpond/headpond/buffer/table"
)

// compare draws batches of documents for one of the types and compares each
// verdict with the server's.
func compare(t *testing.T, types []*table.Type, size int, draw *rapid.Generator[string]) {
	t.Helper()
	t.Parallel()
	o := newOracle(t)
	rapid.Check(t, func(rt *rapid.T) {
		ty := rapid.SampledFrom(types).Draw(rt, "type")
		docs := rapid.SliceOfN(draw, 1, size).Draw(rt, "docs")
		for i, v := range o.judge(rt, ty.Name, via(ty), docs) {
			check(rt, ty, docs[i], v)
		}
	})
}

func digitString(most int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return rapid.StringOfN(rapid.RuneFrom([]rune("0123456789099995555000")), 0, most, -1).Draw(t, "digits")
	})
}

// numbers are JSON numbers of every shape, often near a rounding.
func numbers() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		whole := strings.TrimLeft(digitString(22).Draw(t, "whole"), "0")
		if whole == "" {
			whole = "0"
		}
		s := rapid.SampledFrom([]string{"", "-"}).Draw(t, "sign") + whole
		if frac := digitString(22).Draw(t, "frac"); frac != "" {
			s += "." + frac
		}
		if rapid.Bool().Draw(t, "exponent") {
			s += fmt.Sprintf("e%+d", rapid.IntRange(-30, 30).Draw(t, "exp"))
		}
		return s
	})
}

func TestNumbersEqualPostgres(t *testing.T) {
	types := []*table.Type{
		tInt2, tInt4, tInt8, tFloat4, tFloat8, tNumeric, tJSONB, tJSON,
		numeric(5, 2), numeric(12, 2), numeric(3, 0), numeric(3, -2), numeric(2, 5), numeric(38, 10), numeric(1000, 500), numeric(1, 1),
	}
	compare(t, types, 200, numbers())
}

func TestNumberStringsEqualPostgres(t *testing.T) {
	odd := rapid.Custom(func(t *rapid.T) string {
		s := rapid.OneOf(numbers(), rapid.StringOfN(rapid.RuneFrom([]rune("0123456789+-.eE xX_naifty")), 0, 12, -1)).Draw(t, "s")
		return strconv.Quote(rapid.SampledFrom([]string{"", "+", "-", "00", " "}).Draw(t, "head") + s)
	})
	compare(t, []*table.Type{tInt8, tNumeric, numeric(12, 2), numeric(3, -2)}, 200, odd)
}

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

// texts are strings over all of Unicode but NUL, with what matters to escapes
// and arrays more often.
func texts() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		runes := rapid.OneOf(
			rapid.RuneFrom([]rune("ab ,{}\"\\\t\n\x0b/é😀NUL")), rapid.RuneFrom([]rune{1, 8, 12, 31, 127, 128, 0x2028, 0xd7ff, 0xe000, 0xfffd, 0xffff, 0x10ffff}),
			rapid.Map(rapid.Int32Range(1, 0x10ffff), func(r int32) rune {
				if r >= 0xd800 && r < 0xe000 {
					return 'x'
				}
				return r
			}))
		return rapid.StringOfN(runes, 0, 12, -1).Draw(t, "text")
	})
}

// quotedText writes a string with random choices among JSON's escapes.
func quotedText() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string { return quoteRandomly(t, texts().Draw(t, "text")) })
}

func quoteRandomly(t *rapid.T, s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		must := r < ' ' || r == '"' || r == '\\'
		switch {
		case !must && rapid.IntRange(0, 3).Draw(t, "plain") > 0:
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\u%04X\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func TestStringsEqualPostgres(t *testing.T) {
	compare(t, []*table.Type{
		tText, tVarchar, sized(table.KindVarchar, "character varying", 5), sized(table.KindBpchar, "character", 5), tJSONB, tJSON,
	}, 100, quotedText())
}

// documents are JSON values nested up to five levels.
func documents(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		most := 7
		if depth == 0 {
			most = 4
		}
		blank := rapid.SampledFrom([]string{"", "", " ", "\n\t"}).Draw(t, "blank")
		switch rapid.IntRange(0, most).Draw(t, "kind") {
		case 0:
			return rapid.SampledFrom([]string{"true", "false", "null", "0", "-0", "[]", "{}"}).Draw(t, "word")
		case 1, 2:
			return numbers().Draw(t, "number")
		case 3, 4:
			return quotedText().Draw(t, "string")
		case 5:
			items := rapid.SliceOfN(documents(depth-1), 0, 4).Draw(t, "items")
			return "[" + blank + strings.Join(items, blank+","+blank) + blank + "]"
		}
		keys := rapid.SliceOfNDistinct(rapid.OneOf(texts(), rapid.SampledFrom([]string{"a", "b", "aa", "ab", "", "ä", "z", "A"})), 0, 20, rapid.ID[string]).Draw(t, "keys")
		members := make([]string, len(keys))
		for i, k := range keys {
			members[i] = quoteRandomly(t, k) + blank + ":" + blank + documents(depth-1).Draw(t, "value")
		}
		return "{" + blank + strings.Join(members, ","+blank) + blank + "}"
	})
}

func TestDocumentsEqualPostgres(t *testing.T) {
	notNull := rapid.Custom(func(t *rapid.T) string {
		if doc := documents(4).Draw(t, "doc"); doc != "null" {
			return doc
		}
		return "{}"
	})
	compare(t, []*table.Type{tJSONB, tJSON, arrayOf(tJSONB)}, 20, notNull)
}

// moments are dates and times in and around the native forms.
func moments() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		sep := rapid.SampledFrom([]string{"-", "-", "/"}).Draw(t, "sep")
		year := rapid.OneOf(rapid.IntRange(0, 9999), rapid.IntRange(1995, 2030), rapid.SampledFrom([]int{0, 1, 9999})).Draw(t, "year")
		s := fmt.Sprintf("%04d%s%02d%s%02d", year, sep, rapid.IntRange(0, 13).Draw(t, "month"), sep, rapid.IntRange(0, 32).Draw(t, "day"))
		if rapid.IntRange(0, 5).Draw(t, "time") == 0 {
			return `"` + s + `"`
		}
		s += rapid.SampledFrom([]string{"T", " "}).Draw(t, "T")
		s += fmt.Sprintf("%02d:%02d", rapid.IntRange(0, 25).Draw(t, "hour"), rapid.IntRange(0, 60).Draw(t, "minute"))
		if rapid.IntRange(0, 5).Draw(t, "seconds") > 0 {
			s += fmt.Sprintf(":%02d", rapid.IntRange(0, 61).Draw(t, "second"))
			if rapid.Bool().Draw(t, "fraction") {
				s += "." + rapid.StringOfN(rapid.RuneFrom([]rune("0123456789559900")), 1, 10, -1).Draw(t, "digits")
			}
		}
		zone := rapid.SampledFrom([]string{"", "Z", "Z", "Z", "+00", "-00:00", "x"}).Draw(t, "zone")
		if zone == "x" {
			zone = fmt.Sprintf("%s%02d", rapid.SampledFrom([]string{"+", "-"}).Draw(t, "sign"), rapid.IntRange(0, 16).Draw(t, "h"))
			zone += rapid.SampledFrom([]string{"", ":30", "45", ":30:15", ":60"}).Draw(t, "m")
		}
		return `"` + s + zone + `"`
	})
}

func TestMomentsEqualPostgres(t *testing.T) {
	types := []*table.Type{tDate, tTimestamp, tTimestamz}
	for p := range 7 {
		types = append(types, digits(table.KindTimestamp, "timestamp(%d) without time zone", p),
			digits(table.KindTimestamptz, "timestamp(%d) with time zone", p))
	}
	compare(t, types, 200, moments())
}

func TestArraysEqualPostgres(t *testing.T) {
	item := rapid.OneOf(rapid.Just("null"), numbers(), quotedText(), moments(), rapid.SampledFrom([]string{"true", "1", "2", `"sad"`, `"NULL"`, "{}"}))
	var array func(depth int) *rapid.Generator[string]
	array = func(depth int) *rapid.Generator[string] {
		return rapid.Custom(func(t *rapid.T) string {
			of := item
			if depth > 0 && rapid.Bool().Draw(t, "nest") {
				of = array(depth - 1)
			} else if rapid.Bool().Draw(t, "alike") {
				of = rapid.SampledFrom([]*rapid.Generator[string]{numbers(), quotedText(), moments(), rapid.Just("1"), rapid.Just("true")}).Draw(t, "of")
			}
			return "[" + strings.Join(rapid.SliceOfN(of, 0, 3).Draw(t, "items"), ",") + "]"
		})
	}
	compare(t, []*table.Type{
		arrayOf(tInt4), arrayOf(tText), arrayOf(tFloat8), arrayOf(tNumeric), arrayOf(numeric(12, 2)), arrayOf(tTimestamp), arrayOf(tBool),
		arrayOf(tMood), arrayOf(tJSONB), arrayOf(sized(table.KindBpchar, "character", 5)),
	}, 50, array(3))
}

// TestJSONEqualsToJSONB: texts of values that only Postgres makes.
func TestJSONEqualsToJSONB(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	for _, c := range []struct {
		ty       *table.Type
		literals []string
	}{
		{tBool, []string{"t", "f"}},
		{tFloat8, []string{"-0", "NaN", "-Infinity", "1e20", "1e-7", "1e308", "5e-324"}},
		{tNumeric, []string{"NaN", "Infinity", "-Infinity", "1.500", "-0.0"}},
		{tDate, []string{"infinity", "-infinity", "0044-03-15 BC", "5874897-12-31", "12345-01-01"}},
		{tTimestamp, []string{"infinity", "0044-03-15 12:30:00.5 BC", "294276-12-31 23:59:59.999999", "0001-01-01"}},
		{tTimestamz, []string{"infinity", "-infinity", "0044-03-15 12:30:00.5+00 BC", "294276-12-31 23:59:59.999999+00", "2026-01-01 00:00+05:30"}},
		{tJSON, []string{`{"b": 1,  "a": 1.50, "b": [1e2, {"x":"\u00e9\/"}]}`, ` [ ] `, `"\u001f"`, `{"a":1,"aa":1,"a":2,"b":3,"aa":{}}`}},
		{tJSONB, []string{`{"b": 1,  "a": 1.50}`, `[]`, `"x"`, `null`}},
		{tBytea, []string{`\x00ff`, `abc`, ``}},
		{tInet, []string{"10.0.0.1", "::1/64"}}, {tInterval, []string{"1 day 02:03:04.5", "-1 mon"}}, {tMoney, []string{"12.5"}},
		{plain(table.KindOther, "int4range"), []string{"[1,5)", "empty"}}, {plain(table.KindOther, "oid"), []string{"42"}},
		{plain(table.KindOther, "bit varying"), []string{"0101"}}, {plain(table.KindOther, "time with time zone"), []string{"12:00+02"}},
		{tWords, []string{`{a,"b c",NULL,"NULL"}`}}, {domain("price", numeric(6, 2)), []string{"1.5"}}, {domain("positive", tInt4), []string{"7"}},
		{arrayOf(tInt4), []string{"{}", "[2:3]={1,2}", "[0:1][-1:0]={{1,2},{3,NULL}}", "{{{1}},{{2}}}"}},
		{arrayOf(tText), []string{`{"",null,"null","a\"b","a\\b","{x}",é,"a b"}`}},
		{arrayOf(tTimestamz), []string{`{2026-01-01 00:00+00,infinity}`}},
		{arrayOf(tJSONB), []string{`{"{\"b\":1,\"a\":[1,\"x\"]}","null"}`}}, {arrayOf(tBytea), []string{`{"\\x00ff"}`}},
		{arrayOf(domain("positive", tInt4)), []string{"{1,NULL}"}},
		{tSpot, []string{`(1,two,3.14159)`, `(,,)`, `(1,"",)`, `(1,"q,""(\\ )",2)`, `(1," x ",)`}},
		{arrayOf(tSpot), []string{`{"(1,\"a \"\"b\",2.5)",NULL}`}},
		{tNest, []string{`(1,"(2,""x,\\""y"",1.5)","{a,""b c"",NULL}","{""k"": [1, ""\\""""]}")`, `(,,,)`, `(5,"(,,)",{},null)`}},
	} {
		for i, v := range o.prints(t, c.ty.Name, c.literals) {
			assert.Equal(t, v.json, string(c.ty.AppendJSON(nil, []byte(v.text))), "%s %s", c.ty.Name, c.literals[i])
		}
	}
}

// TestCompositesEqualToJSONB: any strings inside records and arrays of records.
func TestCompositesEqualToJSONB(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	rapid.Check(t, func(rt *rapid.T) {
		var docs []string
		for range 30 {
			inner, _ := json.Marshal(map[string]any{"x": 1, "label": texts().Draw(rt, "label")})
			tag, _ := json.Marshal(texts().Draw(rt, "tag"))
			docs = append(docs, fmt.Sprintf(`{"id":2,"at":%s,"tags":[%s,null],"doc":{%s:%s}}`, inner, tag, tag, inner))
		}
		for i, v := range o.judge(rt, "nest", "jsonb", docs) {
			require.Empty(rt, v.state, docs[i])
			require.Equal(rt, v.json, string(tNest.AppendJSON(nil, []byte(v.text))), docs[i])
		}
	})
}

// TestHugeNumerics: the limits of numeric, digit by digit.
func TestHugeNumerics(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	nines := strings.Repeat("9", 131072)
	docs := []string{
		nines, nines + "9", "0." + strings.Repeat("0", 16382) + "1", "0." + strings.Repeat("0", 16383) + "1", nines + ".4", nines + ".5",
		"1e131071", "10e131071", "0.1e131072", "1e-16383", "1e-16384", "-" + nines + "." + strings.Repeat("7", 16383),
	}
	for _, ty := range []*table.Type{tNumeric, tJSONB, numeric(1000, 0), numeric(5, 2), tInt8, tFloat8} {
		for i, v := range o.judge(t, ty.Name, "jsonb", docs) {
			check(t, ty, docs[i], v)
			if ty == tNumeric {
				quoted := `"` + docs[i] + `"`
				check(t, ty, quoted, o.judge(t, ty.Name, "jsonb", []string{quoted})[0])
			}
		}
	}
}

func FuzzAppendJSON(f *testing.F) {
	for _, seed := range []string{`{1,"a b",NULL}`, `(1,"x""y",)`, `[2:3]={1,2}`, `{"a":1}`, `2026-01-02 03:04:05+00`, `(1,"(2,a,)",{},)`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, ty := range []*table.Type{arrayOf(tText), arrayOf(tInt4), tSpot, tNest, tJSON, tTimestamz, tNumeric, arrayOf(tNest)} {
			ty.AppendJSON(nil, []byte(text)) // whatever is in the log, no panic
		}
	})
}

func FuzzAppendCanonical(f *testing.F) {
	for _, seed := range []string{`{"b":[1,2.50,{"x":"\u00e9"}],"a":null}`, `"2026-01-02T03:04:05Z"`, `[[1],[2]]`, `1e5`, `"\ud800"`, `-`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 1<<12 {
			return
		}
		for _, ty := range allTypes() {
			text, err := ty.AppendCanonical(nil, raw)
			if err == nil && ty.Kind != table.KindJSON && json.Valid(raw) {
				require.True(t, json.Valid(ty.AppendJSON(nil, text)), "%s %q → %q", ty.Name, raw, text)
			}
		}
	})
}
