package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// One client sends random operations on few keys to two API processes, waits
// for each answer, and knows from a model what it must be: status, row, ETag,
// errors of each line. At the end the tables in Postgres are what the model
// says. Every moment at which a flush falls between two operations is legal,
// and none may be seen.

// modelTables: one where every column but the key has a default, and one where
// one has none, with a composite key and a generated column.
const modelTables = `
	create table easy (id int primary key, name text not null default 'none', n bigint not null default 7, amount numeric(12,2), doc jsonb);
	create table needy (a text, b int, must int not null, n bigint not null default 5,
		twice bigint generated always as (must * 2::bigint) stored, primary key (a, b))`

// modelTable is a table as the model knows it. Rows are JSON text by column.
type modelTable struct {
	name    string
	key     []string
	columns []modelColumn // without those of the key
}

type modelColumn struct {
	name, kind string
	otherwise  string // the default; null when there is none
	required   bool
}

type modelRow map[string]string

var modelOf = []*modelTable{
	{"easy", []string{"id"}, []modelColumn{
		{"name", "text", `"none"`, false}, {"n", "bigint", "7", false}, {"amount", "numeric", "null", false}, {"doc", "jsonb", "null", false},
	}},
	{"needy", []string{"a", "b"}, []modelColumn{{"must", "int", "null", true}, {"n", "bigint", "5", false}}},
}

// modelKey is a key: its columns as JSON, and as it is named in a path and in
// a line of _bulk.
type modelKey struct {
	cells      modelRow
	path, text string
}

func (t *modelTable) keyOf(r *rand.Rand, base int) modelKey {
	n := base + r.IntN(4)
	if t.name == "easy" {
		s := strconv.Itoa(n)
		return modelKey{modelRow{"id": s}, s, s}
	}
	a := []string{"x,y", "é/ %", "x"}[r.IntN(3)]
	path := strings.ReplaceAll(url.PathEscape(a), ",", "%2C") + "," + strconv.Itoa(n)
	return modelKey{modelRow{"a": quoted(a), "b": strconv.Itoa(n)}, path, path}
}

func quoted(s string) string {
	text, _ := json.Marshal(s) // strings always marshal
	return string(text)
}

// canonical gives equal texts for equal JSON, with the digits of its numbers.
func canonical(text string) string {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "not JSON: " + text
	}
	out, _ := json.Marshal(v) // what was read can be written
	return string(out)
}

func (r modelRow) json() string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(r)) {
		b.WriteString([]string{"{", ","}[min(i, 1)] + quoted(name) + ":" + r[name])
	}
	return canonical(b.String() + "}")
}

// value gives a random value: as a request may have it, and as an answer must.
func (c *modelColumn) value(r *rand.Rand) (given, kept string) {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	switch c.kind {
	case "text":
		given = quoted(pick("", "a", "tab\tnew\nline", `back\slash`, `\N`, "é🙂", fmt.Sprint("t", r.IntN(1e6))))
		return given, given
	case "int":
		given = pick("0", "-1", "2147483647", strconv.Itoa(r.IntN(1000)))
		return given, given
	case "bigint":
		given = pick("0", "9223372036854775806", "-9223372036854775807", "9007199254740993", strconv.Itoa(r.IntN(1000)), strconv.Itoa(r.IntN(1000)))
		return pick(given, quoted(given)), given
	case "numeric":
		cents := int64(r.IntN(100_000) - 50_000)
		if r.IntN(8) == 0 {
			cents = 999_999_999_999
		}
		kept = money(cents)
		return pick(kept, quoted(kept), strings.TrimSuffix(kept, "0")), kept
	}
	if r.IntN(4) == 0 {
		return "null", "null"
	}
	i := r.IntN(3)
	return []string{`{"b":[1.0,{"ü":null}],"a":"x"}`, `[]`, `"s\u00e9"`}[i], []string{`{"a":"x","b":[1.0,{"ü":null}]}`, `[]`, `"sé"`}[i]
}

func money(cents int64) string {
	sign := ""
	if cents < 0 {
		sign, cents = "-", -cents
	}
	return fmt.Sprintf("%s%d.%02d", sign, cents/100, cents%100)
}

// plus adds; false when the sum is out of the column's range.
func (c *modelColumn) plus(base, delta string) (string, bool) {
	if base == "null" {
		base = "0"
	}
	x, _ := new(big.Rat).SetString(base)
	y, _ := new(big.Rat).SetString(delta)
	sum := x.Add(x, y)
	digits := 0
	least, most := "-9223372036854775808", "9223372036854775807"
	switch c.kind {
	case "int":
		least, most = "-2147483648", "2147483647"
	case "numeric":
		least, most, digits = "-9999999999.99", "9999999999.99", 2
	}
	lo, _ := new(big.Rat).SetString(least)
	hi, _ := new(big.Rat).SetString(most)
	return sum.FloatString(digits), sum.Cmp(lo) >= 0 && sum.Cmp(hi) <= 0
}

// modelOp is one operation on one key.
type modelOp struct {
	table            *modelTable
	kind             string // insert, put, patch, increment, delete
	key              modelKey
	given, kept      modelRow // as the request has it, and as it is kept
	exists           string   // "", merge-duplicates, ignore-duplicates
	match, noneMatch string
}

// modelOutcome is what must come of an operation.
type modelOutcome struct {
	code    string // of the error; empty when it is accepted
	row     modelRow
	created bool
	written bool
}

// world is the model, and what it is compared with.
type world struct {
	t    *testing.T
	r    *rand.Rand
	s    *servers
	apis [2]*headpond
	base int // of the keys of this run

	config string // its file

	flusher *process // nil while there is none
	kills   bool

	rows    map[string]map[string]modelRow // by table and key
	fresh   map[string]bool                // keys written to while there was no flusher: they are in the buffer
	tags    map[string]string              // ETag by table and row, and the other way round
	later   []repeatable
	dead    []string // keys of the dead letters that must be there
	ops     int
	keys    int // Idempotency-Keys
	history []string
	counts  map[string]int
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	from := max(0, len(w.history)-40)
	require.FailNow(w.t, fmt.Sprintf(format, args...), "after %d operations; the last were:\n%s", w.ops, strings.Join(w.history[from:], "\n"))
}

func (o *modelOp) id() string { return o.table.name + o.key.path }

func (o *modelOp) row(rows map[string]map[string]modelRow) modelRow {
	return rows[o.table.name][o.key.path]
}

// tag is the ETag that an answer must have had for the row.
func (w *world) tag(t *modelTable, row modelRow) string { return w.tags[t.name+row.json()] }

// holds tells whether the operation's conditions do.
func (w *world) holds(o *modelOp, row modelRow) bool {
	has := func(list string) bool {
		if row == nil {
			return false
		}
		for tag := range strings.SplitSeq(list, ", ") {
			if tag == "*" || tag == w.tag(o.table, row) {
				return true
			}
		}
		return false
	}
	return (o.match == "" || has(o.match)) && (o.noneMatch == "" || !has(o.noneMatch))
}

// make applies an operation to rows.
func (w *world) make(o *modelOp, rows map[string]map[string]modelRow) modelOutcome {
	before := o.row(rows)
	out := modelOutcome{created: before == nil, written: true}
	switch {
	case before == nil && (o.kind == "patch" || o.kind == "delete"):
		return modelOutcome{code: "row_not_found"}
	case !w.holds(o, before):
		return modelOutcome{code: "version_mismatch"}
	case o.kind == "delete":
		delete(rows[o.table.name], o.key.path)
		out.created = false
		return out
	case o.kind == "insert" && before != nil && o.exists == "":
		return modelOutcome{code: "row_exists"}
	case o.kind == "insert" && before != nil && o.exists == "ignore-duplicates":
		return modelOutcome{row: before}
	}
	row := maps.Clone(before)
	if before == nil || o.kind == "put" {
		row = maps.Clone(o.key.cells)
		for _, c := range o.table.columns {
			row[c.name] = c.otherwise
		}
	}
	for _, c := range o.table.columns {
		kept, given := o.kept[c.name]
		switch {
		case !given && c.required && row[c.name] == "null":
			return modelOutcome{code: "row_not_found"} // an increment that would have to make the row
		case !given:
		case o.kind != "increment":
			row[c.name] = kept
		default:
			sum, ok := c.plus(row[c.name], kept)
			if !ok {
				return modelOutcome{code: "out_of_range"}
			}
			row[c.name] = sum
		}
	}
	if o.table.name == "needy" {
		must, _ := strconv.ParseInt(row["must"], 10, 64)
		row["twice"] = strconv.FormatInt(2*must, 10)
	}
	rows[o.table.name][o.key.path] = row
	out.row = row
	return out
}

func (w *world) copyOf() map[string]map[string]modelRow {
	rows := make(map[string]map[string]modelRow)
	for t, of := range w.rows {
		rows[t] = maps.Clone(of) // rows are never changed in place
	}
	return rows
}

// op makes a random operation; of an insert it is certain what becomes of it,
// which it is not when its key may be in Postgres alone.
func (w *world) op(bulk bool, before map[string]bool) *modelOp {
	r := w.r
	o := &modelOp{table: modelOf[r.IntN(len(modelOf))], given: modelRow{}, kept: modelRow{}}
	o.kind = []string{"insert", "put", "put", "patch", "patch", "increment", "increment", "delete"}[r.IntN(8)]
	o.key = o.table.keyOf(r, w.base)
	if o.kind == "insert" {
		if !bulk {
			o.exists = []string{"", "merge-duplicates", "ignore-duplicates"}[r.IntN(3)]
		}
		if o.exists == "" && !before[o.id()] && o.row(w.rows) != nil && !w.fresh[o.id()] {
			o.kind = "put"
		}
	}
	whole := o.kind == "insert" || o.kind == "put"
	for _, c := range o.table.columns {
		if r.IntN(2) == 0 && (!whole || !c.required) || o.kind == "delete" {
			continue
		}
		if o.kind == "increment" {
			if c.kind != "text" && c.kind != "jsonb" {
				o.kept[c.name] = []string{"1", "-3", "0", "1000000007"}[r.IntN(4)]
				if c.kind == "numeric" && r.IntN(2) == 0 {
					o.kept[c.name] = money(int64(r.IntN(1000)) - 500)
				}
				o.given[c.name] = o.kept[c.name]
			}
			continue
		}
		o.given[c.name], o.kept[c.name] = c.value(r)
	}
	if !bulk && o.kind != "insert" && r.IntN(3) == 0 {
		w.condition(o)
	}
	return o
}

// condition on the row as it is, as it was, or as it never was.
func (w *world) condition(o *modelOp) {
	tag := `"never"`
	if row := o.row(w.rows); row != nil && w.r.IntN(3) > 0 && w.tag(o.table, row) != "" { // an answer has shown it
		tag = w.tag(o.table, row)
	}
	switch w.r.IntN(5) {
	case 0:
		o.noneMatch = "*"
	case 1:
		o.match = "*"
	case 2:
		o.match = `"other", ` + tag
	default:
		o.match = tag
	}
}

// sent is a request as it was sent, which can be sent again.
type sentRequest struct {
	method, path, body string
	header             map[string]string
}

func (q *sentRequest) to(h *headpond) (answer, error) { return q.within(context.Background(), h) }

func (q *sentRequest) within(ctx context.Context, h *headpond) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, q.method, h.api+q.path, strings.NewReader(q.body))
	if err != nil {
		return answer{}, err
	}
	for name, v := range q.header {
		if name == "Idempotency-Key" {
			// Else net/http sends it again by itself when the connection ends.
			req.Header[strings.ToLower(name)] = []string{v}
			continue
		}
		req.Header.Set(name, v)
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return answer{code: resp.StatusCode, body: body, header: resp.Header}, err
}

// repeatable is a request that is sent again later, to the other API.
type repeatable struct {
	q   sentRequest
	api int
	a   answer
	due int
}

// send to one of the APIs.
func (w *world) send(q sentRequest) (answer, int) {
	w.t.Helper()
	api := w.r.IntN(2)
	return w.sendTo(q, api), api
}

func (w *world) sendTo(q sentRequest, api int) answer {
	w.t.Helper()
	a, err := q.to(w.apis[api])
	w.history = append(w.history, fmt.Sprintf("%d: to API %d: %s %s %v %s -> %d %v %s %s", w.ops, api, q.method, q.path, q.header,
		strings.TrimSpace(q.body), a.code, err, a.header.Get("ETag"), bytes.TrimSpace(a.body)))
	if err != nil {
		w.fail("no answer: %v", err)
	}
	return a
}

// step does something at random.
func (w *world) step() {
	switch n := w.r.IntN(100); {
	case n < 62:
		w.single()
	case n < 70:
		w.list()
	case n < 84:
		w.bulk()
	case n < 97:
		w.read()
	case n < 99:
		w.repeatOne(w.r.IntN(max(len(w.later), 1)))
	case w.r.IntN(4) == 0:
		w.surprise()
	}
	if w.r.IntN(150) == 0 {
		w.flushMoment()
	}
	for len(w.later) > 0 && w.later[0].due <= w.ops {
		w.repeatOne(0)
	}
}

// prefer at random, and maybe an Idempotency-Key.
func (w *world) prefer(q *sentRequest, prefer ...string) (back string, waits bool) {
	if n := w.r.IntN(6); n == 0 {
		back = "representation"
	} else if n == 1 {
		back = "minimal"
	}
	if back != "" {
		prefer = append(prefer, "return="+back)
	}
	if waits = w.flusher != nil && w.r.IntN(100) == 0; waits {
		prefer = append(prefer, "wait=30")
	}
	if len(prefer) > 0 {
		q.header["Prefer"] = strings.Join(prefer, ", ")
	}
	if w.r.IntN(5) == 0 {
		w.keys++
		q.header["Idempotency-Key"] = fmt.Sprintf("key-%d-%d", w.base, w.keys)
	}
	return back, waits
}

var statusOfCode = map[string]int{"row_not_found": 404, "version_mismatch": 412, "row_exists": 409, "out_of_range": 422}

func body(o *modelOp) string {
	if o.kind == "delete" {
		return ""
	}
	return o.given.raw()
}

// raw is the row as the request has it.
func (r modelRow) raw() string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(r)) {
		b.WriteString([]string{"", ","}[min(i, 1)] + quoted(name) + ":" + r[name])
	}
	return "{" + b.String() + "}"
}

// withKey is the given row of an insert, which holds its key.
func withKey(o *modelOp) modelRow {
	row := maps.Clone(o.key.cells)
	maps.Copy(row, o.given)
	return row
}

// single is an operation by itself.
func (w *world) single() {
	o := w.op(false, nil)
	q := sentRequest{header: map[string]string{}, body: body(o), path: "/v1/" + o.table.name + "/" + o.key.path}
	switch o.kind {
	case "insert":
		q.method, q.path, q.body = "POST", "/v1/"+o.table.name, withKey(o).raw()
	case "increment":
		q.method, q.path = "POST", q.path+"/increment"
	default:
		q.method = strings.ToUpper(o.kind)
	}
	if q.body != "" {
		q.header["Content-Type"] = typeJSON
	}
	if o.match != "" {
		q.header["If-Match"] = o.match
	}
	if o.noneMatch != "" {
		q.header["If-None-Match"] = o.noneMatch
	}
	var prefer []string
	if o.exists != "" {
		prefer = append(prefer, "resolution="+o.exists)
	}
	back, waits := w.prefer(&q, prefer...)
	want := w.make(o, w.rows)
	w.ops++
	w.wrote(o, want)
	a, api := w.send(q)
	w.check(o, want, a, back, waits)
	w.repeats(q, api, a, want.code == "" && want.written)
}

// wrote notes which keys are certainly in the buffer.
func (w *world) wrote(o *modelOp, out modelOutcome) {
	w.counts[o.kind+" "+out.code]++
	if out.written && w.flusher == nil {
		w.fresh[o.id()] = true
	}
}

// check the answer to one operation.
func (w *world) check(o *modelOp, want modelOutcome, a answer, back string, waits bool) {
	w.t.Helper()
	if want.code != "" {
		if a.code != statusOfCode[want.code] || a.field("code") != want.code || a.field("applied") != "no" {
			w.fail("the answer must be %d %s", statusOfCode[want.code], want.code)
		}
		return
	}
	status := http.StatusAccepted
	switch {
	case !want.written, waits && !want.created:
		status = http.StatusOK
	case waits && o.kind == "put" && o.match+o.noneMatch == "":
		status = http.StatusOK // it is written unread, so nobody knows whether there was a row
	case waits:
		status = http.StatusCreated
	}
	if a.code != status {
		w.fail("the status must be %d", status)
	}
	if want.written && a.header.Get("Headpond-Receipt") == "" {
		w.fail("there is no receipt") // when nothing is written there is one for the row that waits, if it does
	}
	w.checkTag(o.table, want.row, a.header.Get("ETag"))
	if back == "minimal" {
		if len(a.body) > 0 {
			w.fail("there must be no body")
		}
		return
	}
	var got struct {
		Key, Receipt, Durability string
		Row                      json.RawMessage
	}
	if json.Unmarshal(a.body, &got) != nil || got.Key != o.key.text || got.Receipt != a.header.Get("Headpond-Receipt") || got.Durability != a.header.Get("Headpond-Durability") {
		w.fail("the body must have the key %s, and what the headers say", o.key.text)
	}
	if (back == "representation" || o.kind == "increment") && want.row != nil {
		w.checkRow(want.row, got.Row)
	}
}

func (w *world) checkRow(want modelRow, got []byte) {
	w.t.Helper()
	if canonical(string(got)) != want.json() {
		w.fail("the row must be %s, not %s", want.json(), got)
	}
}

// checkTag: equal rows have equal ETags, others have others.
func (w *world) checkTag(t *modelTable, row modelRow, tag string) {
	w.t.Helper()
	if row == nil {
		if tag != "" {
			w.fail("there is no row, but an ETag")
		}
		return
	}
	is := t.name + row.json()
	if tag == "" || w.tags[is] != "" && w.tags[is] != tag || w.tags[tag] != "" && w.tags[tag] != is {
		w.fail("the row %s had the ETag %s, and %s was the ETag of %s", is, w.tags[is], tag, w.tags[tag])
	}
	w.tags[is], w.tags[tag] = tag, is
}

// lineError is an error of a line.
type lineError struct {
	Index int
	Code  string
}

// list is an array or NDJSON of inserts into one table.
func (w *world) list() {
	t := modelOf[w.r.IntN(len(modelOf))]
	exists := []string{"", "merge-duplicates", "ignore-duplicates"}[w.r.IntN(3)]
	var ops []*modelOp
	var lines []string
	before := make(map[string]bool)
	for range 30 {
		o := w.op(true, before)
		certain := exists != "" || before[o.id()] || o.row(w.rows) == nil || w.fresh[o.id()]
		if o.table != t || o.kind != "insert" && o.kind != "put" || !certain {
			continue
		}
		before[o.id()] = true
		o.kind, o.exists = "insert", exists
		ops, lines = append(ops, o), append(lines, withKey(o).raw())
		if w.r.IntN(4) == 0 {
			break
		}
	}
	if len(ops) == 0 {
		return
	}
	q := sentRequest{method: "POST", path: "/v1/" + t.name, header: map[string]string{"Content-Type": typeNDJSON}, body: strings.Join(lines, "\n")}
	strict := w.r.IntN(2) == 0
	if strict {
		q.header["Content-Type"], q.body = typeJSON, "["+strings.Join(lines, ",")+"]"
	}
	var prefer []string
	if exists != "" {
		prefer = append(prefer, "resolution="+exists)
	}
	w.many(q, ops, strict, prefer...)
}

// bulk is a mixture.
func (w *world) bulk() {
	var ops []*modelOp
	var lines []string
	before := make(map[string]bool)
	for range 1 + w.r.IntN(12) {
		o := w.op(true, before)
		line := fmt.Sprintf(`{"op":%q,"table":%q,"key":%s`, o.kind, o.table.name, quoted(o.key.text))
		if o.kind != "delete" {
			line += `,"row":` + o.given.raw()
		}
		before[o.id()] = true
		ops, lines = append(ops, o), append(lines, line+"}")
	}
	q := sentRequest{method: "POST", path: "/v1/_bulk", header: map[string]string{"Content-Type": typeNDJSON}, body: strings.Join(lines, "\n")}
	if w.r.IntN(3) == 0 {
		w.many(q, ops, true, "handling=strict")
		return
	}
	w.many(q, ops, false)
}

// many operations in one request.
func (w *world) many(q sentRequest, ops []*modelOp, strict bool, prefer ...string) {
	w.t.Helper()
	back, waits := w.prefer(&q, prefer...)
	rows := w.copyOf()
	want := make([]modelOutcome, len(ops))
	var errs []lineError
	written := false
	for i, o := range ops {
		want[i] = w.make(o, rows)
		if want[i].code != "" {
			errs = append(errs, lineError{i, want[i].code})
		}
		written = written || want[i].written
	}
	none := len(errs) == len(ops) || strict && len(errs) > 0
	if !none {
		w.rows = rows
		for i, o := range ops {
			w.wrote(o, want[i])
		}
	}
	w.ops += len(ops)
	a, api := w.send(q)
	var got struct {
		Accepted, Rejected int
		Receipts           []string
		Errors             []lineError
		Rows               []json.RawMessage
	}
	status := http.StatusAccepted
	switch {
	case none:
		status = http.StatusUnprocessableEntity
	case len(errs) > 0:
		status = http.StatusMultiStatus
	case waits:
		status = http.StatusOK
	}
	minimal := back == "minimal" && len(errs) == 0
	if err := json.Unmarshal(a.body, &got); err != nil && !minimal {
		w.fail("the body is not as it must be: %v", err)
	}
	slices.SortFunc(got.Errors, func(a, b lineError) int { return a.Index - b.Index })
	if a.code != status || !minimal && !slices.Equal(got.Errors, errs) {
		w.fail("the answer must be %d, with the errors %v", status, errs)
	}
	if none {
		written = false
	} else {
		w.checkMany(want, got.Accepted, got.Rejected, got.Receipts, got.Rows, back, minimal, written)
	}
	w.repeats(q, api, a, written && len(errs) == 0)
}

func (w *world) checkMany(want []modelOutcome, accepted, rejected int, receipts []string, rows []json.RawMessage, back string, minimal, written bool) {
	w.t.Helper()
	if minimal {
		return
	}
	good := slices.DeleteFunc(slices.Clone(want), func(o modelOutcome) bool { return o.code != "" })
	if accepted != len(good) || rejected != len(want)-len(good) || written != (len(receipts) > 0) {
		w.fail("%d must be accepted and %d rejected, with receipts: %t", len(good), len(want)-len(good), written)
	}
	if back != "representation" {
		return
	}
	if len(rows) != len(good) {
		w.fail("there must be %d rows", len(good))
	}
	for i, o := range good {
		if o.row == nil {
			if string(rows[i]) != "null" {
				w.fail("row %d must be null", i)
			}
			continue
		}
		w.checkRow(o.row, rows[i])
	}
}

// repeats a request that has an Idempotency-Key: at once, or later, when its
// rows are others. What was refused was not applied, and is tried anew.
func (w *world) repeats(q sentRequest, api int, a answer, done bool) {
	w.t.Helper()
	if q.header["Idempotency-Key"] == "" || w.r.IntN(4) == 0 {
		return
	}
	due := 0
	if done && w.r.IntN(2) == 0 {
		due = w.ops + w.r.IntN(100)
	}
	if due == 0 {
		w.again(repeatable{q, api, a, 0}, done)
		return
	}
	w.later = append(w.later, repeatable{q, api, a, due})
	slices.SortStableFunc(w.later, func(a, b repeatable) int { return a.due - b.due })
}

func (w *world) repeatOne(i int) {
	if i >= len(w.later) {
		return
	}
	x := w.later[i]
	w.later = slices.Delete(w.later, i, i+1)
	w.again(x, true)
}

// again sends a request to the other API: the answer is the same, and nothing
// changes.
func (w *world) again(x repeatable, done bool) {
	w.t.Helper()
	w.counts["repeated"]++
	w.ops++
	if w.r.IntN(10) == 0 && x.q.body != "" {
		other := x.q
		other.body += " "
		if a := w.sendTo(other, 1-x.api); a.code != http.StatusUnprocessableEntity || a.field("code") != "idempotency_key_reused" {
			w.fail("the answer to another payload must be 422 idempotency_key_reused")
		}
	}
	a := w.sendTo(x.q, 1-x.api)
	same := a.code == x.a.code
	if a.code < 300 {
		same = same && bytes.Equal(a.body, x.a.body)
	}
	for _, name := range []string{"ETag", "Location", "Headpond-Receipt", "Headpond-Durability", "Preference-Applied"} {
		same = same && slices.Equal(a.header[http.CanonicalHeaderKey(name)], x.a.header[http.CanonicalHeaderKey(name)])
	}
	if !same {
		w.fail("the answer to a repeat must be as the first one: %d %v %s", x.a.code, x.a.header, x.a.body)
	}
	if done && a.header.Get("Idempotency-Replayed") != "true" {
		w.fail("the answer to a repeat must say Idempotency-Replayed: true")
	}
}

// read a key.
func (w *world) read() {
	t := modelOf[w.r.IntN(len(modelOf))]
	w.readKey(t, t.keyOf(w.r, w.base))
}

func (w *world) readKey(t *modelTable, k modelKey) answer {
	w.t.Helper()
	w.ops++
	a, _ := w.send(sentRequest{method: "GET", path: "/v1/" + t.name + "/" + k.path})
	row := w.rows[t.name][k.path]
	if row == nil {
		if a.code != http.StatusNotFound || a.field("code") != "row_not_found" {
			w.fail("there is no such row")
		}
		return a
	}
	if a.code != http.StatusOK {
		w.fail("there is such a row: %s", row.json())
	}
	w.checkRow(row, a.body)
	w.checkTag(t, row, a.header.Get("ETag"))
	return a
}

// flushMoment lets the flusher catch up, or kills it or starts it.
func (w *world) flushMoment() {
	switch {
	case w.flusher == nil:
		w.start()
	case w.kills && w.r.IntN(2) == 0:
		w.flusher.kill()
		w.flusher = nil
		w.history = append(w.history, "the flusher was killed")
	default:
		w.flushed()
	}
}

func (w *world) start() {
	if w.flusher != nil {
		return
	}
	w.history = append(w.history, "a flusher was started")
	w.flusher = start(w.t, w.s.program, w.s.env(), "serve", "--role", "flusher", "--config", w.config)
	w.fresh = make(map[string]bool)
}

func (w *world) flushed() {
	w.start()
	a, err := request(http.MethodPost, w.apis[w.r.IntN(2)].api+"/v1/flush?wait=60s", "", "")
	require.NoError(w.t, err)
	require.Equal(w.t, http.StatusOK, a.code, "%s", a.body)
	w.history = append(w.history, "all is committed")
}

// surprise: an insert whose key is in Postgres and nowhere else is accepted,
// and becomes a dead letter; then the row is as it was.
func (w *world) surprise() {
	t := modelOf[w.r.IntN(len(modelOf))]
	k := t.keyOf(w.r, w.base)
	row := w.rows[t.name][k.path]
	if row == nil {
		return
	}
	w.flushed()
	clean := func() bool {
		a := w.readKey(t, k)
		status := a.header.Get("Cache-Status")
		return strings.Contains(status, "ttl=") || strings.Contains(status, "fwd=miss")
	}
	await(w.t, "the index to drop the key", clean)
	o := &modelOp{table: t, kind: "insert", key: k, given: modelRow{}}
	for _, c := range t.columns {
		o.given[c.name], _ = c.value(w.r)
	}
	w.ops++
	a, _ := w.send(sentRequest{method: "POST", path: "/v1/" + t.name, body: withKey(o).raw(), header: map[string]string{"Content-Type": typeJSON}})
	if a.code != http.StatusAccepted {
		w.fail("a key that only Postgres has must be accepted")
	}
	w.counts["dead letter"]++
	w.dead = append(w.dead, t.name+" 23505")
	w.flushed()
	receipt := a.field("receipt")
	await(w.t, "the row to be a dead letter", func() bool { return w.apis[0].get(w.t, "/v1/receipts/"+receipt).field("state") == "dead-lettered" })
	await(w.t, "the index to drop the dead row", func() bool {
		a, err := request(http.MethodGet, w.apis[0].api+"/v1/"+t.name+"/"+k.path, "", "")
		return err == nil && canonical(string(a.body)) == row.json()
	})
}

// atEnd compares the tables with the model.
func (w *world) atEnd() {
	for len(w.later) > 0 {
		w.repeatOne(0)
	}
	for _, t := range modelOf {
		for range 4 {
			w.readKey(t, t.keyOf(w.r, w.base))
		}
	}
	w.flushed()
	w.apis[0].settled(w.t)
	w.apis[1].settled(w.t)
	conn := connect(w.t, w.s.postgres.URL())
	for _, t := range modelOf {
		rows, err := conn.Query(w.t.Context(), `select to_jsonb(x)::text from `+t.name+` x`)
		require.NoError(w.t, err)
		got, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(w.t, err)
		for i := range got {
			got[i] = canonical(got[i])
		}
		var want []string
		for _, row := range w.rows[t.name] {
			want = append(want, row.json())
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			w.fail("the table %s holds\n%s\nand not\n%s", t.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	require.NoError(w.t, conn.Close(w.t.Context()))
	dead := column[string](w.t, w.s.postgres.URL(), `select table_name || ' ' || sqlstate from headpond.dead_letters order by id`)
	require.Equal(w.t, append([]string{}, w.dead...), append([]string{}, dead...), "dead letters")
}

// TestModel: whatever a client does, the answers and the tables are as in a
// model that knows no buffer.
func TestModel(t *testing.T) { againstModel(t, false) }

// TestModelFlusherKilled is the same with a flusher that is killed at random
// moments, and is not there for a while.
func TestModelFlusherKilled(t *testing.T) { againstModel(t, true) }

func againstModel(t *testing.T, kills bool) {
	program := buildProgram(t)
	t.Parallel()
	r, _ := seeded(t)
	runs, each := 1, 2000
	if os.Getenv("HEADPOND_LONG") != "" {
		runs, each = 20, 10_000
	}
	s := startServers(t, program)
	config := writeConfig(t, "tables_default: { partitions: 3, linger: 20ms, ttl: 50ms, retain: 30ms }")
	execute(t, s.postgres.URL(), modelTables)
	w := &world{t: t, r: r, s: s, config: config, kills: kills, rows: map[string]map[string]modelRow{"easy": {}, "needy": {}}, fresh: map[string]bool{}, counts: map[string]int{}}
	for i := range w.apis {
		w.apis[i] = s.serve(t, "--role", "api", "--config", config)
		w.apis[i].serves(t, "easy", "needy")
	}
	for run := range runs {
		w.base, w.tags, w.history = 10*run, map[string]string{}, nil
		for w.ops = 0; w.ops < each; {
			w.step()
		}
		w.atEnd()
	}
	w.start()
	t.Logf("%d runs of %d operations: %v", runs, each, w.counts)
}
