package buffer

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/headpond/headpond/buffer/table"
)

// hub tells those who wait in this process what other processes, or this one,
// did: a partition has something to flush, or was settled.
type hub struct {
	mu      sync.Mutex // guards the rest
	settled map[Place]*waiters
	wake    chan Place
}

type waiters struct {
	seq  uint64 // the highest watermark heard of
	next chan struct{}
}

func (h *hub) init() {
	h.settled = make(map[Place]*waiters)
	h.wake = make(chan Place, 4096)
}

func (h *hub) at(p Place) *waiters {
	w := h.settled[p]
	if w == nil {
		w = &waiters{next: make(chan struct{})}
		h.settled[p] = w
	}
	return w
}

func (h *hub) heard(p Place, seq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.at(p)
	if seq > w.seq {
		w.seq = seq
		close(w.next)
		w.next = make(chan struct{})
	}
}

// Settled returns the highest settled seq of p that this process has heard of,
// and a channel that is closed when a higher one is heard.
func (b *Buffer) Settled(p Place) (seq uint64, next <-chan struct{}) {
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	w := b.hub.at(p)
	return w.seq, w.next
}

// Intact reports whether a row that this process was told of is still there under
// its id. It is not when Redis lost it: then it is there under another one, or
// lost.
func (b *Buffer) Intact(p Place, id table.ID) bool { return b.memory.intact(p, id) }

// Wakes gives the places that may have something to flush. Notices can be
// lost: it is a hint, and a slow sweep must stand behind it.
func (b *Buffer) Wakes() <-chan Place { return b.hub.wake }

// listen passes on the notices of Redis until ctx ends. The driver
// reconnects and subscribes again by itself.
func (b *Buffer) listen(ctx context.Context) error {
	sub := b.rdb.Subscribe(ctx, channelWake, channelSettled, channelOpened)
	// The driver does not interrupt a blocked read when ctx ends: closing does.
	defer context.AfterFunc(ctx, func() { _ = sub.Close() })()
	for {
		msg, err := sub.ReceiveMessage(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // a stop, not a failure
		}
		if err != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(200 * time.Millisecond):
			}
			continue
		}
		b.notice(msg.Channel, msg.Payload)
	}
}

func (b *Buffer) notice(channel, payload string) {
	if channel == channelOpened {
		b.lookAtOnce()
		return
	}
	fields := strings.Fields(payload)
	// Table names may hold spaces: the numbers are at the end.
	if channel == channelSettled && len(fields) >= 3 {
		seq, err := strconv.ParseUint(fields[len(fields)-2], 10, 64)
		place := strings.TrimSuffix(payload, " "+fields[len(fields)-2]+" "+fields[len(fields)-1])
		if p, ok := parsePlace(place); ok && err == nil {
			b.memory.settled(p, seq)
			b.pressure.settled(p, seq)
			b.hub.heard(p, seq)
		}
		return
	}
	if p, ok := parsePlace(payload); ok && channel == channelWake {
		select {
		case b.hub.wake <- p:
		default: // the sweep finds it
		}
	}
}

func parsePlace(s string) (Place, bool) {
	dot := strings.LastIndexByte(s, '.')
	if dot < 0 {
		return Place{}, false
	}
	n, err := strconv.Atoi(s[dot+1:])
	return Place{Table: s[:dot], Partition: n}, err == nil && n >= 0
}
