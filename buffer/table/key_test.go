package table_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/headpond/headpond/buffer/table"
)

func keyed(types ...*table.Type) *table.Table {
	t := &table.Table{Name: "k"}
	for i, ty := range types {
		t.Columns = append(t.Columns, table.Column{Name: fmt.Sprintf("c%d", i), Type: ty, NotNull: true})
		t.Key = append([]int{i}, t.Key...) // key order is not column order
	}
	return t.Seal()
}

func rowOf(texts ...string) table.Row {
	var row table.Row
	for _, s := range texts {
		row = append(row, table.Cell{State: table.Set, Text: []byte(s)})
	}
	return row
}

func TestParseKeyPath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ty             *table.Type
		raw, cell, key string // cell is the canonical text, or ? and the JSON for Postgres, or ! and the code
	}{
		{tInt8, "42", "42", "42"}, {tInt8, "+42", "42", "42"}, {tInt8, "-0", "0", "0"}, {tInt8, "007", "7", "7"}, {tInt8, "%34%32", "42", "42"},
		{tInt4, "x", "!invalid_key", ""}, {tInt4, "1.5", "!invalid_key", ""}, {tInt4, "99999999999", "!invalid_key", ""}, {tInt2, "40000", "!invalid_key", ""},
		{tInt8, strings.Repeat("0", 5000) + "5", "5", "5"}, {tInt8, strings.Repeat("1", 5000), "!invalid_key", ""},
		{tInt8, "", "!bad_key", ""}, {tText, "", "!bad_key", ""}, {tText, "a,b", "!bad_key", ""}, {tText, "a%2Cb", "a,b", "a%2Cb"}, {tText, "a%2", "!bad_key", ""},
		{tText, "%zz", "!bad_key", ""}, {tText, "%ff", "!bad_key", ""}, {tText, "%00", "!bad_key", ""}, {tText, "%0a", "!bad_key", ""}, {tText, "%7F", "!bad_key", ""},
		{tText, "100%25", "100%", "100%25"}, {tText, "a+b", "a+b", "a+b"}, {tText, "%C3%A9%F0%9F%98%80", "é😀", "é😀"}, {tText, "a%2fb", "a/b", "a/b"}, {tText, "null", "null", "null"},
		{tText, strings.Repeat("a", 1024), strings.Repeat("a", 1024), strings.Repeat("a", 1024)}, {tText, strings.Repeat("a", 1025), "!invalid_key", ""},
		{tText, strings.Repeat("%2C", 342), "!invalid_key", ""},
		{sized(table.KindVarchar, "character varying", 3), "abcd", "!invalid_key", ""}, {sized(table.KindBpchar, "character", 5), "ab", "ab   ", "ab"},
		{tUUID, "6F9619FF8B86D011B42D00CF4FC964FF", "6f9619ff-8b86-d011-b42d-00cf4fc964ff", "6f9619ff-8b86-d011-b42d-00cf4fc964ff"}, {tUUID, "x", "!invalid_key", ""},
		{tNumeric, "1.50", "1.50", "1.5"}, {tNumeric, "100", "100", "100"}, {tNumeric, "100.00", "100.00", "100"}, {numeric(12, 2), "1.5", "1.50", "1.5"}, {tNumeric, "nan", "NaN", "NaN"}, {tNumeric, "x", "!invalid_key", ""},
		{tFloat8, "1e3", "1000", "1000"}, {tFloat8, "-0", "-0", "0"}, {tFloat8, "x", "!invalid_key", ""}, {tFloat8, "0x1p-2", "!invalid_key", ""}, {tFloat8, "1e999", "!invalid_key", ""},
		{tBool, "true", "t", "t"}, {tBool, "f", "f", "f"}, {tBool, "yes", "!invalid_key", ""},
		{tTimestamz, "2026-01-02T03:04:05+01:00", "2026-01-02 02:04:05+00", "2026-01-02 02:04:05+00"}, {tTimestamz, "2026-01-02T03:04:05", "!invalid_key", ""},
		{tDate, "2026-01-02", "2026-01-02", "2026-01-02"}, {tDate, "2026-02-30", "!invalid_key", ""}, {tDate, "Jan%202", `?"Jan 2"`, ""},
		{tInet, "10.0.0.1", `?"10.0.0.1"`, ""}, {tInet, "a%22b", `?"a\"b"`, ""}, {tMood, "sad", "sad", "sad"}, {tMood, "mad", "!invalid_key", ""},
		{tBytea, `%5Cx00FF`, `\x00ff`, `\x00ff`}, {tJSONB, `{"a":1.0}`, `{"a": 1.0}`, `{"a": 1.0}`}, {tJSONB, `x`, `!invalid_key`, ""},
		{domain("positive", tInt4), "5", `?"5"`, ""}, {domain("d", tJSONB), "5", `?5`, ""}, {domain("d", tJSONB), "x", "!invalid_key", ""},
	} {
		cells, key, bad := keyed(c.ty).ParseKeyPath(c.raw)
		about := fmt.Sprintf("%s %.60s", c.ty.Name, c.raw)
		switch {
		case bad != nil:
			assert.Equal(t, c.cell, "!"+bad.Code, "%s: %v", about, bad)
			assert.Less(t, len(bad.Detail), 300)
		case cells[0].State == table.Judge:
			assert.Equal(t, c.cell, "?"+string(cells[0].Text), about)
			assert.Nil(t, key, about)
		default:
			assert.Equal(t, c.cell, string(cells[0].Text), about)
			assert.Equal(t, c.key, string(key), about)
			tab, row := keyed(c.ty), table.Row(cells)
			assert.Equal(t, c.key, string(tab.AppendKey(nil, row)), about)
		}
	}
	two := keyed(tInt4, tText)
	cells, key, bad := two.ParseKeyPath("a%2Cb%25,7")
	require.Nil(t, bad)
	require.Equal(t, "a%2Cb%25,7", string(key))
	require.Equal(t, "a,b%", string(cells[0].Text))
	_, key, bad = two.ParseKeyPath(",7")
	require.Nil(t, bad)
	require.Equal(t, ",7", string(key))
	for raw, code := range map[string]string{"7": "bad_key", "a,7,8": "bad_key", "7,a": "invalid_key", "a,": "invalid_key"} {
		_, _, bad := two.ParseKeyPath(raw)
		require.NotNil(t, bad, raw)
		require.Equal(t, code, bad.Code, raw)
	}
}

// TestKeyRoundTrip: what PathKey writes, ParseKeyPath reads, and no two keys
// have one text.
func TestKeyRoundTrip(t *testing.T) {
	t.Parallel()
	tab := keyed(tText, tNumeric, tText)
	part := rapid.StringOfN(rapid.OneOf(rapid.RuneFrom([]rune(",%2C5 /?#&+.é😀a")), rapid.Map(rapid.Int32Range(32, 126), func(r int32) rune { return r })), 1, 8, -1)
	rapid.Check(t, func(rt *rapid.T) {
		number, err := tNumeric.AppendCanonical(nil, []byte(numbers().Draw(rt, "number")))
		if err != nil {
			rt.Skip()
		}
		a := rowOf(part.Draw(rt, "a"), string(number), part.Draw(rt, "b"))
		path := tab.PathKey(a)
		_, err = url.Parse("http://x/v1/k/" + path)
		require.NoError(rt, err)
		cells, key, bad := tab.ParseKeyPath(path)
		require.Nil(rt, bad, path)
		require.Equal(rt, string(tab.AppendKey(nil, a)), string(key))
		require.Equal(rt, string(a[0].Text), string(cells[2].Text))
		require.Equal(rt, string(a[2].Text), string(cells[0].Text))
		b := rowOf(part.Draw(rt, "c"), string(number), part.Draw(rt, "d"))
		same := string(a[0].Text) == string(b[0].Text) && string(a[2].Text) == string(b[2].Text)
		require.Equal(rt, same, string(tab.AppendKey(nil, a)) == string(tab.AppendKey(nil, b)))
	})
}

// TestEqualValuesHaveOneKey: what Postgres holds to be equal, and only that.
func TestEqualValuesHaveOneKey(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	for _, c := range []struct {
		ty    *table.Type
		texts []string
	}{
		{tNumeric, []string{"1", "1.0", "1.00", "10", "100", "0", "0.0", "0.10", "0.1", "-1.0", "NaN", "Infinity", "1e5", "100000.000"}},
		{tFloat8, []string{"0", "-0", "1", "10", "100", "1e20", "1e-7", "NaN", "1.5"}},
		{sized(table.KindBpchar, "character", 5), []string{"a", "a  ", "ab", " a"}}, {plain(table.KindBpchar, "bpchar"), []string{"a", "a  ", "ab", " a"}},
		{tText, []string{"a", "a ", "A"}}, {tInt8, []string{"1", "10"}},
	} {
		require.True(t, c.ty.KeyIsExact())
		for _, a := range c.texts {
			for _, b := range c.texts {
				var equal bool
				require.NoError(t, o.conn.QueryRow(t.Context(), fmt.Sprintf("select $1::text::%[1]s = $2::text::%[1]s", c.ty.Name), a, b).Scan(&equal))
				printed := o.prints(t, c.ty.Name, []string{a, b})
				tab := keyed(c.ty)
				keys := [2]string{string(tab.AppendKey(nil, rowOf(printed[0].text))), string(tab.AppendKey(nil, rowOf(printed[1].text)))}
				assert.Equal(t, equal, keys[0] == keys[1], "%s %s %s: %v", c.ty.Name, a, b, keys)
			}
		}
	}
	for _, ty := range []*table.Type{tInterval, tJSONB, arrayOf(tNumeric), tSpot, domain("d", tInterval)} {
		require.False(t, ty.KeyIsExact(), ty.Name)
	}
	for _, ty := range []*table.Type{arrayOf(tText), domain("d", tNumeric), tUUID, {Name: "inet", OID: 869}} {
		require.True(t, ty.KeyIsExact(), ty.Name)
	}
}

func TestLineRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		tab := keyed(tText, tText, tText)
		row := make(table.Row, 3)
		for i := range row {
			row[i] = table.Cell{State: table.Set, Text: []byte(rapid.OneOf(texts(), rapid.SampledFrom([]string{"", `\N`, `\\N`, "\\", "\t", "\n", "\r", "N"})).Draw(rt, "text"))}
			if rapid.IntRange(0, 4).Draw(rt, "null") == 0 {
				row[i] = table.Cell{State: table.Null}
			}
		}
		line := tab.AppendLine(nil, row)
		require.Equal(rt, 1, strings.Count(string(line), "\n"))
		back := table.ParseLine(line)
		require.Len(rt, back, 3)
		for i := range row {
			require.Equal(rt, row[i].State, back[i].State)
			require.Equal(rt, string(row[i].Text), string(back[i].Text))
		}
	})
}

func FuzzParseLine(f *testing.F) {
	for _, seed := range []string{"a\tb\n", `\N`, `a\tb\\`, "\\", "\t\t", `\\N`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		row := table.ParseLine(line)
		types := make([]*table.Type, len(row))
		for i := range types {
			types[i] = tText
		}
		again := table.ParseLine(keyed(types...).AppendLine(nil, row))
		require.Len(t, again, len(row))
		for i := range row {
			require.Equal(t, row[i].State, again[i].State)
			require.Equal(t, string(row[i].Text), string(again[i].Text))
		}
	})
}

func FuzzParseKeyPath(f *testing.F) {
	for _, seed := range []string{
		"a,1", "%2C,%25", "a%", ",,", "é,1e5", "1.50", "-0", "true", "6F9619FF8B86D011B42D00CF4FC964FF", "2026-01-02T03:04:05+01:00", "%5Cx00FF", `{"a":1.0}`, "sad", "{1,2}", "a%20",
	} {
		f.Add(seed)
	}
	var tabs []*table.Table
	for _, ty := range allTypes() {
		tabs = append(tabs, keyed(ty), keyed(ty, tText))
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if len(raw) > 1<<12 {
			return
		}
		for _, tab := range tabs {
			cells, key, bad := tab.ParseKeyPath(raw)
			if bad != nil {
				require.Contains(t, []string{"bad_key", "invalid_key"}, bad.Code)
				continue
			}
			if key == nil {
				judged := slices.IndexFunc(cells, func(c table.Cell) bool { return c.State == table.Judge })
				require.True(t, json.Valid(cells[judged].Text), "%s", cells[judged].Text)
				continue
			}
			row := table.Row(slices.Clone(cells))
			slices.Reverse(row) // key order is not column order
			require.Equal(t, string(key), string(tab.AppendKey(nil, row)))
			if tab.PathKey(row) == "" {
				continue // blanks in a char(n)
			}
			again, key2, bad := tab.ParseKeyPath(tab.PathKey(row))
			require.Nil(t, bad)
			require.Equal(t, string(key), string(key2))
			require.Len(t, again, len(cells))
		}
	})
}

// TestTextCell: what TestParseKeyPath cannot show.
func TestTextCell(t *testing.T) {
	t.Parallel()
	nest := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct {
		ty       *table.Type
		in, cell string // as in TestParseKeyPath
	}{
		{tText, "", ""}, {tText, "a\x00", "!nul_not_allowed"}, {tInet, "a\x00", "!nul_not_allowed"}, {tJSON, "\"a\x00\"", "!nul_not_allowed"}, {tText, "a\xff", "!invalid_utf8"}, {tInet, "\xc0\xaf", "!invalid_utf8"},
		{tText, "a\tb\r\n", "a\tb\r\n"}, {sized(table.KindVarchar, "character varying", 3), "äöüß", "!too_long"}, {tInt4, "", "!type_mismatch"}, {tInt8, "9223372036854775808", "!out_of_range"},
		{tJSON, ` {"b": 1,  "a":2} `, ` {"b": 1,  "a":2} `}, {tJSON, `{"a":1,"a":1}`, "!invalid_json"}, {tJSON, "", "!invalid_json"}, {tJSON, `"\u0000"`, "!nul_not_allowed"},
		{tJSONB, `{"bb":1,"a":2.0}`, `{"a": 2.0, "bb": 1}`}, {tJSONB, `"\ud800"`, "!invalid_json"}, {tJSONB, nest(31), nest(31)}, {tJSONB, nest(32), "!too_deep"}, {tJSON, nest(20_000), "!invalid_json"},
		{domain("d", tInt4), "x", "!type_mismatch"}, {domain("d", tTimestamz), "2026-01-02T03:04:05", "!invalid_datetime"}, {domain("d", domain("e", tInt2)), "40000", "!out_of_range"},
		{domain("d", tJSONB), nest(32), "!too_deep"}, {domain("d", tJSON), `{"a": 1}`, `?{"a": 1}`}, {domain("d", tText), `a"b`, `?"a\"b"`},
		{arrayOf(tInt4), "{1,2}", `?"{1,2}"`}, {tSpot, `(1,"a b")`, `?"(1,\"a b\")"`},
	} {
		arena := append(make([]byte, 0, 16), "before"...)
		out, cell, bad := c.ty.TextCell(arena, []byte(c.in))
		about := fmt.Sprintf("%s %.60q", c.ty.Name, c.in)
		if bad != nil {
			assert.Equal(t, c.cell, "!"+bad.Code, about)
			assert.Equal(t, "before", string(out), about)
			bad.Column = "x" // is ours to write
			_, _, again := c.ty.TextCell(arena, []byte(c.in))
			assert.Empty(t, again.Column, about)
			continue
		}
		want := map[table.CellState]string{table.Set: "", table.Judge: "?"}[cell.State] + string(cell.Text)
		assert.Equal(t, c.cell, want, about)
		assert.Equal(t, "before"+string(cell.Text), string(out), about)
		assert.NotNil(t, cell.Text, about)
		assert.Equal(t, len(cell.Text), cap(cell.Text), about)
	}
}

func TestWritableColumn(t *testing.T) {
	t.Parallel()
	c, bad := events.WritableColumn("kind")
	require.Nil(t, bad)
	require.Equal(t, "kind", events.Columns[c].Name)
	for name, code := range map[string]string{"knd": "unknown_column", "": "unknown_column", "serial": "read_only_column", "total": "read_only_column"} {
		_, bad := events.WritableColumn(name)
		require.NotNil(t, bad, name)
		require.Equal(t, code, bad.Code)
		require.Equal(t, name, bad.Column)
	}
}
