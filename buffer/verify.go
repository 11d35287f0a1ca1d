package buffer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/headpond/headpond/buffer/table"
)

// What follows shows a verifier the keys as they lie there. Nothing of it writes,
// and walks rest as long as they work (rest).

// ErrDamaged means that something in Redis is not what Headpond writes.
var ErrDamaged = errors.New("this is not what Headpond writes")

// State is what a partition says of itself at one moment.
type State struct {
	Place        Place
	Open         bool     // it has an epoch
	Last         table.ID // of the newest row
	Settled      uint64   // seq up to which Redis has heard of commits
	Bytes        uint64   // appended so far
	SettledBytes uint64   // of them up to Settled, or less
	Oldest, Gen  int64    // generations of the index, from the oldest to the newest
	Indexed      bool     // the index has, or had, entries

	First  table.ID     // of the first entry of the log, its last row; zero when it is empty
	Newest *table.Frame // of the log; nil when it is empty
}

// State reads one. The error is ErrDamaged when it does not make sense.
func (b *Buffer) State(ctx context.Context, p Place) (*State, error) {
	pipe := b.rdb.TxPipeline()
	meta := pipe.HMGet(ctx, p.meta(), "epoch", "seq", "wm", "bytes", "wmbytes", "gen", "glo", "gn")
	first := pipe.XRangeN(ctx, p.log(), "-", "+", 1)
	last := pipe.XRevRangeN(ctx, p.log(), "+", "-", 1)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, damagedOr("read partition="+p.String(), err)
	}
	s := &State{Place: p, Open: meta.Val()[0] != nil}
	n := make([]uint64, 8)
	for i, v := range meta.Val() {
		text, _ := v.(string)
		var err error
		if n[i], err = strconv.ParseUint(text, 10, 64); err != nil && text != "" {
			return nil, fmt.Errorf("read partition=%s: %w: the meta holds %q", p, ErrDamaged, text)
		}
	}
	s.Last, s.Settled, s.Bytes, s.SettledBytes = table.ID{Epoch: n[0], Seq: n[1]}, n[2], n[3], n[4]
	s.Gen, s.Oldest = max(int64(n[5]), 1), max(int64(n[6]), 1) //nolint:gosec // generations are few
	s.Indexed = n[7] > 0 || s.Gen > s.Oldest
	if len(first.Val()) > 0 && len(last.Val()) > 0 {
		var err error
		if s.First, err = table.ParseID(first.Val()[0].ID); err != nil {
			return nil, fmt.Errorf("read partition=%s: %w: %w", p, ErrDamaged, err)
		}
		s.Newest, _ = frame(last.Val()[0]) // what is wrong with it shows in Entries
	}
	return s, nil
}

func damagedOr(doing string, err error) error {
	if strings.HasPrefix(err.Error(), "WRONGTYPE") {
		return fmt.Errorf("%s: %w: a key has another type", doing, ErrDamaged)
	}
	return unavailable(doing, err)
}

// Entry is an entry of a log.
type Entry struct {
	ID    string
	Frame *table.Frame
	Err   error // it cannot be decoded
}

// entriesStep is how many frames of 64 KiB are read at a time.
const entriesStep = 16

// Entries gives the entries of a log after an id, in order, up to the newest that
// there is in s: a log that grows has no end.
func (b *Buffer) Entries(ctx context.Context, s *State, after table.ID, each func([]Entry) error) error {
	p, from := s.Place, "("+after.String()
	for {
		began := time.Now()
		got, err := b.rdb.XRangeN(ctx, p.log(), from, "+", entriesStep).Result()
		if err != nil {
			return damagedOr("read log partition="+p.String(), err)
		}
		if len(got) == 0 {
			return nil
		}
		out := make([]Entry, len(got))
		for i, m := range got {
			out[i].ID = m.ID
			out[i].Frame, out[i].Err = frame(m)
		}
		if err := each(out); err != nil || len(got) < entriesStep {
			return err
		}
		if f := out[len(out)-1].Frame; f != nil && !s.Last.After(f.Last) {
			return nil
		}
		from = "(" + got[len(got)-1].ID
		rest(ctx, began)
	}
}

// Entry gives one entry of a log as it is now; nil when it is gone.
func (b *Buffer) Entry(ctx context.Context, p Place, id string) (*Entry, error) {
	got, err := b.rdb.XRangeN(ctx, p.log(), id, id, 1).Result()
	if err != nil {
		return nil, damagedOr("read log partition="+p.String(), err)
	}
	if len(got) == 0 {
		return nil, nil
	}
	e := &Entry{ID: got[0].ID}
	e.Frame, e.Err = frame(got[0])
	return e, nil
}

// Before gives the id of the entry before this one; zero when there is none.
func (b *Buffer) Before(ctx context.Context, p Place, id table.ID) (before table.ID, err error) {
	got, err := b.rdb.XRevRangeN(ctx, p.log(), "("+id.String(), "-", 1).Result()
	if err != nil {
		return before, damagedOr("read log partition="+p.String(), err)
	}
	if len(got) > 0 {
		before, err = table.ParseID(got[0].ID)
	}
	return before, err
}

// FrameOf gives the frame that holds a row; nil when there is none.
func (b *Buffer) FrameOf(ctx context.Context, p Place, id table.ID) (*table.Frame, error) {
	got, err := b.rdb.XRangeN(ctx, p.log(), id.String(), "+", 1).Result()
	if err != nil {
		return nil, damagedOr("read log partition="+p.String(), err)
	}
	if len(got) == 0 {
		return nil, nil
	}
	f, err := frame(got[0])
	if err != nil || f.Last.Epoch != id.Epoch || f.First().Seq > id.Seq {
		return nil, nil //nolint:nilerr // a damaged frame holds nothing
	}
	return f, nil
}

// Indexed is an entry of the index.
type Indexed struct {
	Key  string
	Text string   // as it lies there; "" when there is none
	ID   table.ID // zero when the text is none
	Gen  int64
}

func indexed(key, text string, gen int64) Indexed {
	id, _ := table.ParseID(strings.TrimSuffix(text, "d"))
	return Indexed{Key: key, Text: text, ID: id, Gen: gen}
}

// WalkIndex gives the entries of all generations of a place, some of them twice
// when it is written meanwhile.
func (b *Buffer) WalkIndex(ctx context.Context, s *State, each func([]Indexed) error) error {
	for g := s.Oldest; g <= s.Gen; g++ {
		for cursor := uint64(0); ; {
			began := time.Now()
			pairs, next, err := b.rdb.HScan(ctx, s.Place.dirty(g), cursor, "", 5*walkStep).Result()
			if err != nil {
				return damagedOr("scan index partition="+s.Place.String(), err)
			}
			out := make([]Indexed, 0, len(pairs)/2)
			for i := 0; i+1 < len(pairs); i += 2 {
				out = append(out, indexed(pairs[i], pairs[i+1], g))
			}
			if err := each(out); err != nil {
				return err
			}
			if cursor = next; cursor == 0 {
				break
			}
			rest(ctx, began)
		}
	}
	return nil
}

// LookUp gives what the index says of keys: the entry of the newest generation
// that knows the key.
func (b *Buffer) LookUp(ctx context.Context, p Place, keys []string) ([]Indexed, error) {
	ends, err := b.rdb.HMGet(ctx, p.meta(), "glo", "gen").Result()
	if err != nil {
		return nil, damagedOr("look up keys partition="+p.String(), err)
	}
	out := make([]Indexed, len(keys))
	for i, key := range keys {
		out[i].Key = key
	}
	for g := max(numberOf(ends[1]), 1); g >= max(numberOf(ends[0]), 1); g-- {
		for from := 0; from < len(keys); from += 1000 {
			got, err := b.rdb.HMGet(ctx, p.dirty(g), keys[from:min(from+1000, len(keys))]...).Result()
			if err != nil {
				return nil, damagedOr("look up keys partition="+p.String(), err)
			}
			for i, v := range got {
				if text, ok := v.(string); ok && out[from+i].Text == "" {
					out[from+i] = indexed(keys[from+i], text, g)
				}
			}
		}
	}
	return out, nil
}

// Answers is what readers get now for keys of a place, without giving leases out.
func (b *Buffer) Answers(ctx context.Context, p Place, keys []string) (found []*Found, errs []error) {
	all := make([]asked, len(keys))
	for i, key := range keys {
		all[i].Asked = Asked{p, key}
	}
	return b.look(ctx, all)
}
