package buffer

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headpond/headpond/buffer/table"
)

// dialHook hears of new connections: each may lead to another run of Redis.
type dialHook struct{ b *Buffer }

// DialHook implements redis.Hook.
func (h dialHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if err == nil {
			h.b.quiet.forget()
			h.b.lookAtOnce()
		}
		return conn, err
	}
}

// ProcessHook implements redis.Hook.
func (dialHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (dialHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (b *Buffer) lookAtOnce() {
	select {
	case b.hurry <- struct{}{}:
	default:
	}
}

// lookEvery is how often a process looks whether it has missed something that
// Redis says only once; of the places of which it holds nothing every lookAll.
const (
	lookEvery = time.Second
	lookAll   = 10 // looks
	tidyLooks = 60
)

// watchEpochs takes part in the recovery of every place, also when nobody reads
// or writes through this process: the others wait for it.
func (b *Buffer) watchEpochs(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		all := n%lookAll == 0
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-b.hurry:
			all = true
		}
		err := b.lookAtEpochs(ctx, all)
		if err == nil && n%tidyLooks == tidyLooks-1 {
			err = b.forgetDead(ctx)
		}
		if err != nil && ctx.Err() == nil {
			b.log.Debug("look at epochs", "error", err)
		}
	}
}

// forgetDead removes what dead processes noted, once all that they had
// acknowledged is committed.
func (b *Buffer) forgetDead(ctx context.Context) error {
	if b.tally == nil || b.cfg.Peers == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Budget)
	defer cancel()
	_, dead, err := b.cfg.Peers.List(ctx)
	if err != nil {
		return err //nolint:wrapcheck // says what was done
	}
	states, err := b.states(ctx, b.known())
	if err != nil {
		return err
	}
	waits := make(map[Place]uint64)
	for _, s := range states {
		waits[s.place] = s.wm
	}
	return b.tally.forget(dead, func(p Place, id table.ID) bool {
		wm, known := waits[p]
		return known && id.Seq <= wm
	})
}

func (b *Buffer) lookAtEpochs(ctx context.Context, all bool) error {
	places := b.memory.holding()
	if all {
		places = b.known()
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Budget)
	defer cancel()
	if loaded, err := scriptsLoaded(ctx, b.rdb, appendScript); err != nil {
		return err
	} else if !loaded {
		return b.shake(ctx)
	}
	states, err := b.states(ctx, places)
	if err != nil {
		return err
	}
	for _, s := range states {
		switch {
		case b.memory.joined(s.place) == 0 && b.cfg.Process != "": // it is being opened now
		case s.epoch == 0 && slices.Contains(b.known(), s.place):
			return b.shake(ctx)
		case s.closed, s.epoch != b.memory.joined(s.place), b.memory.unsure(s.place):
			if b.cfg.Process != "" {
				return b.handshake(ctx, places, false)
			}
		default:
			b.memory.settled(s.place, s.wm)
		}
	}
	return nil
}

// Holds reports whether this process keeps rows that are not committed.
func (b *Buffer) Holds() bool { return len(b.memory.holding()) > 0 }

// Held is how many bytes this process keeps of what is not committed.
func (b *Buffer) Held() int64 { return b.memory.bytes.Load() }

// Keeping is how many bytes that may become (0: nothing is kept), and how many were
// ever kept.
func (b *Buffer) Keeping() (limit, ever int64) { return b.memory.limit, b.memory.kept.Load() }

// forgot reports whether Redis forgot, since an epoch, which calls it had
// applied.
func (b *Buffer) forgot(p Place, since uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.forgotten[p] > since
}

// forget notes that an epoch began with a Redis that knows of no call before.
func (b *Buffer) forget(p Place, epoch uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgotten[p] = max(b.forgotten[p], epoch)
}
