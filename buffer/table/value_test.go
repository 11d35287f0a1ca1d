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
