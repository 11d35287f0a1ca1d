package buffer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/headpond/headpond/buffer/table"
)

// Watermarks is what the buffer asks of Postgres.
type Watermarks interface {
	// Hold locks the watermark row of each place, creating it when it is new,
	// calls open with it, and stores the epoch that open gives before it lets go.
	Hold(ctx context.Context, places []Place, open func(Place, Held) (Opening, error)) error
	// Record stores what an epoch began with. What was stored first counts: who
	// comes later may have looked when the epoch was open already.
	Record(ctx context.Context, r Recovery) error
	// Recorded gives what was recorded of the epochs after one, in their order.
	Recorded(ctx context.Context, p Place, after uint64) ([]Recovery, error)
}

// Peers are the processes that may hold rows which Redis has lost.
type Peers interface {
	// List those that run, this one too, and those that died or still held rows
	// when they stopped. A process that stopped beating is dead when nothing else
	// can be the reason.
	List(ctx context.Context) (alive, dead []string, err error)
}

// Held is a watermark that cannot move now.
type Held struct {
	Watermark table.ID
	Opened    uint64 // highest epoch that was ever opened
}

// Opening is what came of comparing a place with its watermark.
type Opening struct {
	Epoch uint64
	// Why there is a new epoch, "" when there is none: "first", "restart" (of
	// Redis, or a promotion), "behind" (Redis), "emptied" (Redis), "rewind"
	// (Postgres went back).
	Why  string
	Kept table.ID // up to it nothing is missing: Postgres has it, or the log
	Run  string   // of Redis
}

// Recovery is what an epoch began with.
type Recovery struct {
	Place    Place
	Epoch    uint64
	Why      string   // see Opening
	Kept     table.ID // see Opening
	Replayed int64    // rows that processes gave back
	Lost     int64    // rows that were acknowledged, and that nobody gave back
	From, To uint64   // Lost: seqs, in the epochs before, between which they were
	Moves    []Move   // of Replayed
}

// Move says where rows are now that follow each other.
type Move struct {
	From, To table.ID // of the last of them
	Rows     int
}

// Waiting is why an epoch is still closed.
type Waiting struct {
	Place Place
	For   []string // processes
}

func (w *Waiting) Error() string {
	return fmt.Sprintf("%s is closed until every process has given back what it holds; waiting for %d: %v", w.Place, len(w.For), w.For)
}

// OpenPlaces makes the places ready for writes, and keeps them so: they are
// opened again whenever Redis turns out to be another run.
func (b *Buffer) OpenPlaces(ctx context.Context, places []Place) error {
	known := b.known()
	fresh := slices.DeleteFunc(slices.Clone(places), func(p Place) bool { return slices.Contains(known, p) })
	// Once the scripts are loaded they stay as they are: were Redis another run,
	// they would be missing, and the next call would open every place.
	return b.handshake(ctx, fresh, len(known) == 0)
}

func (b *Buffer) known() []Place {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.places)
}

// shake is the handshake with a Redis that may be another run: every place is
// compared with its watermark, what is missing is put back, and only then
// readers and writers go on. It returns when all is open, or ctx ends.
//
// It opens every partition that ever was, because readers and writers of all of
// them, in all processes, go on when the scripts are there.
func (b *Buffer) shake(ctx context.Context) error {
	places := b.known()
	if b.cfg.Places != nil {
		all, err := b.cfg.Places(ctx)
		if err != nil {
			return fmt.Errorf("handshake with Postgres: %w", err)
		}
		for _, p := range all {
			if !slices.Contains(places, p) {
				places = append(places, p)
			}
		}
	}
	return b.handshake(ctx, places, true)
}

// handshake opens places, and remembers them once they are open. unfence loads
// the scripts of readers and writers.
func (b *Buffer) handshake(ctx context.Context, places []Place, unfence bool) error {
	if len(places) == 0 {
		return nil
	}
	select {
	case b.shaking <- struct{}{}:
		defer func() { <-b.shaking }()
	case <-ctx.Done():
		return unavailable("handshake", errHandshaking)
	}
	runs, err := b.open(ctx, places)
	if err != nil {
		return err
	}
	if unfence {
		if err := loadScriptsOn(ctx, b.rdb, runs); err != nil {
			return unavailable("handshake", err)
		}
	}
	b.mu.Lock()
	for _, p := range places {
		if !slices.Contains(b.places, p) {
			b.places = append(b.places, p)
		}
	}
	b.mu.Unlock()
	if b.cfg.Process == "" { // holds nothing: those that do, do the rest
		return nil
	}
	return b.recover(ctx, places)
}

var errHandshaking = errors.New("a handshake with Redis and Postgres is under way")

// open opens places while their watermarks are held still: one table's after the
// other's, because one that a flusher holds for long must not keep the flushers
// of all others waiting. It gives the runs of Redis that they were compared with.
func (b *Buffer) open(ctx context.Context, places []Place) (runs map[string]bool, err error) {
	if err := loadScripts(ctx, b.rdb, openScript, joinScript, loseScript, reindexScript, reopenScript); err != nil {
		return nil, unavailable("handshake", err)
	}
	runs = make(map[string]bool)
	for left := places; len(left) > 0; {
		n := 1
		for n < len(left) && left[n].Table == left[0].Table {
			n++
		}
		err := b.wms.Hold(ctx, left[:n], func(p Place, h Held) (Opening, error) {
			o, err := b.openPlace(ctx, p, h, 0)
			runs[o.Run] = true
			return o, err
		})
		if err != nil {
			return nil, fmt.Errorf("handshake with Postgres: %w", err)
		}
		left = left[n:]
	}
	return runs, nil
}

// openPlace compares one place with its watermark. torn is the epoch in which
// frames were found missing, 0 for none.
func (b *Buffer) openPlace(ctx context.Context, p Place, h Held, torn uint64) (o Opening, err error) {
	b.mu.Lock()
	strategy := b.strategies[p.Table]
	b.mu.Unlock()
	got, err := b.rdb.EvalSha(ctx, openScript.sha, []string{p.log(), p.meta(), p.commits()},
		p.prefix(), h.Watermark.Epoch, h.Watermark.Seq, h.Opened, strategy, torn).StringSlice()
	if err != nil {
		return o, unavailable("open partition="+p.String(), err)
	}
	if got[2] == "gap" {
		next, _ := strconv.ParseUint(got[3], 10, 64)
		return o, &DataGap{Place: p, Have: h.Watermark.Seq, Next: next}
	}
	o.Why, o.Run = got[2], got[4]
	o.Epoch, err = strconv.ParseUint(got[0], 10, 64)
	if err == nil && got[3] != "" {
		o.Kept, err = table.ParseID(got[3])
	}
	if err != nil {
		return o, fmt.Errorf("open partition=%s: %w", p, err)
	}
	if o.Why != "" { // it begins with a watermark that was never settled here
		if err := b.TouchLists(ctx, p.Table); err != nil {
			return o, err
		}
	}
	if o.Why == "behind" || o.Why == "emptied" {
		b.forget(p, o.Epoch)
	}
	b.sayOpened(p, o, h)
	return o, nil
}

func (b *Buffer) sayOpened(p Place, o Opening, h Held) {
	at := []any{"partition", p.String(), "epoch", o.Epoch, "kept", o.Kept.String(), "watermark", h.Watermark.String()}
	switch o.Why {
	case "restart":
		b.log.Debug("another run of Redis: a new epoch begins", at...)
	case "behind", "emptied":
		b.log.Warn("Redis has lost rows of this partition: a new epoch begins when every process has given back what it holds", at...)
	case "rewind":
		b.log.Warn("Postgres has gone back: the log is flushed again from there", at...)
	}
}

// Reopen compares a place with its watermark again, because its log lacks frames
// (torn is the epoch in which that was seen), or Postgres has gone back (0). The
// new epoch that begins then is opened by the processes that hold rows.
func (b *Buffer) Reopen(ctx context.Context, p Place, torn uint64) error {
	if err := loadScripts(ctx, b.rdb, openScript); err != nil {
		return unavailable("handshake", err)
	}
	err := b.wms.Hold(ctx, []Place{p}, func(p Place, h Held) (Opening, error) { return b.openPlace(ctx, p, h, torn) })
	if err != nil {
		return fmt.Errorf("compare log with watermark: %w", err)
	}
	return nil
}

// mend opens a place anew whose log was found to lack rows.
func (b *Buffer) mend(p Place, epoch string) error {
	ctx, cancel := context.WithTimeout(context.Background(), b.cfg.CallTimeout)
	defer cancel()
	torn, err := strconv.ParseUint(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("open a torn log partition=%s: %w", p, err)
	}
	return b.Reopen(ctx, p, torn)
}

// DataGap: Postgres went back further than the log is kept, so rows that were
// committed once are nowhere. The partition stops.
type DataGap struct {
	Place Place
	Have  uint64 // seq of the watermark in Postgres
	Next  uint64 // first seq that the log still has
}

func (g *DataGap) Error() string {
	return fmt.Sprintf("data gap in %s: Postgres went back to seq %d, and the log begins at %d: rows %d to %d were committed, and nobody has them any more. "+
		"Restore a newer backup of Postgres, or accept the loss: POST /admin/v1/tables/%s/accept-gap", g.Place, g.Have, g.Next, g.Have+1, g.Next-1, g.Place.Table)
}

// Halts reports that somebody must decide.
func (g *DataGap) Halts() bool { return true }

// recover takes part in the epochs that are closed, until all are open.
func (b *Buffer) recover(ctx context.Context, places []Place) error {
	start, waited := time.Now(), 0
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		states, err := b.states(ctx, places)
		if err != nil {
			return err
		}
		var closed []state
		for _, s := range states {
			switch {
			case s.epoch == 0: // Redis was emptied a moment ago
				return unavailable("handshake", errOtherEpoch)
			case s.closed:
				closed = append(closed, s)
			default:
				if err := b.goOn(ctx, s); err != nil {
					return err
				}
			}
		}
		if len(closed) == 0 {
			if waited > 0 {
				b.log.Info("Redis and Postgres agree again: reads and writes go on", "partitions", waited, "took", time.Since(start).Round(time.Millisecond).String())
			}
			return nil
		}
		waited = max(waited, len(closed))
		waiting := b.reopen(ctx, closed)
		if waiting == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return unavailable("handshake", waiting)
		case <-time.After(pause):
		}
	}
}

// reopen gives back what this process holds, and opens what nobody else is
// waited for.
func (b *Buffer) reopen(ctx context.Context, closed []state) error {
	for _, s := range closed {
		if err := b.join(ctx, s); err != nil {
			return err
		}
	}
	alive, dead := []string{b.cfg.Process}, []string(nil)
	if b.cfg.Peers != nil {
		var err error
		if alive, dead, err = b.cfg.Peers.List(ctx); err != nil {
			return fmt.Errorf("list processes: %w", err)
		}
	}
	var waiting error
	for _, s := range closed {
		if err := b.finish(ctx, s, alive, dead); err != nil {
			waiting = err
		}
	}
	return waiting
}

// goOn takes over that a place is open, and asks under which ids the rows that
// this process gave back are now.
func (b *Buffer) goOn(ctx context.Context, s state) error {
	was := b.memory.joined(s.place)
	if was == 0 { // the first time
		b.memory.join(s.place, s.epoch, table.ID{Epoch: s.epoch})
		return nil
	}
	if was == s.epoch && !b.memory.unsure(s.place) {
		return nil
	}
	after := was
	if was == s.epoch {
		after-- // it gave back what it holds to this one
	}
	recorded, err := b.wms.Recorded(ctx, s.place, after)
	if err != nil {
		return fmt.Errorf("ask what became of rows: %w", err)
	}
	b.takeOver(s.place, recorded)
	if was != s.epoch && len(recorded) > 0 {
		b.memory.join(s.place, s.epoch, recorded[len(recorded)-1].Kept)
	}
	return nil
}

// takeOver learns what epochs began with.
func (b *Buffer) takeOver(p Place, recorded []Recovery) {
	late := b.memory.moved(p, recorded)
	if late == 0 {
		return
	}
	b.counters.Late.Add(late)
	b.log.Error("rows that this process holds were not waited for: Redis had lost them, and the other processes went on without this one; they are lost",
		"partition", p.String(), "rows", late)
}
