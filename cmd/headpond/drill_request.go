package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/headpond/headpond/api/client"
)

// drillRequest is one request: a write, or many.
type drillRequest struct {
	name   string // Idempotency-Key; "" for none
	bulk   bool   // _bulk, of all kinds; else many writes are an array of inserts
	writes []*drillWrite
}

const (
	drillMany       = 20 // writes of a request of many
	hotCounters     = 3
	coldCounters    = 100
	hotRows         = 4
	coldRows        = 1000
	ownRows         = 1_000_000 // keys from here on are put once
	poisonEvery     = 3000      // inserts
	impatientEvery  = 30        // requests whose client gives up within milliseconds
	mostRepeats     = 4 * time.Second
	drillAnswerTime = 20 * time.Second
)

// drillMix is how many of a hundred requests are of a kind; "many" and "bulk"
// have drillMany writes each.
var drillMix = []struct {
	share int
	kind  string
}{
	{38, string(drillInsert)}, {22, string(drillIncrement)}, {20, string(drillPut)}, {8, string(drillPatch)}, {6, string(drillDelete)}, {3, "many"}, {3, "bulk"},
}

// drillKindOf draws what the next request is, and how many writes it has.
func drillKindOf(r *rand.Rand) (kind string, writes int) {
	n := r.IntN(100)
	for _, m := range drillMix {
		if n -= m.share; n < 0 {
			kind = m.kind
			break
		}
	}
	if kind == "many" || kind == "bulk" {
		return kind, drillMany
	}
	return kind, 1
}

// drillClient makes requests. Not for concurrent use.
type drillClient struct {
	id  int64 // from 1
	n   int64
	run string // no two runs have the same, even with one seed
	r   *rand.Rand
}

func (c *drillClient) next(kind string) *drillRequest {
	q := &drillRequest{}
	keyed := 70
	switch kind {
	case "many":
		for range drillMany {
			q.writes = append(q.writes, c.write(drillInsert))
		}
	case "bulk":
		q.bulk = true
		for range drillMany {
			w := c.write([]drillKind{drillInsert, drillIncrement, drillPut}[c.r.IntN(3)])
			if w.Kind == drillPut {
				// The receipts of a request do not tell the order of its writes
				// and those of others: so nobody else writes to this key.
				w.Key = ownRows*c.id + w.N
			}
			q.writes = append(q.writes, w)
		}
	default:
		q.writes = []*drillWrite{c.write(drillKind(kind))}
		keyed = 80
	}
	if c.r.IntN(100) < keyed {
		q.name = fmt.Sprintf("drill-%s-%d-%d", c.run, c.id, c.n)
	}
	for _, w := range q.writes {
		w.Keyed = q.name != ""
	}
	return q
}

func (c *drillClient) write(kind drillKind) *drillWrite {
	c.n++
	w := &drillWrite{drillToken: drillToken{c.id, c.n}, Kind: kind}
	switch kind {
	case drillInsert:
		w.Poison = c.r.IntN(poisonEvery) == 0
	case drillIncrement:
		w.Amount = 1 + c.r.Int64N(1_000_000)
		if w.Key = 1 + c.r.Int64N(coldCounters); c.r.IntN(2) == 0 {
			w.Key = 1 + c.r.Int64N(hotCounters)
		}
	default:
		if w.Key = 1 + c.r.Int64N(coldRows); c.r.IntN(5) < 2 {
			w.Key = 1 + c.r.Int64N(hotRows)
		}
	}
	return w
}

// table and row of the write, as the API wants them.
func (w *drillWrite) table() string {
	switch w.Kind {
	case drillInsert:
		return drillLog
	case drillIncrement:
		return drillCounters
	}
	return drillRows
}

func (w *drillWrite) row() any {
	switch w.Kind {
	case drillInsert:
		amount := 1
		if w.Poison {
			amount = -1 // only Postgres knows that it must not be
		}
		return map[string]int64{"client": w.Client, "n": w.N, "amount": int64(amount)}
	case drillIncrement:
		return map[string]int64{"count": 1, "sum": w.Amount}
	case drillPut:
		return map[string]int64{"client": w.Client, "n": w.N}
	case drillPatch:
		return map[string]int64{"patch_client": w.Client, "patch_n": w.N}
	}
	return nil
}

// send the request once. It reports whether it is worth a repeat, and after
// which pause.
func (q *drillRequest) send(ctx context.Context, c *client.Client) (again bool, after time.Duration, receipts []string) {
	name := client.IdempotencyKey(q.name)
	if len(q.writes) > 1 {
		return q.sendMany(ctx, c, name)
	}
	w := q.writes[0]
	var got *client.Written
	var err error
	key := client.KeyOf(w.Key)
	switch w.Kind {
	case drillInsert:
		got, err = c.Insert(ctx, w.table(), w.row(), name)
	case drillIncrement:
		got, err = c.Increment(ctx, w.table(), key, w.row(), name)
	case drillPut:
		got, err = c.Put(ctx, w.table(), key, w.row(), name)
	case drillPatch:
		got, err = c.Patch(ctx, w.table(), key, w.row(), name)
	case drillDelete:
		got, err = c.Delete(ctx, w.table(), key, name)
	}
	if got != nil {
		w.accept(got.Receipt)
		return false, 0, []string{got.Receipt}
	}
	again, after = w.refuse(err)
	return again, after, nil
}

func (q *drillRequest) sendMany(ctx context.Context, c *client.Client, name client.CallOption) (again bool, after time.Duration, receipts []string) {
	got, err := q.callMany(ctx, c, name)
	if got == nil {
		for _, w := range q.writes {
			once, pause := w.refuse(err)
			again, after = again || once, max(after, pause)
		}
		return again, after, nil
	}
	bad := make(map[int]client.Code, len(got.Errors))
	for _, e := range got.Errors {
		bad[e.Index] = e.Code
	}
	for i, w := range q.writes {
		code, rejected := bad[i]
		if !rejected {
			w.accept("")
			continue
		}
		applied := client.AppliedNo
		if code == client.ErrOutcomeUnknown {
			applied = client.AppliedUnknown
		}
		once, pause := w.refuse(&client.Error{Code: code, Applied: applied, RetryAfter: 100 * time.Millisecond})
		again, after = again || once, max(after, pause)
	}
	return again, after, got.Receipts
}

func (q *drillRequest) callMany(ctx context.Context, c *client.Client, name client.CallOption) (*client.WrittenMany, error) {
	if !q.bulk {
		rows := make([]any, len(q.writes))
		for i, w := range q.writes {
			rows[i] = w.row()
		}
		return c.InsertMany(ctx, drillLog, rows, name, client.Lenient())
	}
	lines := make([]client.Operation, len(q.writes))
	for i, w := range q.writes {
		lines[i] = client.Operation{Op: client.Op(w.Kind), Table: w.table(), Row: w.row()}
		if w.Kind != drillInsert {
			lines[i].Key = client.KeyOf(w.Key)
		}
	}
	return c.Bulk(ctx, lines, name)
}

// accept notes that the write was acknowledged.
func (w *drillWrite) accept(receipt string) {
	w.Outcome, w.Answer = drillOK, ""
	if r, ok := readReceipt(receipt); ok {
		w.Partition, w.Epoch, w.Seq = r.partition, r.epoch, r.seq
	}
}

// refuse notes that an attempt was not acknowledged. That it applied nothing
// is true of that attempt alone, unless the answer is the one that is kept
// under the Idempotency-Key.
func (w *drillWrite) refuse(err error) (again bool, after time.Duration) {
	if w.Outcome == drillOK {
		return false, 0 // of an earlier attempt, in which other writes of the request failed
	}
	e := new(client.Error)
	if !errors.As(err, &e) {
		e = &client.Error{Code: client.Code(err.Error()), Applied: client.AppliedNo} // it never left us
	}
	w.Answer = string(e.Code)
	switch {
	case e.Applied != client.AppliedNo:
		w.Outcome, w.Doubted = drillUnknown, true
	case w.Outcome != drillUnknown || keptUnderKey(e.Code):
		w.Outcome = drillNo
	}
	return w.Keyed && temporary(e.Code), e.RetryAfter
}

// keptUnderKey reports whether all that are sent under one Idempotency-Key get
// this answer.
func keptUnderKey(c client.Code) bool {
	return c == client.ErrRowNotFound || c == client.ErrRowExists
}

// temporary reports whether the same request may be accepted later.
func temporary(c client.Code) bool {
	switch c {
	case client.ErrNoAnswer, client.ErrOutcomeUnknown, client.ErrBacklogFull, client.ErrBufferUnavailable, client.ErrStoreUnavailable,
		client.ErrDraining, client.ErrRateLimited:
		return true
	}
	return false
}

// drillReceipt is table.partition.epoch.seq.
type drillReceipt struct {
	drillPlace

	epoch, seq uint64
}

// drillPlace is a partition of a table.
type drillPlace struct {
	table     string
	partition int
}

func readReceipt(text string) (r drillReceipt, ok bool) {
	f := strings.Split(text, ".")
	if len(f) < 4 {
		return r, false
	}
	last := f[len(f)-3:]
	r.table = strings.Join(f[:len(f)-3], ".")
	var errs [3]error
	r.partition, errs[0] = strconv.Atoi(last[0])
	r.epoch, errs[1] = strconv.ParseUint(last[1], 10, 64)
	r.seq, errs[2] = strconv.ParseUint(last[2], 10, 64)
	return r, errors.Join(errs[:]...) == nil
}
