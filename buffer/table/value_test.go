package table_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
)

// inputs are tried against every type, alone and inside arrays.
var inputs = strings.Split(strings.TrimSpace(`
true
false
0
-0
-0.0
0.0
1
-1
1.0
1.5
-2.5
1e3
1E3
1.5e1
1e+2
10e-1
100e-2
1e-1
0e5
0e-5
0e99
0.0001e5
0.0000e3
0.00010e3
1e-7
32767
32768
-32768
-32769
2147483647
2147483648
-2147483648
-2147483649
9223372036854775807
9223372036854775808
-9223372036854775808
-9223372036854775809
9223372036854775807.0
922337203685477580.7e1
92233720368547758070e-1
9007199254740993
0.10000000000000000001
123456789012345678901234567890.12345678901234567890
999.994
999.995
999.9949999999
-999.995
99.995
9.995
0.005
0.004
-0.004
-0.005
0.0005
0.00012
0.00099
0.000994
0.000995
0.000996
0.00095
0.000005
0.00000499
999
999.4
999.5
12345
12350
12349.99
99949
99950
99999
49
50
-50
49.999
450
0.1
1e15
1e14
123456789012345
1234567890123456
999999999999999
9999999999999999
1e6
1e5
123456
1234567
1000000
999999
9999995
0.0001
0.00001
0.00012345
0.000012345
1e23
9e22
1e22
8.41e21
9.5e-310
5e-324
2e-324
2.4703282292062327e-324
2.5e-324
1.7976931348623157e308
1.7976931348623159e308
1e308
1e309
-1e309
1e400
1e-400
1e-1000
3.4028235e38
3.4028236e38
3.5e38
1e-45
1.4e-45
7e-46
8e-46
1.1754943e-38
16777217
16777219
33554433
67108865
8388609.5
2e10
1e131071
1e131072
1e1073741823
0e1073741823
0e1073741822
1e-1073741823
1e99999999999999999999
1e-16383
1e-16384
1e-20000
0e-16384
""
" "
"a"
"abcde"
"abcdef"
"abcde "
"abcde   "
"abcdeé"
"äöüßé"
"äöüßé  "
"äöüßéx"
"\u00e9"
"\ud83d\ude00"
"😀😀😀😀😀"
"😀😀😀😀😀😀"
"\u0000"
"a\u0000b"
"a\"b\\c\/d\b\f\n\r\t"
"\u0001\u001f\u007f\u0080\u2028\uffff"
"tab\there"
"NULL"
"null"
"nUlL"
"{}"
"{1,2}"
"a,b"
"{"
"x\u000by"
"\u00a0"
"true"
"t"
"1"
"12"
"-12"
"+12"
" 12 "
"007"
"1e3"
"1.5"
".5"
"5."
"."
"1e"
"e1"
"-"
"--1"
"0x10"
"1_000"
"1e-20000"
"1e131072"
"1e1073741823"
"9223372036854775808"
"-9223372036854775808"
"NaN"
"nan"
"Infinity"
"-Infinity"
"infinity"
"-infinity"
"+infinity"
"inf"
"-inf"
"InFiNiTy"
"now"
"epoch"
"today"
"6f9619ff-8b86-d011-b42d-00cf4fc964ff"
"6F9619FF-8B86-D011-B42D-00CF4FC964FF"
"{6f9619ff-8b86-d011-b42d-00cf4fc964ff}"
"{6f9619ff8b86d011b42d00cf4fc964ff}"
"6f9619ff8b86d011b42d00cf4fc964ff"
"6f96-19ff-8b86-d011-b42d-00cf-4fc9-64ff"
"6f9619ff-8b86d011b42d00cf4fc964ff"
"6f-9619ff8b86d011b42d00cf4fc964ff"
"6f9619ff-8b86-d011-b42d-00cf4fc964f"
"6f9619ff-8b86-d011-b42d-00cf4fc964ff0"
"6f9619ff-8b86-d011-b42d-00cf4fc964ff-"
"{6f9619ff-8b86-d011-b42d-00cf4fc964ff"
"6f9619ff-8b86-d011-b42d-00cf4fc964ff}"
" 6f9619ff-8b86-d011-b42d-00cf4fc964ff"
"6g9619ff-8b86-d011-b42d-00cf4fc964ff"
"{"
"}"
"2026-01-02"
"2026/01/02"
"2026-01/02"
"2026-1-2"
"20260102"
"2026-02-28"
"2026-02-29"
"2024-02-29"
"1900-02-29"
"2000-02-29"
"2026-02-30"
"2026-04-31"
"2026-13-01"
"2026-00-01"
"2026-01-00"
"2026-01-32"
"0000-01-01"
"0001-01-01"
"0001-01-01T00:00:00+15"
"0001-01-01T00:00:00-15"
"9999-12-31"
"9999-12-31T23:59:59.9999996Z"
"9999-12-31T23:59:59-01"
"9999-12-31 23:59:59.999999"
"10000-01-01"
"0044-03-15 BC"
"2026-01-02T03:04:05Z"
"2026-01-02 03:04:05Z"
"2026-01-02 03:04:05 Z"
"2026-01-02 03:04:05z"
"2026-01-02t03:04:05Z"
"2026-01-02T03:04:05"
"2026-01-02T03:04"
"2026-01-02T03:04Z"
"2026-01-02T03"
"2026-01-02T"
"2026-01-02 "
" 2026-01-02T03:04:05Z"
"2026-01-02T03:04:05Z "
"2026-01-02Z"
"2026-01-02+05"
"2026-01-02T03:04:05+05"
"2026-01-02T03:04:05 +05"
"2026-01-02T03:04:05+05:30"
"2026-01-02T03:04:05+0530"
"2026-01-02T03:04:05-05:30:15"
"2026-01-02T03:04:05+00"
"2026-01-02T03:04:05-00:00"
"2026-01-02T03:04:05+5"
"2026-01-02T03:04:05+15:59:59"
"2026-01-02T03:04:05+16"
"2026-01-02T03:04:05+05:60"
"2026-01-02T03:04:05+05:00:60"
"2026-01-02T03:04+05:30"
"2026-01-02T03:04:05.1Z"
"2026-01-02T03:04:05.123Z"
"2026-01-02T03:04:05.123456Z"
"2026-01-02T03:04:05.1234565Z"
"2026-01-02T03:04:05.1234575Z"
"2026-01-02T03:04:05.0000005Z"
"2026-01-02T03:04:05.0000015Z"
"2026-01-02T03:04:05.0000025Z"
"2026-01-02T03:04:05.9999995Z"
"2026-01-02T03:04:05.99999949Z"
"2026-12-31T23:59:59.9999999Z"
"2026-01-02T03:04:05.5Z"
"1999-12-31T23:59:58.5Z"
"1999-12-31T23:59:59.5Z"
"1999-12-31T23:59:58.0005Z"
"1999-12-31T23:59:58.0015Z"
"2026-01-02T03:04:05.0005Z"
"2026-01-02T03:04:05.0015Z"
"1969-07-20T20:17:40.123456Z"
"2026-01-02T03:04:05.Z"
"2026-01-02T03:04:05,5Z"
"2026-01-02T24:00:00Z"
"2026-01-02T24:00:01Z"
"2026-01-02T25:00:00Z"
"2026-01-02T23:59:60Z"
"2026-01-02T23:59:61Z"
"2026-01-02T23:60:00Z"
"2026-01-02T03:04:05 Europe/Berlin"
"2026-01-02T03:04:05 EST"
"Jan 2 2026"
"\\x"
"\\x00ff"
"\\xDEADbeef"
"\\x0"
"\\xzz"
"\\x de ad"
"\\X00"
"\\000"
"abc\\\\def"
"sad"
"so so"
"happy, \"very\""
"Sad"
"10.0.0.1"
"10.0.0.1/33"
"1 day"
"$1.50"
"2.5"
{}
{"a":1}
{ "b" : 1 , "a" : [ 1 , 2.50 , "x" , null , true , { } ] }
{"bb":1,"a":2,"ccc":3,"B":4,"ä":5,"":6,"aa":7}
{"\u0062":1,"a\nb":2,"\"":3,"\\":4,"😀":5,"zz":6}
{"a":"\u0000"}
{"\u0000":1}
{"a":{"b":{"c":[[],{},[{}]]}}}
{"x":1,"label":"two","a b":3.14159}
{"x":1,"label":null}
{"id":1,"at":{"x":1,"label":"q,\"(\\ )"},"tags":["a b",null,"c\"d"],"doc":{"b":1,"a":[1.50,-0,1e3]}}
{"a":1e131072}
{"n":[1e2,1.0e-2,-0,-0.0,0e3,1.50,100,0.1e1,123456789012345678901234567890e-5]}
[]
[[]]
[[],[]]
[[],[1]]
[[1],[]]
[[[]],[]]
[1]
[1,2,3]
[1,null,3]
[null]
[null,[1]]
[[1],null]
[[1,2],[3,4]]
[[1,2],[3]]
[[1],2]
[1,[2]]
[[[1,2],[3,4]],[[5,6],[7,8]]]
[[[[[[1]]]]]]
[[[[[[[1]]]]]]]
[[[[[[[]]]]]]]
[true,false,null]
["a","","NULL","null","a b","a,b","{","}","\"","\\","x\ty","é","a\u000bb","\u00a0"]
["2026-01-02T03:04:05Z","2026-01-02"]
["\\x00ff"]
["sad","so so"]
[{"a":1},{"b":[1,2]}]
[{"a":[1]},[1]]
["1","2"]
[1.5,"NaN",1e20]
[[1.5],["x"]]
[ 1 , 2 ]
`), "\n")

// stricter reports that a refusal is by design though the server would take
// the value. This is the whole list.
func stricter(ty *table.Type, doc string, bad *table.FieldError) bool {
	switch bad.Code {
	case "type_mismatch": // a string for a number, a number for a string, true for text …
		return true
	case "invalid_datetime":
		return strings.Contains(bad.Detail, "needs a zone") || strings.Contains(bad.Detail, "drop silently")
	case "nul_not_allowed": // json stores what it could never read again
		return holds(ty, table.KindJSON) && strings.Contains(doc, `\u0000`)
	case "out_of_range": // zeros that jsonb cannot hold
		return strings.Contains(doc, "0e1073741823") || strings.Contains(doc, "0e-16384")
	case "invalid_value": // the server passes over fields that a composite does not have, and takes [null,[1]] as text
		return strings.Contains(bad.Detail, "has no field") || strings.Contains(bad.Detail, "sub-arrays")
	}
	return false
}

func holds(ty *table.Type, kind table.Kind) bool {
	return ty.Kind == kind || ty.Elem != nil && holds(ty.Elem, kind)
}

// codeOf is the code for the server's SQLSTATE; type_mismatch and
// invalid_value are one SQLSTATE to it.
func codeOf(state string) string {
	switch state {
	case "22003":
		return "out_of_range"
	case "22001":
		return "too_long"
	case "22007", "22008", "22009":
		return "invalid_datetime"
	case "22P05":
		return "nul_not_allowed"
	}
	return "invalid_value"
}

// via is the document type that loses nothing of a value of the type: jsonb
// drops the sign of a zero, and json does not read 1e3 as an integer.
func via(ty *table.Type) string {
	if holds(ty, table.KindJSON) || holds(ty, table.KindFloat4) || holds(ty, table.KindFloat8) {
		return "json"
	}
	return "jsonb"
}

// check compares our verdict with the server's.
func check(t assert.TestingT, ty *table.Type, doc string, want verdict) (judged bool) {
	prefix := []byte("kept:")
	got, err := ty.AppendCanonical(prefix, []byte(doc))
	about := fmt.Sprintf("%s ← %.200s", ty.Name, doc)
	var bad *table.FieldError
	switch {
	case errors.Is(err, table.ErrJudge):
		assert.Equal(t, "kept:", string(got), about)
		return true
	case errors.As(err, &bad):
		assert.Equal(t, "kept:", string(got), about)
		if want.state == "" {
			assert.True(t, stricter(ty, doc, bad), "%s: we say %s (%s), the server takes it as %q", about, bad.Code, bad.Detail, want.text)
		} else if bad.Code != "type_mismatch" && !stricter(ty, doc, bad) && !strings.Contains(bad.Detail, "dimensions") {
			assert.Equal(t, codeOf(want.state), bad.Code, "%s: %s, server %s", about, bad.Detail, want.state)
		}
	default:
		require := assert.Empty(t, want.state, "%s: the server refuses it, we say %.80s", about, got)
		if !require {
			return false
		}
		text := strings.TrimPrefix(string(got), "kept:")
		wantText, wantJSON := want.text, want.json
		switch { // json keeps its text, but the server escapes a string anew on the way out of a document
		case ty.Kind == table.KindJSON:
			wantText = doc
		case holds(ty, table.KindJSON):
			wantText = text
		}
		assert.Equal(t, wantText, text, about)
		if wantJSON != "" {
			assert.Equal(t, wantJSON, string(ty.AppendJSON(nil, []byte(text))), "to_jsonb: %s", about)
		}
	}
	return false
}

func TestCanonicalEqualsPostgres(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	for _, ty := range allTypes() {
		docs := append([]string(nil), inputs...)
		if ty.Kind == table.KindArray {
			for _, in := range inputs {
				docs = append(docs, "["+in+"]")
			}
		}
		verdicts := o.judge(t, ty.Name, via(ty), docs)
		judged := 0
		for i, doc := range docs {
			if check(t, ty, doc, verdicts[i]) {
				judged++
			}
		}
		t.Logf("%-34s %3d of %d left to Postgres", ty.Name, judged, len(docs))
	}
}

// TestJudgeOnlyWhenNeeded: native values are never left to Postgres.
func TestJudgeOnlyWhenNeeded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ty   *table.Type
		doc  string
		want string // "judge", a code, or = and the text
	}{
		{tInt4, `1e3`, "=1000"}, {tInt4, `1.0`, "type_mismatch"}, {tInt4, `"1"`, "type_mismatch"}, {tInt4, `true`, "type_mismatch"},
		{tInt8, `"9007199254740993"`, "=9007199254740993"}, {tInt8, `"x"`, "type_mismatch"}, {tInt8, `" 1"`, "judge"},
		{tNumeric, `"1.50"`, "=1.50"}, {tNumeric, `"abc"`, "type_mismatch"}, {tNumeric, `"NaN"`, "=NaN"},
		{tFloat8, `"1.5"`, "type_mismatch"}, {tFloat8, `"nan"`, "=NaN"}, {tFloat8, `-0`, "=-0"},
		{tBool, `"true"`, "type_mismatch"}, {tBool, `1`, "type_mismatch"},
		{tText, `1`, "type_mismatch"}, {tText, `{}`, "type_mismatch"}, {tText, `"\ud800"`, "invalid_unicode"},
		{tText, "\"\xff\"", "invalid_utf8"}, {tText, `"\u0000"`, "nul_not_allowed"}, {tText, ``, "invalid_json"},
		{tUUID, `"x"`, "invalid_value"}, {tUUID, `1`, "type_mismatch"},
		{tTimestamz, `"2026-01-02T03:04:05Z"`, "=2026-01-02 03:04:05+00"},
		{tTimestamz, `"2026-01-02T03:04:05"`, "invalid_datetime"}, {tTimestamz, `"2026-01-02"`, "invalid_datetime"},
		{tTimestamp, `"2026-01-02T03:04:05+02"`, "invalid_datetime"}, {tTimestamp, `"2026-01-02T03:04:05Z"`, "=2026-01-02 03:04:05"},
		{tTimestamp, `"0000-01-01"`, "judge"}, {tTimestamp, `"2026-01-02T24:00"`, "judge"}, {tTimestamp, `"2026-01-02T23:59:60"`, "judge"},
		{tDate, `"infinity"`, "=infinity"}, {tDate, `"yesterday"`, "judge"}, {tDate, `20260102`, "type_mismatch"},
		{tDate, `"2026-02-30"`, "invalid_datetime"}, {tDate, `"2026-01-02T03:04:05Z"`, "=2026-01-02"},
		{tBytea, `"\\x00FF"`, `=\x00ff`}, {tBytea, `"abc"`, "judge"},
		{tMood, `"angry"`, "invalid_value"}, {tInet, `"10.0.0.1"`, "judge"}, {tInet, `[]`, "type_mismatch"}, {tMoney, `1.5`, "judge"},
		{arrayOf(tInt4), `[[1,2],[3]]`, "invalid_value"}, {arrayOf(tInt4), `"{1,2}"`, "judge"}, {arrayOf(tInt4), `[1.5]`, "type_mismatch"},
		{arrayOf(tInet), `["10.0.0.1"]`, "judge"}, {arrayOf(tInt4), `{}`, "type_mismatch"},
		{tSpot, `{"x":1}`, "judge"}, {tSpot, `{"x":1,"y":2}`, "invalid_value"}, {tSpot, `{"x":"1"}`, "type_mismatch"}, {tSpot, `[1]`, "type_mismatch"},
		{domain("positive", tInt4), `5`, "judge"}, {domain("positive", tInt4), `"5"`, "type_mismatch"}, {domain("positive", tInt4), `5e12`, "out_of_range"},
		{tJSON, ` {"b": 1,  "a":2}`, `={"b": 1,  "a":2}`}, {tJSON, `"\u0000"`, "nul_not_allowed"},
		{tJSONB, "[" + strings.Repeat("1e131071,", 9) + "1]", "too_long"},
	} {
		got, err := c.ty.AppendCanonical(nil, []byte(c.doc))
		var bad *table.FieldError
		verdict := "=" + string(got)
		if errors.As(err, &bad) {
			verdict = bad.Code
			require.Empty(t, bad.Column)
		} else if err != nil {
			verdict = "judge"
		}
		assert.Equal(t, c.want, verdict, "%s ← %s (%v)", c.ty.Name, c.doc, err)
	}
}

func TestRefusalsAreNotShared(t *testing.T) {
	t.Parallel()
	_, err := tText.AppendCanonical(nil, []byte(`"\u0000"`))
	var first, second *table.FieldError
	require.ErrorAs(t, err, &first)
	first.Column = "mine"
	_, err = tText.AppendCanonical(nil, []byte(`"\u0000"`))
	require.ErrorAs(t, err, &second)
	require.Empty(t, second.Column)
}
