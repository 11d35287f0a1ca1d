package flusher

import (
	"context"
	"time"

	"github.com/headpond/headpond/buffer"
)

// tidyEvery: a partition that has gone quiet still has to let go of what it
// retained, and nothing but time tells it to.
const tidyEvery = time.Minute

// tidy settles every partition again now and then, where it stands: which
// trims what was retained for long enough.
func (f *Flusher) tidy(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := f.tidyAll(ctx); err != nil && ctx.Err() == nil {
			f.slog.Debug("tidy", "error", err) // the sweep complains about the same
		}
	}
}

func (f *Flusher) tidyAll(ctx context.Context) error {
	tables := f.tables()
	var places []buffer.Place
	for _, t := range tables {
		places = append(places, t.places()...)
	}
	tails, err := f.log.Tails(ctx, places)
	if err != nil {
		return err
	}
	now := time.Now()
	var all []buffer.Settlement
	for _, tail := range tails {
		if !tail.Open || tail.Closed || tail.Settled == 0 {
			continue
		}
		t := tables[tail.Place.Table]
		wm := tail.Last
		wm.Seq = tail.Settled
		all = append(all, buffer.Settlement{
			Place: tail.Place, Watermark: wm, Committed: now, Picked: now, Copied: now,
			Retain: t.Retain, RetainBytes: t.RetainBytes,
		})
	}
	if len(all) == 0 {
		return nil
	}
	_, err = f.log.Settle(ctx, all)
	return err
}

func (f *Flusher) tables() map[string]Table {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string]Table, len(f.schedule.tables))
	for name, st := range f.schedule.tables {
		out[name] = st.Table
	}
	return out
}

func (t *Table) places() []buffer.Place {
	out := make([]buffer.Place, t.Partitions)
	for i := range out {
		out[i] = buffer.Place{Table: t.Name, Partition: i}
	}
	return out
}
