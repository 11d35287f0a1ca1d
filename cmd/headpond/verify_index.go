package main

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// inIndex: the index knows each row above the watermark, or a newer one of its
// key.
func (l *logWalk) inIndex(ctx context.Context, entries []buffer.Entry) error {
	if l.table == nil {
		return nil
	}
	newest := make(map[string]table.ID)
	for i := range entries {
		f := entries[i].Frame
		if entries[i].Err != nil || f.Last.Seq <= l.wm.Seq {
			continue
		}
		for n, key := range keysOf(l.table, f) {
			if id := rowID(f, n); key != "" && id.Seq > l.wm.Seq {
				newest[key] = id
			}
		}
	}
	keys := make([]string, 0, len(newest))
	for key := range newest {
		keys = append(keys, key)
	}
	got, err := l.v.b.LookUp(ctx, l.place, keys)
	if err != nil {
		return err
	}
	got = slices.DeleteFunc(got, func(x buffer.Indexed) bool { return x.ID.Seq >= newest[x.Key].Seq })
	if len(got) == 0 {
		return nil
	}
	if l.wm, err = l.v.watermark(ctx, l.place); err != nil {
		return err
	}
	for _, x := range got {
		id := newest[x.Key]
		if id.Seq <= l.wm.Seq { // committed meanwhile
			continue
		}
		has := "nothing"
		if x.Text != "" {
			has = x.Text
		}
		err := l.v.suspect(ctx, differs(l.place, "index", x.Key, "the log has the row %s, which is not committed, and the index has %s", id, has),
			func(ctx context.Context) (bool, error) { return l.unknown(ctx, x.Key, id) })
		if err != nil {
			return err
		}
	}
	return nil
}

// unknown reports whether a row that waits in the log is still not in the index.
func (l *logWalk) unknown(ctx context.Context, key string, id table.ID) (bool, error) {
	got, err := l.v.b.LookUp(ctx, l.place, []string{key})
	if err != nil || got[0].ID.Seq >= id.Seq {
		return false, err
	}
	wm, err := l.v.watermark(ctx, l.place)
	if err != nil || wm.Seq >= id.Seq {
		return false, err
	}
	f, err := l.v.b.FrameOf(ctx, l.place, id)
	return f != nil, err
}

func rowID(f *table.Frame, i int) table.ID {
	first := f.First()
	return table.ID{Epoch: first.Epoch, Seq: first.Seq + uint64(i)} //nolint:gosec // a row of the frame
}

// compareIndex: each entry of the index points at a row with its key, or at one
// that was committed and is not in the log any more. final: the log ends here.
func (l *logWalk) compareIndex(ctx context.Context, final bool) error {
	s, err := l.v.b.State(ctx, l.place) // generations may have begun
	if err != nil {
		return err
	}
	end := l.from + uint64(len(l.hashes))
	return l.v.b.WalkIndex(ctx, s, func(entries []buffer.Indexed) error {
		newest := s.Last.Seq
		for _, e := range entries {
			if final {
				l.v.report.IndexRows++
			}
			if final && e.ID.Seq > newest {
				now, err := l.v.b.State(ctx, l.place)
				if err != nil {
					return err
				}
				newest = now.Last.Seq
			}
			bad := e.ID.Seq == 0 || final && e.ID.Seq > newest ||
				l.first && (e.ID.Seq < l.from || len(l.hashes) == 0) && e.ID.Seq > l.wm.Seq && e.ID.Seq <= l.last
			if e.ID.Seq >= l.from && e.ID.Seq < end {
				sum := l.hashes[e.ID.Seq-l.from]
				bad = sum != 0 && sum != maphash.String(l.seed, e.Key) || l.epochOf(e.ID.Seq) != e.ID.Epoch
			}
			if bad {
				if err := l.suspectEntry(ctx, e); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// epochOf a row of the window.
func (l *logWalk) epochOf(seq uint64) (epoch uint64) {
	at := uint64(0)
	for from, e := range l.epochs {
		if from <= seq && from >= at {
			at, epoch = from, e
		}
	}
	return epoch
}

func (l *logWalk) suspectEntry(ctx context.Context, e buffer.Indexed) error {
	d := differs(l.place, "index", e.Key, "its entry is %q, where the log has no row of this key, and which is not committed", e.Text)
	d.Redis = fmt.Sprintf("generation %d: %s", e.Gen, e.Text)
	return l.v.suspect(ctx, d, func(ctx context.Context) (bool, error) {
		got, err := l.v.b.LookUp(ctx, l.place, []string{e.Key})
		if err != nil || got[0].Text != e.Text {
			return false, err
		}
		if e.ID.Seq == 0 {
			return true, nil
		}
		f, err := l.v.b.FrameOf(ctx, l.place, e.ID)
		if err != nil {
			return false, err
		}
		if f != nil {
			key := keysOf(l.table, f)[e.ID.Seq-f.First().Seq]
			return key != "" && key != e.Key, nil
		}
		wm, err := l.v.watermark(ctx, l.place)
		return e.ID.Seq > wm.Seq, err
	})
}
