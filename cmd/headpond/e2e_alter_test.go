package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// Tables are altered while clients write to them through two API processes, two
// flushers work and are killed, and some rows wait. Which rows were flushed
// before is read in the transaction of ALTER TABLE; by which catalog a row was
// accepted its client knows, because the other one refuses it or answers in
// another order. So a model can say exactly what the table holds at the end.

// alterColumn is a column as requests name it at one time. is tells which
// column it is: the same under another name, or another one of the same name.
type alterColumn struct {
	name, is  string
	value     func(r *rand.Rand) string // JSON, as an answer has it
	otherwise string                    // the default
	adds      bool                      // increments add to it
	given     bool                      // by every whole row: it has no default and must not be null
}

// alterCase is one change of a table (id bigint primary key, n bigint not null
// default 0, …).
type alterCase struct {
	name          string
	table         string // columns after n; more statements after a semicolon
	alter, mend   string // SQL; TABLE stands for the name. Without mend, the table goes on by itself
	before, after []alterColumn
	halts         string // what the status must say of the table before it is mended

	altered func(row modelRow)                       // what alter does to a row that is there; nil: nothing
	empties bool                                     // alter removes all rows
	fit     func(is, kept string) (now, code string) // what becomes of a value of before that is flushed after; nil: it stays
	refuses []string                                 // codes of answers to requests of the other shape
	told    func(body string) (old bool)             // by which catalog an answer was made, when both take the request
	loose   bool                                     // what is accepted before it is mended must not be followed up
}

// alterOp is one operation that was accepted.
type alterOp struct {
	kind    string
	old     bool     // accepted by the catalog of before
	given   modelRow // by identity
	part    int
	seq     int64
	receipt string
}

// alterRun is a case at work.
type alterRun struct {
	*alterCase

	t     *testing.T
	db    string
	apis  [2]*headpond
	name  string // of the table
	least int64  // operations of each writer in each phase

	phase   atomic.Int32
	writers [3]alterWriter
	seqs    map[int]int64 // by partition: what was flushed before ALTER TABLE
	refused atomic.Int64
	reads   atomic.Int64
}

// Phases of a run.
const (
	beforeAlter  = iota // only requests of before, which all must be accepted
	closing             // the same; keys that may come to die are followed up no longer
	altering            // either
	afterNoticed        // only requests of after, which all must be accepted
	alterEnded
)

// alterWriter writes to keys of its own, one request after the other.
type alterWriter struct {
	run   *alterRun
	r     *rand.Rand
	first int64 // key
	next  int64
	ops   map[int64][]*alterOp
	seen  map[int64]modelRow // by key: the row as reads must show it, by identity
	open  []int64            // keys that may be followed up
	count atomic.Int64
	at    atomic.Int32 // phase of its request
}

func (c *alterCase) shape(old bool) []alterColumn {
	n := alterColumn{name: "n", is: "n", value: alterNumber, otherwise: "0", adds: true}
	if old {
		return append([]alterColumn{n}, c.before...)
	}
	return append([]alterColumn{n}, c.after...)
}

func alterNumber(r *rand.Rand) string { return strconv.Itoa(r.IntN(1000)) }

// deadly reports whether rows may become dead letters, or vanish: then what
// follows on a key depends on whether the API has heard of it.
func (c *alterCase) deadly() bool { return c.fit != nil || c.empties || c.needs() != "" }

// needs is the column that rows of before lack and must have.
func (c *alterCase) needs() string {
	for _, x := range c.after {
		if x.given {
			return x.is
		}
	}
	return ""
}

// risky reports whether an operation may come to die.
func (c *alterCase) risky(o *alterOp) bool {
	if c.empties || c.needs() != "" && o.old {
		return true
	}
	for is, v := range o.given {
		if c.fit != nil {
			if _, code := c.fit(is, v); code != "" {
				return true
			}
		}
	}
	return false
}

func (w *alterWriter) work() {
	reads := !w.run.deadly() && w.run.altered == nil
	for {
		phase := w.run.phase.Load()
		if phase == alterEnded || w.run.t.Failed() {
			return
		}
		if phase != w.at.Load() && phase == closing {
			w.closeRisky()
		}
		w.at.Store(phase)
		if reads && len(w.open) > 0 && w.r.IntN(6) == 0 {
			w.read(phase, w.open[w.r.IntN(len(w.open))])
		} else {
			w.write(phase)
		}
	}
}

// write sends one operation, and keeps it when it is accepted.
func (w *alterWriter) write(phase int32) {
	old := phase <= closing || phase == altering && w.r.IntN(2) == 0
	key, kind := w.choose(phase)
	given := w.given(kind, old)
	q := sentRequest{header: map[string]string{"Content-Type": typeJSON}, path: "/v1/" + w.run.name, body: given.raw()}
	if w.run.told != nil {
		q.header["Prefer"] = "return=representation"
	}
	switch kind {
	case "insert":
		row := maps.Clone(given)
		row["id"] = strconv.FormatInt(key, 10)
		q.method, q.body = http.MethodPost, row.raw()
	case "increment":
		q.method, q.path = http.MethodPost, fmt.Sprintf("%s/%d/increment", q.path, key)
	default:
		q.method, q.path = strings.ToUpper(kind), fmt.Sprintf("%s/%d", q.path, key)
	}
	if kind == "delete" {
		q.body = ""
	}
	a, err := q.to(w.run.apis[w.r.IntN(2)])
	if err != nil {
		w.run.t.Errorf("%s %s %s: %v", q.method, q.path, q.body, err)
		return
	}
	if a.code >= 300 {
		if phase != altering || a.field("applied") != "no" || !slices.Contains(w.run.refuses, a.field("code")) {
			w.run.t.Errorf("in phase %d: %s %s %s -> %d %s", phase, q.method, q.path, q.body, a.code, a.body)
		}
		w.run.refused.Add(1)
		return
	}
	if w.run.told != nil && kind != "delete" {
		told := w.run.told(string(a.body))
		if told != old && phase != altering {
			w.run.t.Errorf("in phase %d: %s %s %s -> %s by the catalog of another time", phase, q.method, q.path, q.body, a.body)
		}
		old = told
	}
	w.accepted(phase, key, kind, old, given, a)
}

// choose what to do to which key: mostly a new one.
func (w *alterWriter) choose(phase int32) (key int64, kind string) {
	if len(w.open) == 0 || w.r.IntN(5) < 2 {
		w.next++
		kind = []string{"insert", "insert", "insert", "put", "increment"}[w.r.IntN(5)]
		if kind == "increment" && w.run.needs() != "" {
			kind = "put"
		}
		return w.next, kind
	}
	return w.open[w.r.IntN(len(w.open))], []string{"put", "patch", "patch", "patch", "increment", "increment", "increment", "delete"}[w.r.IntN(8)]
}

// given is the columns of a request, by name.
func (w *alterWriter) given(kind string, old bool) modelRow {
	given := modelRow{}
	for _, c := range w.run.shape(old) {
		switch {
		case kind == "increment" && c.adds:
			given[c.name] = []string{"1", "-7", "1000"}[w.r.IntN(3)]
		case kind != "increment" && (c.given && kind != "patch" || w.r.IntN(3) > 0):
			given[c.name] = c.value(w.r)
		}
	}
	return given
}

// accepted keeps an operation.
func (w *alterWriter) accepted(phase int32, key int64, kind string, old bool, given modelRow, a answer) {
	o := &alterOp{kind: kind, old: old, given: modelRow{}, receipt: a.field("receipt")}
	for _, c := range w.run.shape(old) {
		if v, ok := given[c.name]; ok {
			o.given[c.is] = v
		}
	}
	parts := strings.Split(o.receipt, ".")
	if len(parts) != 4 {
		w.run.t.Errorf("an answer without a receipt: %d %s", a.code, a.body)
		return
	}
	o.part, _ = strconv.Atoi(parts[1])
	o.seq, _ = strconv.ParseInt(parts[3], 10, 64)
	w.ops[key] = append(w.ops[key], o)
	w.seen[key] = w.run.applied(w.seen[key], o)
	i := slices.Index(w.open, key)
	closed := kind == "delete" || phase >= closing && w.run.deadly() && w.run.risky(o) || phase == altering && w.run.loose
	switch {
	case i < 0 && !closed:
		w.open = append(w.open, key)
	case i >= 0 && closed:
		w.open = slices.Delete(w.open, i, i+1)
	}
	w.count.Add(1)
}

// closeRisky leaves keys alone that may come to die.
func (w *alterWriter) closeRisky() {
	w.open = slices.DeleteFunc(w.open, func(key int64) bool {
		return w.run.loose || w.run.deadly() && slices.ContainsFunc(w.ops[key], w.run.risky)
	})
}

// applied is the row after an operation, by identity.
func (run *alterRun) applied(before modelRow, o *alterOp) modelRow {
	if o.kind == "delete" {
		return nil
	}
	row := maps.Clone(before)
	fresh := before == nil || o.kind == "put" || o.kind == "insert"
	if fresh {
		row = modelRow{}
	}
	for _, c := range run.shape(o.old) {
		if _, has := row[c.is]; fresh || !has {
			row[c.is] = c.otherwise
		}
		v, given := o.given[c.is]
		switch {
		case !given:
		case o.kind == "increment":
			row[c.is] = alterSum(row[c.is], v)
		default:
			row[c.is] = v
		}
	}
	return row
}

// alterSum adds whole numbers, which may be texts by now.
func alterSum(a, b string) string {
	number := func(s string) int64 {
		n, _ := strconv.ParseInt(strings.Trim(s, `"`), 10, 64) // null counts as 0
		return n
	}
	sum := strconv.FormatInt(number(a)+number(b), 10)
	if strings.HasPrefix(a, `"`) {
		return quoted(sum)
	}
	return sum
}

// shown is a row as one catalog shows it.
func (run *alterRun) shown(key int64, row modelRow, old bool) string {
	out := modelRow{"id": strconv.FormatInt(key, 10)}
	for _, c := range run.shape(old) {
		out[c.name] = c.otherwise
		if v, has := row[c.is]; has {
			out[c.name] = v
		}
	}
	return out.json()
}

// read a key: the row is as one of the catalogs shows it.
func (w *alterWriter) read(phase int32, key int64) {
	api := w.r.IntN(2)
	a, err := request(http.MethodGet, fmt.Sprintf("%s/v1/%s/%d", w.run.apis[api].api, w.run.name, key), "", "")
	if err == nil && a.code >= 300 && phase == altering && slices.Contains(w.run.refuses, a.field("code")) {
		return
	}
	got := canonical(string(a.body))
	was, is := w.run.shown(key, w.seen[key], true), w.run.shown(key, w.seen[key], false)
	w.run.reads.Add(1)
	if err != nil || !(got == was && phase <= altering || got == is && phase >= altering) {
		w.run.t.Errorf("in phase %d, API %d: key %d is read as %d %s (%v), not %s or %s", phase, api, key, a.code, a.body, err, was, is)
	}
}

func (run *alterRun) sql(text string) string { return strings.ReplaceAll(text, "TABLE", run.name) }

// written waits until each writer had so many more operations accepted.
func (run *alterRun) written(more int64) {
	run.t.Helper()
	var from [3]int64
	for i := range run.writers {
		from[i] = run.writers[i].count.Load()
	}
	await(run.t, run.name+": operations", func() bool {
		for i := range run.writers {
			if run.writers[i].count.Load() < from[i]+more && !run.t.Failed() {
				return false
			}
		}
		return true
	})
	require.False(run.t, run.t.Failed())
}

// to lets the writers go on to a phase; when it returns, no request of the one
// before is on its way.
func (run *alterRun) to(phase int32) {
	run.t.Helper()
	run.phase.Store(phase)
	for i := range run.writers {
		await(run.t, "a writer", func() bool { return run.writers[i].at.Load() == phase || run.t.Failed() })
	}
	require.False(run.t, run.t.Failed())
}

// noticed waits until both APIs serve the table, with another schema or not.
func (run *alterRun) noticed(what string, cond func(code int, fingerprint string) bool) {
	run.t.Helper()
	for _, h := range run.apis {
		await(run.t, run.name+": an API to notice "+what, func() bool {
			a := h.get(run.t, "/v1/"+run.name+"/_schema")
			return cond(a.code, a.field("fingerprint")) || run.t.Failed()
		})
	}
}

// work runs the case on a table that is there.
func (run *alterRun) work(hold string) {
	t := run.t
	fingerprint := run.apis[0].get(t, "/v1/"+run.name+"/_schema").field("fingerprint")
	var writing sync.WaitGroup
	defer writing.Wait()
	defer run.phase.Store(alterEnded)
	for i := range run.writers {
		writing.Go(run.writers[i].work)
	}
	run.written(run.least)
	await(t, "commits", func() bool {
		return value[int64](t, run.db, `select coalesce(sum(committed), 0)::bigint from headpond.watermarks where table_name = $1`, run.name) > 0
	})
	run.to(closing)
	release := run.hold(hold)
	defer release()
	run.written(run.least)
	run.to(altering)
	run.alterNow()
	if run.mend == "" {
		run.written(run.least / 2)
		release()
		run.noticed("ALTER TABLE", func(code int, f string) bool { return code == http.StatusOK && f != fingerprint })
	} else {
		run.noticed("that it cannot write", func(code int, f string) bool { return code != http.StatusOK || f != fingerprint })
		release()
		await(t, run.name+" to be halted", func() bool { return run.halted(run.halts) })
		execute(t, run.db, run.sql(run.mend))
		run.noticed("that it can write", func(code int, f string) bool { return code == http.StatusOK && (f == fingerprint) == !run.empties })
	}
	run.to(afterNoticed)
	run.written(run.least)
}

// hold locks some watermarks of the table, as a worker that is busy does: rows
// wait there until release.
func (run *alterRun) hold(which string) (release func()) {
	conn := connect(run.t, run.db)
	tx, err := conn.Begin(run.t.Context())
	require.NoError(run.t, err)
	_, err = tx.Exec(run.t.Context(), `select from headpond.watermarks where table_name = $1 and `+which+` order by partition for update`, run.name)
	require.NoError(run.t, err)
	return sync.OnceFunc(func() {
		_ = tx.Rollback(context.WithoutCancel(run.t.Context()))
		_ = conn.Close(context.WithoutCancel(run.t.Context()))
	})
}

// alterNow alters the table, and notes what was flushed before.
func (run *alterRun) alterNow() {
	run.seqs = make(map[int]int64)
	err := pgx.BeginFunc(run.t.Context(), connect(run.t, run.db), func(tx pgx.Tx) error {
		if _, err := tx.Exec(run.t.Context(), run.sql(run.alter)); err != nil {
			return err
		}
		rows, err := tx.Query(run.t.Context(), `select partition, seq from headpond.watermarks where table_name = $1`, run.name)
		if err != nil {
			return err
		}
		var part int
		var seq int64
		_, err = pgx.ForEachRow(rows, []any{&part, &seq}, func() error { run.seqs[part] = seq; return nil })
		return err
	})
	require.NoError(run.t, err, run.sql(run.alter))
}

// halted reports whether the status says that the table is, and why.
func (run *alterRun) halted(why string) bool {
	var s struct {
		Tables map[string]struct {
			Halted bool
			Error  string
		}
	}
	require.NoError(run.t, json.Unmarshal(run.apis[0].get(run.t, "/admin/v1/status").body, &s))
	return s.Tables[run.name].Halted && strings.Contains(s.Tables[run.name].Error, why)
}

// outcome of the operations on a key: the row, and which of them Postgres must
// refuse, with the code.
func (run *alterRun) outcome(ops []*alterOp) (row modelRow, dead map[*alterOp]string) {
	var seen modelRow
	dead = make(map[*alterOp]string)
	flushed := true
	for _, o := range ops {
		if flushed && o.seq > run.seqs[o.part] {
			flushed, row = false, run.converted(row)
		}
		seen = run.applied(seen, o)
		if flushed {
			row = seen
			continue
		}
		next, code := run.flushedAfter(row, seen, o)
		if code != "" {
			dead[o] = code
			continue
		}
		row = next
	}
	if flushed {
		row = run.converted(row)
	}
	return row, dead
}

// converted is a row after ALTER TABLE.
func (run *alterRun) converted(row modelRow) modelRow {
	if row == nil || run.empties {
		return nil
	}
	row = maps.Clone(row)
	for _, c := range run.shape(false) {
		if _, has := row[c.is]; !has {
			row[c.is] = c.otherwise
		}
	}
	if run.altered != nil {
		run.altered(row)
	}
	return row
}

// flushedAfter is a row after an operation that is flushed after ALTER TABLE.
func (run *alterRun) flushedAfter(row, seen modelRow, o *alterOp) (next modelRow, code string) {
	if o.kind == "delete" {
		return nil, ""
	}
	next, source := maps.Clone(row), o.given
	whole := row == nil || o.kind == "insert" || o.kind == "put"
	if whole { // as the API knew it, for the columns that it knew
		next, source = modelRow{}, modelRow{}
		for _, c := range run.shape(o.old) {
			source[c.is] = seen[c.is]
		}
	}
	for _, c := range run.shape(false) {
		v, given := source[c.is]
		switch {
		case !given && whole && c.given:
			return nil, "23502"
		case !given && whole:
			next[c.is] = c.otherwise
		}
		if !given {
			continue
		}
		if o.kind == "increment" && !whole {
			v = alterSum(next[c.is], v)
		}
		if run.fit != nil {
			if v, code = run.fit(c.is, v); code != "" {
				return nil, code
			}
		}
		next[c.is] = v
	}
	return next, ""
}

// check compares the table, the dead letters and the books with the model. All
// must be flushed.
func (run *alterRun) check() {
	t := run.t
	want, dead, parked, must := make(map[string]string), make(map[string]string), make(map[string]string), make(map[string]bool)
	var accepted, waited int64
	for i := range run.writers {
		for key, ops := range run.writers[i].ops {
			accepted += int64(len(ops))
			slices.SortFunc(ops, func(a, b *alterOp) int { return int(a.seq - b.seq) })
			row, refused := run.outcome(ops)
			if row != nil {
				want[strconv.FormatInt(key, 10)] = run.shown(key, row, false)
			}
			for i, o := range ops[min(1, len(ops)):] { // a change that comes in a later batch than the refused row before it is parked
				if refused[ops[i]] != "" && refused[o] != "" && o.kind != "insert" && o.kind != "put" {
					parked[o.receipt] = fmt.Sprint(key, " HP002")
				}
			}
			superseded := false // by a later one, which may have been merged with it
			for _, o := range slices.Backward(ops) {
				if o.old && o.seq > run.seqs[o.part] {
					waited++
				}
				if code, bad := refused[o]; bad {
					dead[o.receipt] = fmt.Sprint(key, " ", code)
					must[o.receipt] = !superseded
				} else {
					superseded = true
				}
			}
		}
	}
	got := make(map[string]string)
	for _, text := range column[string](t, run.db, `select to_jsonb(r)::text from `+run.name+` r`) {
		var row struct{ ID json.Number }
		require.NoError(t, json.Unmarshal([]byte(text), &row))
		require.Empty(t, got[row.ID.String()], "there twice")
		got[row.ID.String()] = canonical(text)
	}
	wrong := 0
	keys := maps.Clone(want)
	maps.Copy(keys, got)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if want[key] != got[key] && wrong < 5 {
			wrong++
			t.Errorf("key %s is %s in the table and must be %s, after %s", key, got[key], want[key], run.story(key))
		}
	}
	run.readBack(keys, want)
	graves := column[string](t, run.db, `
		select concat_ws('.', table_name, partition, epoch, seq) || ' ' || key || ' ' || sqlstate from headpond.dead_letters where table_name = $1`, run.name)
	for _, g := range graves {
		receipt, what, _ := strings.Cut(g, " ")
		if dead[receipt] != what && parked[receipt] != what {
			t.Errorf("there is a dead letter %q, where the model has %q", g, dead[receipt])
		}
		delete(must, receipt)
	}
	for receipt, yes := range must {
		if yes {
			t.Errorf("there is no dead letter %s %s", receipt, dead[receipt])
		}
	}
	b := run.apis[0].status(t).Tables[run.name].Ledger
	require.Equal(t, accepted, b.Accepted, "accepted")
	require.Equal(t, b.Accepted, b.Committed+b.Coalesced+b.Dead, "the ledger does not close: %+v", b)
	require.EqualValues(t, len(graves), b.Dead, "each dead letter once")
	require.Positive(t, waited, "too few rows waited for the test to mean anything")
	t.Logf("%d operations, %d of before flushed after, %d dead letters (%d must be), %d refused, %d reads: %+v",
		accepted, waited, len(graves), len(dead), run.refused.Load(), run.reads.Load(), b)
}

// readBack reads some keys: they are as in the table, once what was kept of
// them has ended.
func (run *alterRun) readBack(keys, want map[string]string) {
	run.t.Helper()
	n := 0
	for key := range keys { // in random order
		if n++; n > 15 {
			return
		}
		h, read := run.apis[n%2], answer{}
		await(run.t, "key "+key+" to be read as it is", func() bool {
			read = h.get(run.t, "/v1/"+run.name+"/"+key)
			return want[key] == "" && read.code == http.StatusNotFound || read.code == http.StatusOK && canonical(string(read.body)) == want[key]
		})
	}
}

// story is what was done to a key.
func (run *alterRun) story(key string) string {
	n, _ := strconv.ParseInt(key, 10, 64)
	var b strings.Builder
	for i := range run.writers {
		for _, o := range run.writers[i].ops[n] {
			fmt.Fprintf(&b, "%s %s (by the catalog of before: %t, flushed before: %t, %s); ", o.kind, o.given.raw(), o.old, o.seq <= run.seqs[o.part], o.receipt)
		}
	}
	return b.String()
}

func alterText(r *rand.Rand) string { return quoted(fmt.Sprint("t", r.IntN(1000))) }

func alterWord(words ...string) func(r *rand.Rand) string {
	return func(r *rand.Rand) string { return quoted(words[r.IntN(len(words))]) }
}

func alterDigits(r *rand.Rand) string { return quoted(strconv.Itoa(r.IntN(1000))) }

// alterSome is a column of values that must be kept as they are.
func alterSome(name, is string, value func(r *rand.Rand) string) alterColumn {
	return alterColumn{name: name, is: is, value: value, otherwise: "null"}
}

var (
	alterNote   = alterSome("note", "note", alterText)
	digitsOnly  = regexp.MustCompile(`^"[0-9]+"$`)
	alterStale  = []string{"unknown_column", "type_mismatch", "invalid_value", "store_unavailable"}
	alterMoment = func(r *rand.Rand) string {
		return quoted(time.Date(2026, 1, 1, r.IntN(10_000), r.IntN(60), 0, 0, time.UTC).Format("2006-01-02T15:04:05+00:00"))
	}
)

// rounded to two digits, half up, as Postgres does.
func rounded(v string) string {
	if v == "null" {
		return v
	}
	whole, fraction, _ := strings.Cut(v, ".")
	cents, _ := strconv.ParseInt(whole+(fraction + "0000")[:4], 10, 64)
	return money((cents + 50) / 100)
}

var alterCases = []*alterCase{
	{
		name: "add", table: "note text",
		alter:  "alter table TABLE add a int, add b int not null default 7, add c text default 'see'",
		before: []alterColumn{alterNote},
		after: []alterColumn{alterNote, alterSome("a", "a", alterNumber), {name: "b", is: "b", value: alterNumber, otherwise: "7", adds: true},
			{name: "c", is: "c", value: alterText, otherwise: `"see"`}},
		refuses: alterStale,
	},
	{ // rows of before lack it: they are dead letters
		name: "must", table: "note text",
		alter:   "alter table TABLE add must int; update TABLE set must = -1; alter table TABLE alter must set not null",
		before:  []alterColumn{alterNote},
		after:   []alterColumn{alterNote, {name: "must", is: "must", value: alterNumber, otherwise: "null", given: true}},
		altered: func(row modelRow) { row["must"] = "-1" },
		refuses: append([]string{"required"}, alterStale...),
	},
	{
		name: "dropped", table: "gone text, x int, y text default 'why'",
		alter:   "alter table TABLE drop gone",
		before:  []alterColumn{alterSome("gone", "gone", alterText), alterSome("x", "x", alterNumber), {name: "y", is: "y", value: alterText, otherwise: `"why"`}},
		after:   []alterColumn{alterSome("x", "x", alterNumber), {name: "y", is: "y", value: alterText, otherwise: `"why"`}},
		refuses: alterStale,
	},
	{
		name: "renamed", table: "x int, y text",
		alter:   "alter table TABLE rename x to z",
		before:  []alterColumn{alterSome("x", "x", alterNumber), alterSome("y", "y", alterText)},
		after:   []alterColumn{alterSome("z", "x", alterNumber), alterSome("y", "y", alterText)},
		refuses: alterStale,
	},
	{
		name: "swapped", table: "a int, b int",
		alter:   "alter table TABLE rename a to c; alter table TABLE rename b to a; alter table TABLE rename c to b",
		before:  []alterColumn{{name: "a", is: "a", value: alterNumber, otherwise: "null", adds: true}, alterSome("b", "b", alterNumber)},
		after:   []alterColumn{{name: "b", is: "a", value: alterNumber, otherwise: "null", adds: true}, alterSome("a", "b", alterNumber)},
		told:    func(body string) bool { return strings.Index(body, `"a":`) < strings.Index(body, `"b":`) },
		refuses: alterStale,
	},
	{
		name: "another", table: "x int, y text", // of the same name, and another type
		alter:   "alter table TABLE drop x; alter table TABLE add x text default 'new'",
		before:  []alterColumn{alterSome("x", "x", alterNumber), alterSome("y", "y", alterText)},
		after:   []alterColumn{alterSome("y", "y", alterText), {name: "x", is: "x2", value: alterText, otherwise: `"new"`}},
		refuses: alterStale,
	},
	{
		name: "wider", table: "x int",
		alter:   "alter table TABLE alter x type bigint",
		before:  []alterColumn{{name: "x", is: "x", value: alterNumber, otherwise: "null", adds: true}},
		after:   []alterColumn{{name: "x", is: "x", value: func(r *rand.Rand) string { return strconv.FormatInt(r.Int64N(1<<60), 10) }, otherwise: "null", adds: true}},
		refuses: append([]string{"out_of_range"}, alterStale...),
	},
	{
		name: "totext", table: "x int",
		alter:  "alter table TABLE alter x type text",
		before: []alterColumn{{name: "x", is: "x", value: alterNumber, otherwise: "null", adds: true}},
		after:  []alterColumn{alterSome("x", "x", alterDigits)},
		altered: func(row modelRow) {
			if row["x"] != "null" {
				row["x"] = quoted(row["x"])
			}
		},
		fit: func(is, v string) (string, string) {
			if is == "x" && v != "null" && v[0] != '"' {
				return quoted(v), ""
			}
			return v, ""
		},
		refuses: append([]string{"not_numeric"}, alterStale...),
	},
	{
		name: "toint", table: "x text",
		alter: `alter table TABLE alter x type int using case when x ~ '^[0-9]+$' then x::int end`,
		before: []alterColumn{alterSome("x", "x", func(r *rand.Rand) string {
			if r.IntN(4) == 0 {
				return `"none"`
			}
			return alterDigits(r)
		})},
		after: []alterColumn{alterSome("x", "x", alterNumber)},
		altered: func(row modelRow) {
			if row["x"] == `"none"` {
				row["x"] = "null"
			}
			row["x"] = strings.Trim(row["x"], `"`)
		},
		fit: func(is, v string) (string, string) {
			if is != "x" || v[0] != '"' {
				return v, ""
			}
			if !digitsOnly.MatchString(v) {
				return "", "22P02"
			}
			return strings.Trim(v, `"`), ""
		},
		refuses: alterStale,
	},
	{
		name: "shorter", table: "x numeric(10,4)",
		alter:   "alter table TABLE alter x type numeric(10,2)",
		before:  []alterColumn{alterSome("x", "x", func(r *rand.Rand) string { return fmt.Sprintf("%d.%04d", r.IntN(1000), r.IntN(10_000)) })},
		after:   []alterColumn{alterSome("x", "x", func(r *rand.Rand) string { return money(int64(r.IntN(100_000))) })},
		altered: func(row modelRow) { row["x"] = rounded(row["x"]) },
		fit: func(is, v string) (string, string) {
			if is == "x" {
				return rounded(v), ""
			}
			return v, ""
		},
		refuses: alterStale,
	},
	{
		name: "todate", table: "x timestamptz",
		alter:   "set local timezone = 'UTC'; alter table TABLE alter x type date",
		before:  []alterColumn{alterSome("x", "x", alterMoment)},
		after:   []alterColumn{alterSome("x", "x", func(r *rand.Rand) string { return alterMoment(r)[:11] + `"` })},
		altered: func(row modelRow) { row["x"], _ = alterDay("x", row["x"]) },
		fit:     alterDay,
		refuses: append([]string{"invalid_datetime"}, alterStale...),
	},
	{
		name: "label", table: "x TABLE_mood; create type TABLE_mood as enum ('sad', 'calm')",
		alter:   "alter type TABLE_mood add value 'glad'",
		before:  []alterColumn{alterSome("x", "x", alterWord("sad", "calm"))},
		after:   []alterColumn{alterSome("x", "x", alterWord("sad", "calm", "glad"))},
		refuses: alterStale,
	},
	{ // rows of before have a label that is no more
		name: "relabelled", table: "x TABLE_mood; create type TABLE_mood as enum ('sad', 'calm')",
		alter:  "lock table TABLE; alter type TABLE_mood rename value 'sad' to 'blue'",
		before: []alterColumn{alterSome("x", "x", alterWord("sad", "calm"))},
		after:  []alterColumn{alterSome("x", "x", alterWord("blue", "calm"))},
		altered: func(row modelRow) {
			if row["x"] == `"sad"` {
				row["x"] = `"blue"`
			}
		},
		fit: func(_, v string) (string, string) {
			if v == `"sad"` {
				return "", "22P02"
			}
			return v, ""
		},
		refuses: alterStale,
	},
	{ // the rows that wait find their columns by name
		name: "recreated", table: "x int, y int",
		alter:   "drop table TABLE",
		mend:    "create table TABLE (y int, added int default 3, id bigint primary key, x int, n bigint not null default 0)",
		halts:   "does not exist",
		before:  []alterColumn{alterSome("x", "x", alterNumber), alterSome("y", "y", alterNumber)},
		after:   []alterColumn{alterSome("x", "x", alterNumber), alterSome("y", "y", alterNumber), {name: "added", is: "added", value: alterNumber, otherwise: "3"}},
		empties: true, loose: true,
		refuses: append([]string{"table_not_found"}, alterStale...),
	},
	{
		name: "secured", table: "note text",
		alter: "alter table TABLE enable row level security", mend: "alter table TABLE disable row level security",
		halts:  "row-level security",
		before: []alterColumn{alterNote}, after: []alterColumn{alterNote},
		refuses: append([]string{"table_not_usable"}, alterStale...),
	},
	{
		name: "keyless", table: "note text",
		alter: "alter table TABLE drop constraint TABLE_pkey", mend: "alter table TABLE add primary key (id)",
		halts:  "primary key",
		before: []alterColumn{alterNote}, after: []alterColumn{alterNote},
		loose:   true,
		refuses: append([]string{"no_primary_key"}, alterStale...),
	},
}

func alterDay(is, v string) (string, string) {
	if is == "x" && v != "null" {
		return v[:11] + `"`, ""
	}
	return v, ""
}

// TestAlterUnderLoad: each change of a schema, while clients write: nothing is
// lost, nothing lands in another column, and what fits no more is a dead letter.
func TestAlterUnderLoad(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	r, seed := seeded(t)
	rounds, least := 1, int64(6)
	if os.Getenv("HEADPOND_LONG") != "" {
		rounds, least = 6, 40
	}
	s := startServers(t, program)
	config := writeConfig(t, "tables_default: { partitions: 4, linger: 10ms, ttl: 50ms, retain: 30ms }")
	var apis [2]*headpond
	for i := range apis {
		apis[i] = s.serve(t, "--role", "api", "--config", config)
	}
	serve := func() *process { return start(t, program, s.env(), "serve", "--role", "flusher", "--config", config) }
	flushers := [2]*process{serve(), serve()}
	var runs []*alterRun
	for round := range rounds {
		var ddl strings.Builder
		for i, c := range alterCases {
			run := &alterRun{alterCase: c, db: s.postgres.URL(), apis: apis, name: fmt.Sprintf("%s_%d", c.name, round), least: least}
			for j := range run.writers {
				n := uint64(1000*round + 10*i + j)
				run.writers[j] = alterWriter{
					run: run, r: rand.New(rand.NewPCG(seed, n)), next: int64(j+1) * 1_000_000,
					ops: make(map[int64][]*alterOp), seen: make(map[int64]modelRow),
				}
			}
			columns, more, _ := strings.Cut(c.table, ";")
			ddl.WriteString(run.sql(more + "; create table TABLE (id bigint primary key, n bigint not null default 0, " + columns + ");"))
			runs = append(runs, run)
		}
		execute(t, s.postgres.URL(), ddl.String())
		for _, run := range runs[round*len(alterCases):] {
			apis[0].serves(t, run.name)
			apis[1].serves(t, run.name)
		}
		var working sync.WaitGroup
		hold := []string{"partition < 2", "true", "partition = 3"}[round%3]
		for _, run := range runs[round*len(alterCases):] {
			working.Go(func() {
				t.Run(run.name, func(t *testing.T) {
					run.t = t
					run.work(hold)
				})
			})
		}
		working.Go(func() {
			t.Run(fmt.Sprintf("created_%d", round), func(t *testing.T) { createdUnderLoad(t, s, apis, fmt.Sprintf("created_%d", round)) })
		})
		done := make(chan struct{})
		go func() { working.Wait(); close(done) }()
		for i := 0; !closedNow(done); i++ {
			at := committed(t, s.postgres.URL()) + 100 + r.Int64N(400)
			await(t, "commits", func() bool {
				return closedNow(done) || flushers[(i+1)%2].reads() && committed(t, s.postgres.URL()) >= at
			})
			flushers[i%2].kill()
			flushers[i%2] = serve()
		}
	}
	require.False(t, t.Failed())
	apis[0].settled(t)
	apis[1].settled(t)
	for _, run := range runs {
		t.Run(run.name+"/outcome", func(t *testing.T) {
			run.t = t
			run.check()
		})
	}
}

// createdUnderLoad writes to a table before it is there: that is a 404, until
// the API has noticed it, and never again.
func createdUnderLoad(t *testing.T, s *servers, apis [2]*headpond, name string) {
	const rows = 50
	var missing atomic.Int32
	var writing sync.WaitGroup
	for i, h := range apis {
		writing.Go(func() {
			for n := 0; n < rows && !t.Failed(); {
				a, err := h.post(name, typeJSON, fmt.Sprintf(`{"id":%d,"note":"row %d"}`, 1000*i+n, n))
				switch {
				case err == nil && a.code == http.StatusAccepted:
					n++
				case err == nil && n == 0 && a.field("code") == "table_not_found" && a.field("applied") == "no":
					missing.Or(1 << i)
				default:
					t.Errorf("API %d, after %d rows: %d %s %v", i, n, a.code, a.body, err)
				}
			}
		})
	}
	await(t, "both APIs to have refused a row", func() bool { return missing.Load() == 3 || t.Failed() })
	execute(t, s.postgres.URL(), `create table `+name+` (id int primary key, note text)`)
	writing.Wait()
	await(t, "the rows to arrive", func() bool {
		return t.Failed() || value[int](t, s.postgres.URL(), `select count(*) from `+name+` where note = 'row ' || id % 1000`) == rows*len(apis)
	})
}

// reads reports whether the process has read the catalog, and can be at work.
func (p *process) reads() bool {
	_, yes := p.log.line(`"msg":"catalog read"`)
	return yes
}

func closedNow(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
