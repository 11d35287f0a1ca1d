package main

import (
	"context"
	"errors"
	"hash/maphash"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher/postgres"
)

// partition compares one partition's log and index with its watermark.
func (v *verifier) partition(ctx context.Context, a *postgres.Account) error {
	p := a.Place
	if sum := a.Committed + a.Coalesced + a.Dead + a.Lost; int64(a.Watermark.Seq) != sum { //nolint:gosec // below 2^53
		v.report.note(differs(p, "ledger", "", "the watermark is %d, and committed %d + coalesced %d + dead %d + lost %d are %d",
			a.Watermark.Seq, a.Committed, a.Coalesced, a.Dead, a.Lost, sum))
	}
	if a.DeadLetters > a.Dead { // fewer are right: they may have been replayed or discarded
		v.report.note(differs(p, "dead letters", "", "there are %d, and the ledger has %d", a.DeadLetters, a.Dead))
	}
	s, problems, err := v.state(ctx, a)
	if err != nil {
		return err
	}
	for _, d := range problems {
		err := v.suspect(ctx, d, func(ctx context.Context) (bool, error) {
			_, again, err := v.state(ctx, a)
			for _, x := range again {
				if x.What == d.What {
					return true, err
				}
			}
			return false, err
		})
		if err != nil {
			return err
		}
	}
	if s == nil || !s.Open {
		return nil
	}
	l := &logWalk{v: v, place: p, state: s, seed: maphash.MakeSeed()}
	if t := v.tables[p.Table]; t != nil && t.Unusable == "" && t.HasKey() && s.Indexed {
		l.table = t
	}
	if err := damagedIsNoError(l.run(ctx)); err != nil {
		return err
	}
	if l.table == nil {
		return nil
	}
	return damagedIsNoError(v.waiting(ctx, p, l.table))
}

// damagedIsNoError: it was noted with the state.
func damagedIsNoError(err error) error {
	if errors.Is(err, buffer.ErrDamaged) {
		return nil
	}
	return err
}

// state reads the partition's meta between two looks at the watermark, which
// only grows, and gives what does not fit. A nil State cannot be read.
func (v *verifier) state(ctx context.Context, a *postgres.Account) (*buffer.State, []difference, error) {
	p := a.Place
	before, err := v.watermark(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	s, err := v.b.State(ctx, p)
	if errors.Is(err, buffer.ErrDamaged) {
		return nil, []difference{differs(p, "partition", "", "%s", err)}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	after, err := v.watermark(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	if !s.Open {
		if a.Opened == 0 {
			return s, nil, nil
		}
		return s, []difference{differs(p, "partition", "", "Redis knows nothing of it, and Postgres has the watermark %s", before)}, nil
	}
	var out []difference
	add := func(what, format string, args ...any) { out = append(out, differs(p, what, "", format, args...)) }
	if s.Last.Seq < before.Seq || s.Last.Epoch < before.Epoch {
		add("watermark", "Postgres has committed up to %s, and the newest row in Redis is %s", before, s.Last)
	}
	if s.Settled > after.Seq {
		add("watermark", "Redis holds everything up to %d for committed, and Postgres has the watermark %d", s.Settled, after.Seq)
	}
	switch f := s.Newest; {
	case s.First.Seq == 0 && s.Last.Seq > after.Seq:
		add("log", "it is empty, and rows up to %d are accepted; %d are committed", s.Last.Seq, after.Seq)
	case f == nil:
	case f.Last.After(s.Last):
		add("log", "its newest row is %s, and the meta says %s", f.Last, s.Last)
	case f.Last.Seq < s.Last.Seq && s.Last.Seq > after.Seq:
		add("log", "its newest row is %s, and rows up to %s are accepted; %d are committed", f.Last, s.Last, after.Seq)
	case f.Last == s.Last && f.Bytes != s.Bytes:
		add("bytes", "the log says that %d were appended, and the meta %d", f.Bytes, s.Bytes)
	}
	if s.SettledBytes > s.Bytes || s.Settled == s.Last.Seq && s.SettledBytes != s.Bytes {
		add("bytes", "%d were appended and %d are committed, up to the rows %d and %d", s.Bytes, s.SettledBytes, s.Last.Seq, s.Settled)
	}
	return s, out, nil
}

// logWalk goes through a log from its oldest entry to its newest.
type logWalk struct {
	v     *verifier
	place buffer.Place
	state *buffer.State
	table *table.Table // nil: there is no index to compare with
	wm    table.ID
	seed  maphash.Seed

	prev *table.Frame // the entry before, when it could be decoded
	last uint64       // seq up to which the log was read; 0 before the first entry

	// The rows since from, up to last, as hashes of their keys, 0 where it is not
	// known: what the index is compared with.
	from   uint64
	hashes []uint64
	epochs map[uint64]uint64 // of rows: where another epoch begins
	first  bool              // nothing before them is in the log
}

// mostHashes: 8 MiB.
const mostHashes = 1 << 20

func (l *logWalk) run(ctx context.Context) error {
	var err error
	if l.wm, err = l.v.watermark(ctx, l.place); err != nil {
		return err
	}
	l.first = true
	err = l.v.b.Entries(ctx, l.state, table.ID{}, func(entries []buffer.Entry) error {
		for i := range entries {
			if err := l.entry(ctx, &entries[i]); err != nil {
				return err
			}
		}
		return l.inIndex(ctx, entries)
	})
	if err != nil || l.table == nil {
		return err
	}
	return l.compareIndex(ctx, true)
}

func (l *logWalk) entry(ctx context.Context, e *buffer.Entry) error {
	if e.Err != nil {
		err := l.v.suspect(ctx, differs(l.place, "log", "", "the entry %s cannot be read: %s", e.ID, e.Err), func(ctx context.Context) (bool, error) {
			now, err := l.v.b.Entry(ctx, l.place, e.ID)
			return now != nil && now.Err != nil, err
		})
		if err == nil && len(l.hashes) > 0 {
			err = l.compareIndex(ctx, false)
		}
		id, _ := table.ParseID(e.ID)
		l.prev, l.last, l.hashes, l.from, l.first = nil, id.Seq, nil, 0, false
		return err
	}
	f := e.Frame
	l.v.report.LogRows += int64(f.Len())
	l.v.progress(int64(f.Len()))
	if err := l.dense(ctx, f); err != nil {
		return err
	}
	if err := l.hash(ctx, f); err != nil {
		return err
	}
	l.prev, l.last = f, f.Last.Seq
	return nil
}

// dense: above the watermark a frame follows the one before, and so do its bytes.
func (l *logWalk) dense(ctx context.Context, f *table.Frame) error {
	want, first := l.last+1, f.First().Seq
	if l.last == 0 {
		want = min(first, l.wm.Seq+1)
	}
	switch {
	case first > want && first-1 > l.wm.Seq:
		return l.v.suspect(ctx, differs(l.place, "log", "", "the rows from %d to %d are missing; %d are committed", max(want, l.wm.Seq+1), first-1, l.wm.Seq),
			func(ctx context.Context) (bool, error) { return l.gap(ctx, f) })
	case first < want && f.Last.Seq > l.wm.Seq:
		l.v.report.note(differs(l.place, "log", "", "rows are there twice: %s follows %d", f.First(), l.last))
	case l.prev != nil && first == want && l.prev.Last.Epoch == f.Last.Epoch && f.Bytes != l.prev.Bytes+uint64(len(f.Heads)+len(f.Data)):
		l.v.report.note(differs(l.place, "bytes", "", "the entry %s has %d, follows %d, and says %d", f.Last, len(f.Heads)+len(f.Data), l.prev.Bytes, f.Bytes))
	}
	return nil
}

// gap reports whether rows that are not committed are missing before a frame.
func (l *logWalk) gap(ctx context.Context, f *table.Frame) (bool, error) {
	before, err := l.v.b.Before(ctx, l.place, f.Last)
	if err != nil {
		return false, err
	}
	wm, err := l.v.watermark(ctx, l.place)
	return max(before.Seq, wm.Seq)+1 < f.First().Seq, err
}

// hash notes the keys of a frame's rows.
func (l *logWalk) hash(ctx context.Context, f *table.Frame) error {
	if l.table == nil {
		return nil
	}
	if first := f.First().Seq; len(l.hashes) > 0 && first != l.from+uint64(len(l.hashes)) || len(l.hashes) >= mostHashes {
		if err := l.compareIndex(ctx, false); err != nil {
			return err
		}
		l.hashes = l.hashes[:0]
		l.first = false
	}
	if len(l.hashes) == 0 {
		l.from, l.epochs = f.First().Seq, make(map[uint64]uint64)
	}
	if l.prev == nil || len(l.hashes) == 0 || l.prev.Last.Epoch != f.Last.Epoch {
		l.epochs[f.First().Seq] = f.Last.Epoch
	}
	for _, key := range keysOf(l.table, f) {
		sum := uint64(0)
		if key != "" {
			sum = maphash.String(l.seed, key)
		}
		l.hashes = append(l.hashes, sum)
	}
	return nil
}

// keysOf gives the keys of a frame's rows, "" where one is not known: the table
// had another key then.
func keysOf(t *table.Table, f *table.Frame) []string {
	keys := make([]string, f.Len())
	now, stale, err := t.Adapt(f)
	if err != nil {
		return keys
	}
	places, _ := t.Places(now.Columns)
	for i := range keys {
		row := layOut(t, places, table.ParseLine(now.Line(i)))
		known := stale[i] == ""
		for _, k := range t.Key {
			known = known && row[k].State == table.Set
		}
		if known {
			keys[i] = string(t.AppendKey(nil, row))
		}
	}
	return keys
}

// layOut puts cells in table order. Those of columns that are not among them are
// Missing.
func layOut(t *table.Table, places []int, cells table.Row) table.Row {
	row := make(table.Row, len(t.Columns))
	for i, c := range places {
		if c >= 0 && i < len(cells) {
			row[c] = cells[i]
		}
	}
	return row
}
