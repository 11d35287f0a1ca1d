package buffer

import (
	"context"
	"fmt"
	"slices"

	"github.com/headpond/headpond/buffer/table"
)

// reindex makes the index again from the log above the watermark.
func (b *Buffer) reindex(ctx context.Context, s state) error {
	for at := (table.ID{}); ; {
		frames, err := b.Frames(ctx, s.place, at, 10_000, 4<<20)
		if err != nil || len(frames) == 0 {
			return err
		}
		for _, f := range frames {
			if at = f.Last; at.Seq <= s.wm {
				continue
			}
			if err := b.indexFrame(ctx, s, f); err != nil {
				return err
			}
		}
	}
}

func (b *Buffer) indexFrame(ctx context.Context, s state, f *table.Frame) error {
	keys, err := b.keysOf(s.place.Table, f)
	if err != nil || keys == nil {
		return err
	}
	args := []any{s.place.prefix(), s.epoch}
	id := f.First()
	for i, key := range keys {
		text := id.String()
		if f.Op(i) == table.OpDelete {
			text += "d"
		}
		args = append(args, key, text)
		id.Seq++
	}
	if err := b.rdb.EvalSha(ctx, reindexScript.sha, []string{s.place.meta()}, args...).Err(); err != nil {
		return unavailable("index partition="+s.place.String(), err)
	}
	return nil
}

func (b *Buffer) keysOf(tbl string, f *table.Frame) ([]string, error) {
	if b.cfg.Keys == nil || f.Len() == 0 {
		return nil, nil
	}
	keys, err := b.cfg.Keys(tbl, f)
	if err != nil {
		return nil, fmt.Errorf("keys of frame id=%s: %w", f.Last, err)
	}
	return keys, nil
}

// stageTorn gives back what is left of a log that lacked frames, but for what
// processes gave back themselves.
func (b *Buffer) stageTorn(ctx context.Context, s state) error {
	frames, err := b.tornFrames(ctx, s)
	if err != nil || len(frames) == 0 {
		return err
	}
	there, err := b.stretches(ctx, s)
	if err != nil {
		return err
	}
	var units []*unit
	for _, f := range frames {
		if slices.ContainsFunc(there, func(part stretch) bool { return part.covers(f) }) {
			continue
		}
		keys, err := b.keysOf(s.place.Table, f)
		if err != nil {
			return err
		}
		units = append(units, unitOfFrame(f, keys))
	}
	if len(units) == 0 {
		return nil
	}
	return b.giveBack(ctx, s, "", units, table.ID{})
}

// stretches lists what was given back, and what of it is back already.
func (b *Buffer) stretches(ctx context.Context, s state) ([]stretch, error) {
	var out []stretch
	for _, key := range []string{s.place.returned(), s.place.moved()} {
		names, err := b.rdb.HKeys(ctx, key).Result()
		if err != nil {
			return nil, unavailable("list rows given back partition="+s.place.String(), err)
		}
		for _, name := range names {
			part, err := parseStretch(name)
			if err != nil {
				return nil, err
			}
			out = append(out, part)
		}
	}
	return out, nil
}

// tornFrames reads the rows of a torn log above what is kept.
func (b *Buffer) tornFrames(ctx context.Context, s state) ([]*table.Frame, error) {
	got, err := b.rdb.XRange(ctx, s.place.torn(), "("+s.kept.String(), "+").Result()
	if err != nil {
		return nil, unavailable("read torn log partition="+s.place.String(), err)
	}
	var out []*table.Frame
	for _, m := range got {
		f, err := frame(m)
		if err != nil {
			return nil, err
		}
		if f.Len() > 0 {
			out = append(out, f)
		}
	}
	return out, nil
}
