package api

import (
	"bytes"
	"encoding/csv"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
)

// fuzzed has a column of every kind.
var fuzzed = func() *table.Table {
	of := func(name string, kind table.Kind) table.Column {
		return table.Column{Name: name, Type: &table.Type{Name: name, Kind: kind, Digits: -1, Mod: -1}}
	}
	t := &table.Table{Name: "fuzzed", Key: []int{0}, Columns: []table.Column{
		of("id", table.KindInt8), of("i2", table.KindInt2), of("i4", table.KindInt4), of("f4", table.KindFloat4), of("f8", table.KindFloat8),
		of("n", table.KindNumeric), of("n52", table.KindNumeric), of("b", table.KindBool), of("tx", table.KindText), of("vc", table.KindVarchar),
		of("ch", table.KindBpchar), of("u", table.KindUUID), of("d", table.KindDate), of("ts", table.KindTimestamp), of("tz", table.KindTimestamptz),
		of("j", table.KindJSON), of("jb", table.KindJSONB), of("by", table.KindBytea), of("en", table.KindEnum), of("ia", table.KindArray),
		of("dm", table.KindDomain), of("sp", table.KindComposite), of("ip", table.KindOther), of("gen", table.KindInt4),
	}}
	c := func(name string) *table.Column {
		return &t.Columns[slices.IndexFunc(t.Columns, func(c table.Column) bool { return c.Name == name })]
	}
	c("id").NotNull, c("gen").Generated = true, true
	c("n52").Type.Precision, c("n52").Type.Scale = 5, 2
	c("vc").Type.Length, c("ch").Type.Length, c("tz").Type.Digits = 3, 3, 0
	c("en").Type.Labels = []string{"sad", "ok"}
	c("ia").Type.Elem, c("ia").Type.Delim = c("i4").Type, ','
	c("dm").Type.Base = c("i4").Type
	c("sp").Type.Fields = []table.Column{of("x", table.KindInt4), of("label", table.KindText)}
	return t.Seal()
}()

// knownCodes are those of http-api.md that a body or a row can be refused with
// before Postgres is asked.
var knownCodes = strings.Fields(`invalid_json invalid_json_shape invalid_csv invalid_utf8 invalid_unicode duplicate_field too_deep empty_body empty_batch
	body_too_large batch_too_large unknown_column read_only_column null_not_allowed type_mismatch out_of_range too_long invalid_value invalid_datetime nul_not_allowed`)

// readFuzzed reads a body and checks what is true of every body: the answer
// names known codes and places that are there, and what is accepted is
// canonical.
func readFuzzed(t *testing.T, body []byte, f format) (*incoming, error) {
	const most = 50
	in := newIncoming(fuzzed)
	t.Cleanup(in.release)
	if err := in.read(bytes.Clone(body), f, most); err != nil {
		checkProblem(t, body, err)
		return in, err
	}
	require.NotEmpty(t, in.rows)
	require.LessOrEqual(t, len(in.rows), most)
	for _, row := range in.rows {
		for _, e := range row.errs {
			require.Contains(t, knownCodes, e.code, e.detail)
			require.NotEmpty(t, e.detail)
		}
		if len(row.errs) == 0 {
			checkCanonical(t, row.cells)
		}
	}
	return in, nil
}

func checkProblem(t *testing.T, body []byte, err error) {
	var bad *table.JSONError
	if errors.As(err, &bad) {
		require.GreaterOrEqual(t, bad.Offset, int64(0))
		require.LessOrEqual(t, bad.Offset, int64(len(body)))
	}
	p := problemOf(err)
	require.Contains(t, knownCodes, string(p.Code), p.Detail)
	require.NotEmpty(t, p.Detail)
	require.Equal(t, "no", p.Applied)
}

// checkCanonical: the text of a cell, shown as JSON or taken as it is, reads
// back to the same text; and the row survives the log.
func checkCanonical(t *testing.T, row table.Row) {
	for i, cell := range row {
		ty := fuzzed.Columns[i].Type
		if cell.State != table.Set || ty.Kind == table.KindJSON || string(cell.Text) == "-0" {
			continue // json keeps its spaces, which are not shown; jsonb, and so Postgres, reads -0 as 0
		}
		again, err := ty.AppendCanonical(nil, ty.AppendJSON(nil, cell.Text))
		require.NoError(t, err, "%s %q", ty.Name, cell.Text)
		require.Equal(t, string(cell.Text), string(again), ty.Name)
		_, bare, bad := ty.TextCell([]byte{}, cell.Text)
		require.Nil(t, bad, "%s %q", ty.Name, cell.Text)
		if bare.State == table.Set {
			require.Equal(t, string(cell.Text), string(bare.Text), ty.Name)
		}
	}
	back := table.ParseLine(fuzzed.AppendLine(nil, row))
	for i, c := range fuzzed.Stored() {
		if row[c].State == table.Set {
			require.Equal(t, string(row[c].Text), string(back[i].Text), fuzzed.Columns[c].Name)
		}
	}
}

func FuzzJSON(f *testing.F) {
	for _, seed := range []string{
		`{"id":9223372036854775807,"n":1e20,"f8":-0.0,"b":true,"tx":"\ud83d\ude00","u":"6F9619FF8B86D011B42D00CF4FC964FF"}`,
		`[{"id":1,"j":{"a": [1]},"jb":{"b":1.0,"a":null},"ia":[[1],[null]]},{"id":"x"}]`,
		`{"id":1,"d":"2026-02-28","ts":"2026-01-02T03:04:05.678","tz":"2026-01-02 03:04:05+01","by":"\\x00","en":"ok","dm":5,"sp":{"x":1},"ip":"::1"}`,
		`[{"id":1}]x`, `{"id":1,"id":2}`, `[[[]]]`, "{\"tx\":\"\xff\"}", `{"tx":"\u0000"}`, `{"gen":1,"nope":2,"id":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) { _, _ = readFuzzed(t, body, formatJSON) })
}

func FuzzNDJSON(f *testing.F) {
	for _, seed := range []string{"{\"id\":1}\n\r\n{\"id\":2\n{\"id\":3,\"vc\":\"abcd\"}\r\n", "{\"id\":1}{\"id\":2}\n[]\nnull", "\n \n", "\xef\xbb\xbf{}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		in, err := readFuzzed(t, body, formatNDJSON)
		if err != nil {
			return
		}
		n := 0 // each line that is accepted is accepted alone, and is the same row
		for line := range bytes.Lines(body) {
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			if len(in.rows[n].errs) == 0 {
				one, err := readFuzzed(t, line, formatJSON)
				require.NoError(t, err)
				require.Equal(t, string(fuzzed.AppendLine(nil, one.rows[0].cells)), string(fuzzed.AppendLine(nil, in.rows[n].cells)))
			}
			n++
		}
		require.Len(t, in.rows, n)
	})
}

func FuzzCSV(f *testing.F) {
	for _, seed := range []string{
		"id,tx,n\r\n1,\"a,\"\"b\r\n\",NULL\r\n2,\"NULL\",\n", "id\n1\n\n\"2\"\nx\n1,2\n", "\xef\xbb\xbfid,gen\n1,", "id,id", "id,tx\n1,\"", "id,tx\n1,a\"b", "id\r1",
		"i2,i4,f4,f8,n52,b,vc,ch\n1,+2,1e3,-0,1.005,t,abc,a\n", "u,d,ts,tz,j,jb\n6F9619FF8B86D011B42D00CF4FC964FF,2026-02-28,2026-01-02 03:04,2026-01-02 03:04:05.6Z, 1,\"{\"\"a\"\":1.0}\"\n",
		"by,en,ia,dm,sp,ip\n\\x00,ok,\"{1,2}\",5,\"(1,a)\",::1\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _ = readFuzzed(t, body, formatCSV)
		s := csvScanner{rest: body, line: 1, keep: len(body) + 1}
		var records [][]string
		more, err := s.next()
		for ; more; more, err = s.next() {
			require.Equal(t, s.count, len(s.fields))
			record := make([]string, len(s.fields))
			for i, field := range s.fields {
				record[i] = strings.ReplaceAll(string(field.text), "\r\n", "\n") // as encoding/csv does
			}
			records = append(records, record)
		}
		if err != nil {
			checkProblem(t, body, err)
			return
		}
		require.Equal(t, 1+bytes.Count(body, []byte{'\n'}), s.line)
		std := csv.NewReader(bytes.NewReader(body))
		std.FieldsPerRecord = -1
		want, err := std.ReadAll()
		require.NoError(t, err, "what is accepted here, encoding/csv accepts")
		require.Equal(t, want, records)
	})
}

func FuzzPrefer(f *testing.F) {
	for _, seed := range []string{"return=minimal, wait=5", `Return="representation"; foo=bar`, "handling=strict", "handling=lenient,respond-async", "wait=1e9, wait=NaN", "resolution=merge-duplicates, resolution=ignore-duplicates", "=,;=", "wait=-0"} {
		f.Add(seed, "handling=strict")
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		p, err := readPreferences(http.Header{"Prefer": {first, second}}, DefaultWait)
		if err != nil {
			require.Equal(t, codeBadPreference, problemOf(err).Code)
			require.True(t, *p.Strict, "what is not known is passed over unless strict")
			return
		}
		require.GreaterOrEqual(t, p.Wait, time.Duration(0))
		require.LessOrEqual(t, p.Wait, DefaultWait)
		require.Contains(t, []string{"", "minimal", "representation"}, p.Return)
		// What is named, asked for again, is followed again.
		h := http.Header{}
		p.write(h, "return", "handling", "resolution", "wait")
		again, err := readPreferences(http.Header{"Prefer": h.Values("Preference-Applied")}, DefaultWait)
		require.NoError(t, err)
		require.Equal(t, p, again)
	})
}
