package flusher

import (
	"context"
	"errors"
	"time"
)

// A paused table takes writes, and none of its batches begins: what is under way
// when it is paused ends. The log says which tables are, so that it holds for all
// flushers; each asks before a batch, and while it is paused every pausedLook.

const pausedLook = 500 * time.Millisecond

var errPaused = errors.New("the table is paused: its rows wait until it is resumed")

func isPaused(err error) bool { return errors.Is(err, errPaused) }

// unpaused returns an error while the job's table is paused.
func (f *Flusher) unpaused(ctx context.Context, j *job) error {
	paused, err := f.log.Paused(ctx, j.table.Name)
	if err == nil && paused {
		return errPaused
	}
	return err
}
