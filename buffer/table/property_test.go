package table_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

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
