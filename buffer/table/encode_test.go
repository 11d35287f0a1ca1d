package table_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/headpond/headpond/buffer/table"
)

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
