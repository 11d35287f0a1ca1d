package flusher

import (
	"context"
	"errors"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// torn is a place whose log does not go on where Postgres stands.
type torn struct {
	place buffer.Place
	epoch uint64
	gap   *Gap // nil: Postgres has gone back, it had committed more
}

// compare a claim with the log, and with how far Redis had heard of commits.
func compare(c Claim, stood buffer.Tail, frames []*table.Frame) *torn {
	if c.Watermark.Seq < stood.Settled {
		return &torn{place: c.Place}
	}
	var gap *Gap
	if err := checkDense(c, frames); errors.As(err, &gap) {
		return &torn{place: c.Place, epoch: stood.Last.Epoch, gap: gap}
	}
	if len(frames) == 0 && c.Watermark.Seq < stood.Last.Seq {
		return &torn{place: c.Place, epoch: stood.Last.Epoch, gap: &Gap{Place: c.Place, Want: c.Watermark.Seq + 1}}
	}
	return nil
}

// reopen opens new epochs for places whose log is torn. What is still missing
// then nobody has, and the partition stops.
func (w *worker) reopen(ctx context.Context, all []*torn) error {
	var errs []error
	for _, t := range all {
		if err := w.f.log.Reopen(ctx, t.place, t.epoch); err != nil {
			errs = append(errs, err)
			continue
		}
		if t.gap != nil {
			w.f.slog.Warn("the log of a partition was torn; a new epoch begins", "gap", t.gap.Error())
		}
	}
	return errors.Join(errs...)
}
