package table_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
)

func BenchmarkDecodeObject(b *testing.B) {
	body := []byte(event)
	row := make(table.Row, len(events.Columns))
	dec := jsontext.NewDecoder(bytes.NewBuffer(body))
	var arena []byte
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		dec.Reset(bytes.NewBuffer(body))
		arena, _, _ = table.DecodeObject(dec, events, row, arena[:0])
	}
}

// BenchmarkDecodeBatch is per row of an array of 1,000.
func BenchmarkDecodeBatch(b *testing.B) {
	body := []byte("[" + strings.TrimSuffix(strings.Repeat(event+",", 1000), ",") + "]")
	row := make(table.Row, len(events.Columns))
	dec := jsontext.NewDecoder(bytes.NewBuffer(body))
	var arena []byte
	b.ReportAllocs()
	for n := 0; n < b.N; n += 1000 {
		dec.Reset(bytes.NewBuffer(body))
		_, _ = dec.ReadToken()
		arena = arena[:0]
		for dec.PeekKind() == '{' {
			arena, _, _ = table.DecodeObject(dec, events, row, arena)
		}
	}
}

func BenchmarkAppendRowJSON(b *testing.B) {
	row, _, _ := decode(events, event)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = events.AppendRowJSON(out[:0], row)
	}
}

func BenchmarkAppendCanonical(b *testing.B) {
	for _, c := range []struct {
		ty  *table.Type
		doc string
	}{
		{tInt8, `123456`}, {tText, `"click"`}, {tText, `"a\n\u00e9b"`}, {tUUID, `"6f9619ff-8b86-d011-b42d-00cf4fc964ff"`},
		{tTimestamz, `"2026-01-02T03:04:05.123Z"`}, {tNumeric, `12.5`}, {numeric(12, 2), `12.499`}, {tFloat8, `12.5`},
		{tJSONB, `{"page":"/home","n":3}`}, {arrayOf(tInt4), `[1,2,3]`}, {tBool, `true`},
	} {
		b.Run(c.ty.Name+" "+c.doc, func(b *testing.B) {
			raw := jsontext.Value(c.doc)
			var out []byte
			b.ReportAllocs()
			for b.Loop() {
				out, _ = c.ty.AppendCanonical(out[:0], raw)
			}
		})
	}
}

// TestFastPathDoesNotAllocate: the values that most rows are made of.
func TestFastPathDoesNotAllocate(t *testing.T) {
	out := make([]byte, 0, 256)
	for doc, ty := range map[string]*table.Type{
		`123456`: tInt8, `-5`: tInt4, `"click"`: tText, `"6F9619ff-8b86-d011-b42d-00cf4fc964ff"`: tUUID, `"a\u00e9"`: tText,
		`"2026-01-02T03:04:05.123Z"`: tTimestamz, `"2026-01-02"`: tDate, `12.5`: numeric(12, 2), `12.499`: numeric(12, 2), `true`: tBool, `1.5e3`: tNumeric,
		`1.25`: tFloat8,
	} {
		raw := jsontext.Value(doc)
		require.Zero(t, testing.AllocsPerRun(100, func() { out, _ = ty.AppendCanonical(out[:0], raw) }), "%s %s", ty.Name, doc)
	}
}
