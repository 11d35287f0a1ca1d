package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sort"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// post is POST /v1/{table}: insert one row or many.
func (s *Server) post(c echo.Context) error {
	r := c.Request()
	if s.draining.Load() {
		return buffer.ErrDraining
	}
	sv, err := s.served(segment(r, 2))
	if err != nil {
		return err
	}
	prefer, err := readPreferences(r.Header, s.limits.Wait)
	if err != nil {
		return err
	}
	f, err := rowsMedia.read(r.Header)
	if err != nil {
		return err
	}
	body, err := s.readBody(c.Response(), r, s.limits.Body)
	if err != nil {
		return err
	}
	defer bodies.Put(body)
	in := newIncoming(sv.Table)
	defer in.release()
	if err := in.read(body.Bytes(), f, s.limits.Rows); err != nil {
		return err
	}
	if in.idem, err = s.claimKey(r, buffer.Place{Table: sv.Target.Table}, sv.Target.Partitions, body.Bytes()); err != nil {
		return err
	}
	now := time.Now()
	var given []table.Row
	if prefer.Exists != refuseExisting {
		if err := changeable(sv, table.OpPatch); err != nil {
			return err
		}
		given = givenOf(in)
	}
	if err := s.complete(r.Context(), sv, in, now); err != nil {
		return err
	}
	strict := in.single || f == formatJSON
	if prefer.Strict != nil && !in.single {
		strict = *prefer.Strict
		prefer.write(c.Response().Header(), "handling")
	}
	if prefer.Return == "representation" && given == nil && !(strict && anyBad(in)) {
		if err := s.generate(r.Context(), in); err != nil {
			return err
		}
	}
	if strict && anyBad(in) {
		return rejected(in)
	}
	c.Set(sent, true)
	if given != nil || sv.Target.Direct() {
		return s.resolve(c, sv, in, given, &prefer, strict)
	}
	w, err := s.append(r.Context(), sv, in, strict, prefer.Return == "representation", now)
	if errors.Is(err, buffer.ErrSwitched) {
		return s.resolve(c, sv, in, given, &prefer, strict)
	}
	if err != nil {
		return err
	}
	in.idem.header(c.Response().Header())
	if prefer.Wait > 0 {
		if err := s.awaitCommit(r.Context(), w, prefer.Wait); err != nil {
			return err
		}
	}
	if in.single {
		return s.answerOne(c, sv, in, w, prefer)
	}
	return s.answerMany(c, sv, in, w, prefer)
}

// givenOf notes which cells the request gave, before the others are made.
func givenOf(in *incoming) []table.Row {
	given := make([]table.Row, len(in.rows))
	for i := range in.rows {
		given[i] = slices.Clone(in.rows[i].cells)
	}
	return given
}

// resolve is a post that knows what to do with keys that exist, or that writes
// directly. given is what the request gave of each row; nil when keys that exist
// are refused.
func (s *Server) resolve(c echo.Context, sv *Served, in *incoming, given []table.Row, prefer *preferences, strict bool) error {
	items := make([]*item, len(in.rows))
	for n := range in.rows {
		row := &in.rows[n]
		i := &item{index: n, sv: sv, errs: row.errs, o: &operation{kind: table.OpInsert, exists: prefer.Exists}}
		i.o.idem, i.o.part = in.idem, n
		items[n] = i
		if len(row.errs) > 0 {
			continue
		}
		i.o.whole = cloneRow(row.cells)
		if given != nil {
			for col := range given[n] {
				if given[n][col].State != table.Missing {
					given[n][col] = i.o.whole[col] // judged meanwhile
				}
			}
			i.o.giveCells(sv.Table, given[n])
		}
		i.key, i.fresh, i.place = row.key, row.fresh, buffer.Place{Table: sv.Target.Table, Partition: row.place}
		for _, k := range sv.Table.Key {
			i.cells = append(i.cells, i.o.whole[k])
		}
	}
	if !in.single {
		return s.writeItems(c, items, prefer, strict, false)
	}
	i := items[0]
	s.runOne(c.Request().Context(), &task{sv: sv, place: i.place, key: i.key, cells: i.cells, ops: []*operation{i.o}})
	if i.o.err != nil {
		return i.o.err
	}
	i.o.idem.header(c.Response().Header())
	return s.answerAccepted(c, &accepted{sv: sv, place: i.place, o: i.o, key: i.cells, resolved: given != nil}, prefer, false)
}

func anyBad(in *incoming) bool {
	for i := range in.rows {
		if len(in.rows[i].errs) > 0 {
			return true
		}
	}
	return false
}

// mostListed bounds the errors of one answer.
const mostListed = 1000

// listFaults gives what an answer says of bad rows: all, or of each row the first
// fault when all are too many.
func listFaults(rows int, faults func(row int) []rowFault, item func(row int, e rowFault) ProblemItem) []ProblemItem {
	total := 0
	for i := range rows {
		total += len(faults(i))
	}
	out := make([]ProblemItem, 0, min(total, mostListed))
	for i := range rows {
		for n, e := range faults(i) {
			if n > 0 && rows > 1 && total > mostListed || len(out) == mostListed {
				break
			}
			out = append(out, item(i, e))
		}
	}
	return out
}

func (in *incoming) faulty() []ProblemItem {
	return listFaults(len(in.rows), func(i int) []rowFault { return in.rows[i].errs }, in.item)
}

// rejected is the answer when nothing was applied because rows are bad.
func rejected(in *incoming) error {
	p := fault(codeInvalidRows, "The request holds rows that cannot be accepted; nothing was applied.")
	bad := 0
	for i := range in.rows {
		row := &in.rows[i]
		if len(row.errs) > 0 {
			bad++
		}
	}
	p.Errors = in.faulty()
	if len(p.Errors) > 0 && (in.single || len(p.Errors) == 1) {
		p.Code, p.Detail = code(p.Errors[0].Code), p.Errors[0].Detail
	}
	if !in.single {
		// A list that is refused for its rows is a 422, whatever their codes.
		p.Code = codeInvalidRows
		p.Detail = plural(bad, "row") + " of " + plural(len(in.rows), "row") + " cannot be accepted; nothing was applied."
	}
	return p
}

func (in *incoming) item(i int, e rowFault) ProblemItem {
	if in.single {
		return ProblemItem{Pointer: pointer(-1, e.column), Code: e.code, Detail: e.detail}
	}
	return ProblemItem{Index: &i, Pointer: pointer(i, e.column), Code: e.code, Detail: e.detail}
}

// written is what became of a request's rows.
type written struct {
	chunks    []*buffer.Chunk
	rows      [][]int // rows[i][j]: which row of the request is row j of chunk i
	committed bool
	failed    error // of the rows of a chunk or more, while others were taken
}

// append hands the good rows to the buffer: one chunk for each partition.
func (s *Server) append(ctx context.Context, sv *Served, in *incoming, strict, show bool, now time.Time) (*written, error) {
	w := &written{}
	var newest map[int]int // of each partition; made when there is more than one
	at := -1
	lines := make([]byte, 0, 512)
	for i := range in.rows {
		row := &in.rows[i]
		if len(row.errs) > 0 {
			continue
		}
		if at >= 0 && w.chunks[at].Partition != row.place {
			if newest == nil {
				newest = map[int]int{w.chunks[at].Partition: at}
			}
			if n, ok := newest[row.place]; ok {
				at = n
			} else {
				at = -1
			}
		}
		if at < 0 || !strict && w.chunks[at].Len() >= chunkRows {
			at = len(w.chunks)
			w.chunks = append(w.chunks, in.chunk(sv, i, strict, now))
			w.rows = append(w.rows, nil)
			if newest != nil {
				newest[row.place] = at
			}
		}
		lines = sv.Table.AppendLine(lines[:0], row.cells)
		w.chunks[at].Add(table.OpInsert, lines, row.key, expect(row))
		w.rows[at] = append(w.rows[at], i)
	}
	if len(w.chunks) == 0 {
		return w, nil
	}
	begun, err := s.begun(ctx, in, w.chunks)
	if err != nil {
		return nil, err
	}
	if in.idem != nil {
		s.markAll(sv, in, w, show)
	}
	if strict && len(w.chunks) > 1 && sv.Target.Index && !begun {
		if err := s.checkAbsent(ctx, sv, in, w); err != nil {
			return nil, err
		}
	}
	if err := s.buffer.Append(ctx, w.chunks...); err != nil {
		return nil, err
	}
	ordinals := make(map[int]int)
	for _, c := range w.chunks {
		if err := s.rememberChunk(ctx, in.idem, c, ordinals[c.Partition]); err != nil {
			if slices.ContainsFunc(w.chunks, func(c *buffer.Chunk) bool { return c.Result().Rows > 0 }) {
				err = buffer.ErrOutcomeUnknown // some rows are applied
			}
			return nil, err
		}
		ordinals[c.Partition]++
	}
	w.failed, err = s.outcome(in, w, strict)
	return w, err
}

// markAll marks the chunks of a request that counts once. Its repeat tells the
// rows as they are now, where the answer shows them.
func (s *Server) markAll(sv *Served, in *incoming, w *written, show bool) {
	ordinals := make(map[int]int)
	for n, c := range w.chunks {
		var lines []byte
		if in.single || show {
			for _, i := range w.rows[n] {
				lines = sv.Table.AppendLine(lines, in.rows[i].cells)
			}
		}
		c.MarkWhole(in.idem.name(ordinals[c.Partition]), string(lines))
		ordinals[c.Partition]++
	}
}

// chunkRows: a chunk that need not be all or nothing ends after so many rows,
// so that lanes can share a large request.
const chunkRows = 4 * buffer.FrameRows

// chunk starts the chunk of row i, with room for the rows that may follow it
// there.
func (in *incoming) chunk(sv *Served, i int, strict bool, now time.Time) *buffer.Chunk {
	row := &in.rows[i]
	c := &buffer.Chunk{
		Target: sv.Target, Partition: row.place, Columns: sv.Table.Header(), Accepted: now.UnixMicro(), Atomic: strict,
	}
	n := len(in.rows) - i
	if !row.fresh {
		n = n/sv.Target.Partitions + 1 // its keys lie anywhere
	}
	if !strict {
		n = min(n, chunkRows)
	}
	c.Grow(n, n*(len(in.arena)/len(in.rows)+2*len(in.t.Columns)+32))
	return c
}

func expect(row *inRow) buffer.Expect {
	if row.fresh {
		return buffer.ExpectNew
	}
	return buffer.ExpectAbsent
}

// checkAbsent looks for keys that are in the buffer before a strict request
// that touches several partitions is sent: each of them is all or nothing by
// itself, and together they must be. A key that appears in the moment between
// is found at flush time, like one that was in Postgres all along.
func (s *Server) checkAbsent(ctx context.Context, sv *Served, in *incoming, w *written) error {
	for i, c := range w.chunks {
		known, err := s.buffer.Known(ctx, buffer.Place{Table: sv.Target.Table, Partition: c.Partition}, c.Keys())
		if err != nil {
			return err
		}
		seen := make(map[string]bool, c.Len())
		for j, key := range c.Keys() {
			if known[j] || seen[key] {
				in.rows[w.rows[i][j]].errs = []rowFault{exists(sv.Table)}
			}
			seen[key] = true
		}
		c.ExpectNothing()
	}
	if anyBad(in) {
		return rejected(in)
	}
	return nil
}

func exists(t *table.Table) rowFault {
	return rowFault{t.Columns[t.Key[0]].Name, string(codeRowExists), "A row with this key (" + t.KeyNames() + ") exists."}
}

// outcome looks at the chunks' results: rows that were refused get their
// error; err is about the request as a whole, failed about a part of it.
func (s *Server) outcome(in *incoming, w *written, strict bool) (failed, err error) {
	applied := 0
	for _, c := range w.chunks {
		r := c.Result()
		applied += r.Rows
		if r.Err != nil {
			failed = worse(failed, r.Err)
		}
	}
	switch {
	case failed != nil && (applied == 0 || errors.Is(failed, buffer.ErrOutcomeUnknown)):
		return failed, failed // the rows are as they were: they may be written in another way
	case failed != nil && strict:
		p := problemOf(failed)
		return failed, &Problem{
			Code: codeOutcomeUnknown, Applied: "unknown",
			Detail: "A part of the rows was accepted, and the rest was not: " + p.Detail,
			Hint:   "Look which rows are there before you repeat.",
		}
	}
	for i, c := range w.chunks {
		in.settle(w.rows[i], c.Result())
	}
	if strict && anyBad(in) {
		return nil, rejected(in)
	}
	return failed, nil
}

// settle gives the rows of a chunk that were refused their error.
func (in *incoming) settle(rows []int, r *buffer.Result) {
	if len(r.Replays) > 0 {
		in.recall(rows, r)
	}
	if r.Err != nil {
		p := problemOf(r.Err)
		for _, row := range rows {
			in.rows[row].errs = []rowFault{{"", string(p.Code), p.Detail}}
		}
	}
	for _, j := range r.Failed {
		if j < len(rows) { // fewer than when the request came first, if the table was altered since
			in.rows[rows[j]].errs = []rowFault{exists(in.t)}
		}
	}
}

func worse(a, b error) error {
	if a == nil || errors.Is(b, buffer.ErrOutcomeUnknown) {
		return b
	}
	return a
}

// awaitCommit waits until every row is committed, or the time is over: then
// the answer is 202 as usual.
func (s *Server) awaitCommit(ctx context.Context, w *written, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for i, c := range w.chunks {
		r := c.Result()
		if r.Rows == 0 {
			continue
		}
		place := buffer.Place{Table: c.Target.Table, Partition: c.Partition}
		if !s.waitSettled(ctx, place, r.Last()) {
			return nil
		}
		dead, err := s.ledger.Dead(ctx, place, r.First.Seq-1, r.Last().Seq)
		if err != nil {
			return nil //nolint:nilerr // not known to be committed: 202
		}
		w.bury(i, dead)
	}
	w.committed = true
	return nil
}

// bury remembers which rows Postgres refused.
func (w *written) bury(chunk int, dead []buffer.DeadLetter) {
	c := w.chunks[chunk]
	for _, d := range dead {
		c.Result().Dead = append(c.Result().Dead, d)
	}
}

// receipts holds the last receipt of each partition that was touched.
func (w *written) receipts() []string {
	last := make(map[buffer.Place]table.ID)
	for _, c := range w.chunks {
		if r := c.Result(); r.Rows > 0 {
			p := buffer.Place{Table: c.Target.Table, Partition: c.Partition}
			if id := r.Last(); id.After(last[p]) {
				last[p] = id
			}
		}
	}
	return receiptsOf(last)
}

func receiptsOf(last map[buffer.Place]table.ID) []string {
	out := make([]string, 0, len(last))
	for p, id := range last {
		out = append(out, receipt(p, id))
	}
	sort.Strings(out)
	return out
}

// statusOf an accepted write.
func statusOf(one, committed bool) int {
	switch {
	case committed && one:
		return http.StatusCreated
	case committed:
		return http.StatusOK
	}
	return http.StatusAccepted
}
