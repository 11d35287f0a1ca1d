package table_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
)

var events = (&table.Table{
	Name: "events",
	Columns: []table.Column{
		{Name: "id", Type: tUUID, NotNull: true},
		{Name: "user_id", Type: tInt8, NotNull: true},
		{Name: "kind", Type: tText},
		{Name: "amount", Type: numeric(12, 2)},
		{Name: "payload", Type: tJSONB},
		{Name: "created_at", Type: tTimestamz, NotNull: true, Default: table.Default{Kind: table.DefaultNow}},
		{Name: "serial", Type: tInt8, NotNull: true, IdentityAlways: true, Default: table.Default{Kind: table.DefaultSequence}},
		{Name: "total", Type: tInt4, Generated: true, NotNull: true},
		{Name: "addr", Type: tInet},
	},
	Key: []int{0},
}).Seal()

const event = `{"id":"6f9619ff-8b86-d011-b42d-00cf4fc964ff","user_id":123456,"kind":"click","amount":12.50,` +
	`"payload":{"page":"/home","n":3},"created_at":"2026-01-02T03:04:05Z"}`

func decode(t *table.Table, body string) (table.Row, []*table.FieldError, error) {
	row := make(table.Row, len(t.Columns))
	for i := range row {
		row[i] = table.Cell{State: table.Judge, Text: []byte("left from before")}
	}
	_, errs, err := table.DecodeObject(jsontext.NewDecoder(bytes.NewBufferString(body)), t, row, nil)
	return row, errs, err
}

func TestDecodeObject(t *testing.T) {
	t.Parallel()
	row, errs, err := decode(events, strings.Replace(event, `{"id"`, `{"addr" : "10.0.0.1", "id"`, 1))
	require.NoError(t, err)
	require.Empty(t, errs)
	require.Equal(t, table.Cell{State: table.Judge, Text: []byte(`"10.0.0.1"`)}, row[8])
	require.Equal(t, table.Missing, row[6].State)
	require.Nil(t, row[7].Text)
	require.JSONEq(t, strings.Replace(event, "Z", "+00:00", 1), strings.Replace(string(events.AppendRowJSON(nil, row)), `,"serial":null,"total":null,"addr":null`, "", 1))
	require.Equal(t, `{"id":"6f9619ff-8b86-d011-b42d-00cf4fc964ff","user_id":123456,"kind":"click","amount":12.50,`+
		`"payload":{"n": 3, "page": "/home"},"created_at":"2026-01-02T03:04:05+00:00","serial":null,"total":null,"addr":null}`,
		string(events.AppendRowJSON(nil, row)))
}

// TestCellsOutliveTheArena: cells stay right while the arena moves and grows.
func TestCellsOutliveTheArena(t *testing.T) {
	t.Parallel()
	dec := jsontext.NewDecoder(bytes.NewBufferString(strings.Repeat(event+"\n", 200)))
	arena := make([]byte, 0, 8)
	var rows []table.Row
	for range 200 {
		row := make(table.Row, len(events.Columns))
		var errs []*table.FieldError
		var err error
		arena, errs, err = table.DecodeObject(dec, events, row, arena)
		require.NoError(t, err)
		require.Empty(t, errs)
		rows = append(rows, row)
	}
	for _, row := range rows {
		require.Equal(t, string(events.AppendRowJSON(nil, rows[0])), string(events.AppendRowJSON(nil, row)))
		_ = append(row[0].Text, "must not reach the next cell"...)
		require.Equal(t, "123456", string(row[1].Text))
	}
	_, _, err := table.DecodeObject(dec, events, rows[0], arena)
	require.ErrorIs(t, err, io.EOF)
}

func TestFieldErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ body, column, code, says string }{
		{`{"knd":"x"}`, "knd", "unknown_column", `Did you mean "kind"?`},
		{`{"KIND":"x"}`, "KIND", "unknown_column", `Did you mean "kind"?`},
		{`{"creatd_at":"x"}`, "creatd_at", "unknown_column", `"created_at"`},
		{`{"zzz":{"a":[1,2]}}`, "zzz", "unknown_column", `no column "zzz"`},
		{`{"a\u0000":1}`, `"a\u0000"`, "unknown_column", ""},
		{`{"` + strings.Repeat("é", 500) + `":1}`, strings.Repeat("é", 20) + "…", "unknown_column", ""},
		{`{"serial":1}`, "serial", "read_only_column", "made by the database"},
		{`{"total":null}`, "total", "read_only_column", ""},
		{`{"user_id":null}`, "user_id", "null_not_allowed", "must not be null"},
		{`{"created_at":null}`, "created_at", "null_not_allowed", ""},
		{`{"user_id":"x"}`, "user_id", "type_mismatch", "not a whole number"},
		{`{"amount":99999999999}`, "amount", "out_of_range", "numeric(12,2)"},
		{`{"kind":"\u0000"}`, "kind", "nul_not_allowed", `\u0000`},
		{`{"kind":7}`, "kind", "type_mismatch", "not the number 7"},
		{`{"payload":{"a":"\u0000"}}`, "payload", "nul_not_allowed", ""},
	} {
		row, errs, err := decode(events, c.body)
		require.NoError(t, err, c.body)
		require.Len(t, errs, 1, c.body)
		assert.Equal(t, c.column, errs[0].Column, c.body)
		assert.Equal(t, c.code, errs[0].Code, c.body)
		assert.Contains(t, errs[0].Detail, c.says)
		assert.Less(t, len(errs[0].Detail), 300)
		for _, cell := range row {
			assert.Equal(t, table.Cell{}, cell, c.body)
		}
	}
	_, errs, err := decode(events, `{"a":1,"user_id":null,"kind":1,"amount":null,"addr":true}`)
	require.NoError(t, err)
	require.Len(t, errs, 4)
	var many strings.Builder
	for i := range 1000 {
		many.WriteString(`,"c` + strings.Repeat("x", i) + `":1`)
	}
	_, errs, err = decode(events, "{"+many.String()[1:]+"}")
	require.NoError(t, err)
	require.Len(t, errs, 100)
}

func TestMissingRequired(t *testing.T) {
	t.Parallel()
	row, _, err := decode(events, `{"id":"6f9619ff-8b86-d011-b42d-00cf4fc964ff"}`)
	require.NoError(t, err)
	errs := events.MissingRequired(row)
	require.Len(t, errs, 1)
	require.Equal(t, "user_id", errs[0].Column)
	require.Equal(t, "required", errs[0].Code)
}

func TestJSONErrors(t *testing.T) {
	t.Parallel()
	nest := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct {
		body, code string
		offset     int64
	}{
		{``, "invalid_json", 0}, {`   `, "invalid_json", 0}, {`{`, "invalid_json", 1}, {`{"kind"`, "invalid_json", 7}, {`{"kind":`, "invalid_json", 8},
		{`{"kind":"a`, "invalid_json", 10}, {`{"kind":"a",}`, "invalid_json", 11}, {`{"kind" "a"}`, "invalid_json", 8}, {`{kind:1}`, "invalid_json", 1},
		{`{"kind":NaN}`, "invalid_json", 8}, {`{"user_id":01}`, "invalid_json", 12}, {`{"user_id":+1}`, "invalid_json", 11}, {`{"user_id":.5}`, "invalid_json", 11},
		{"\ufeff{}", "invalid_json", 0}, {"{\x00}", "invalid_json", 1}, {"{\"kind\":\"a\nb\"}", "invalid_json", 10}, {`{"kind":"\x"}`, "invalid_json", 9},
		{`{"kind":"\ud8zz"}`, "invalid_json", 9}, {`{1:2}`, "invalid_json", 1}, {`nul`, "invalid_json", 3}, {`'a'`, "invalid_json", 0}, {`{"kind":{"a" 1}}`, "invalid_json", 13},
		{`[]`, "invalid_json_shape", 2}, {`null`, "invalid_json_shape", 4}, {`1`, "invalid_json_shape", 1}, {` "x" `, "invalid_json_shape", 4}, {`true`, "invalid_json_shape", 4},
		{"{\"kind\":\"a\xff\"}", "invalid_utf8", 10}, {"{\"k\xc3\":1}", "invalid_utf8", 3}, {"{\"payload\":{\"a\":[\"\xed\xa0\x80\"]}}", "invalid_utf8", 18},
		{"{\"kind\":\"\xc0\x80\"}", "invalid_utf8", 9},
		{`{"kind":"\ud800"}`, "invalid_unicode", 9}, {`{"kind":"ab\udc00"}`, "invalid_unicode", 11}, {`{"kind":"\ud800\u0041"}`, "invalid_unicode", 9},
		{`{"\udfff":1}`, "invalid_unicode", 2}, {`{"payload":["\uD83D"]}`, "invalid_unicode", 13}, {`{"kind":"\ud83d\ud83d"}`, "invalid_unicode", 9},
		{`{"kind":"a","kind":"b"}`, "duplicate_field", 12}, {`{"kind":"a","\u006bind":"b"}`, "duplicate_field", 12},
		{`{"payload":{"a":1,"a":2}}`, "duplicate_field", 18}, {`{"payload":[{"a":{"b":1,"b":2}}]}`, "duplicate_field", 24}, {`{"zzz":1,"zzz":2}`, "duplicate_field", 9},
		{`{"payload":` + nest(32) + `}`, "too_deep", 11}, {`{"zzz":` + nest(9000) + `}`, "too_deep", 7}, {`{"payload":` + nest(20000) + `}`, "too_deep", 10},
		{`{"payload":` + strings.Repeat(`{"a":`, 40) + `1` + strings.Repeat(`}`, 40) + `}`, "too_deep", 11},
	} {
		for name, reader := range map[string]io.Reader{"whole": bytes.NewBufferString(c.body), "by byte": iotest.OneByteReader(strings.NewReader(c.body))} {
			row := make(table.Row, len(events.Columns))
			_, _, err := table.DecodeObject(jsontext.NewDecoder(reader), events, row, nil)
			var bad *table.JSONError
			if !assert.ErrorAs(t, err, &bad, "%.60s", c.body) {
				continue
			}
			assert.Equal(t, c.code, bad.Code, "%s %.60q: %v", name, c.body, err)
			assert.Equal(t, c.offset, bad.Offset, "%s %.60q: %v", name, c.body, err)
			assert.Less(t, len(bad.Detail), 300)
			assert.NotContains(t, bad.Detail, "\ufffd")
		}
	}
	row, errs, err := decode(events, `{"payload":`+nest(31)+`}`)
	require.NoError(t, err)
	require.Empty(t, errs)
	require.Equal(t, nest(31), string(row[4].Text))
	_, errs, err = decode(events, `{"kind":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"[","payload":["[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["]}`)
	require.NoError(t, err)
	require.Empty(t, errs)
}

// TestAsJSONError: without the decoder, the same codes.
func TestAsJSONError(t *testing.T) {
	t.Parallel()
	for body, code := range map[string]string{
		`"\ud800"`: "invalid_unicode", `["\udc00 \u0001"]`: "invalid_unicode", `"\ud8zz"`: "invalid_json", "\"\xff\"": "invalid_utf8",
		`{"a":1,"a":2}`: "duplicate_field", `[1,`: "invalid_json", ``: "invalid_json", `x`: "invalid_json", `"\u12"`: "invalid_json",
		`{"a":"\ud800\u0041"}`: "invalid_unicode", "[`]": "invalid_json",
	} {
		err := table.AsJSONError(jsontext.NewDecoder(strings.NewReader(body)).SkipValue())
		var bad *table.JSONError
		require.ErrorAs(t, err, &bad, body)
		assert.Equal(t, code, bad.Code, "%s: %v", body, err)
		assert.Same(t, bad, table.AsJSONError(bad))
	}
}

func TestReaderErrorsStay(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection lost")
	for _, start := range []string{"", "{", `{"kind"`, `{"kind":"abc`, `{"payload":[1,`} {
		reader := io.MultiReader(strings.NewReader(start), iotest.ErrReader(broken))
		_, _, err := table.DecodeObject(jsontext.NewDecoder(reader), events, make(table.Row, len(events.Columns)), nil)
		var bad *table.JSONError
		require.ErrorIs(t, err, broken, start)
		require.False(t, errors.As(err, &bad), start)
	}
}

func FuzzDecodeObject(f *testing.F) {
	for _, seed := range []string{event, `{"kind":null}`, `{"payload":[[]]}`, `{"kind":"\ud800"}`, `[`, "{\"a\xff\":1}", `{"kind":"x","kind":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		row := make(table.Row, len(events.Columns))
		arena, errs, err := table.DecodeObject(jsontext.NewDecoder(bytes.NewBuffer(bytes.Clone(body))), events, row, nil)
		if err != nil {
			var bad *table.JSONError
			require.ErrorAs(t, err, &bad)
			return
		}
		for _, e := range errs {
			require.NotEmpty(t, e.Code)
		}
		out := events.AppendRowJSON(nil, row)
		require.True(t, jsontext.Value(out).IsValid(), "%q → %q", body, out)
		if !bytes.Contains(body, []byte("\ufffd")) && !bytes.Contains(bytes.ToLower(body), []byte(`\ufffd`)) {
			require.NotContains(t, string(arena), "\ufffd")
		}
	})
}
