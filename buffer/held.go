package buffer

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headpond/headpond/buffer/table"
)

// memory holds what this process had acknowledged and Postgres has not yet: so
// that a write survives the loss of Redis, or of this process, and only that of
// both at once loses it. Safe for concurrent use.
type memory struct {
	limit int64 // bytes
	bytes atomic.Int64
	kept  atomic.Int64 // bytes that were ever kept: how fast it fills
	full  atomic.Bool
	since atomic.Int64 // when it became full, in nanoseconds of Unix

	mu     sync.Mutex // guards the rest; held for moments only
	places map[Place]*held
}

// held is what is kept of one place.
type held struct {
	units  []*unit  // in the order of their ids
	high   table.ID // the newest row that was ever acknowledged
	joined uint64   // epoch that this process takes part in,
	kept   table.ID // and up to which id nothing was lost before it
	recent []recentMark
}

// recentMark says that a request was done: marks outlive their rows, or a client
// that repeats a request after Redis was lost would be served twice.
type recentMark struct {
	name, value string
	id          table.ID
	at          time.Time
}

// What a client may still repeat, and how many such requests are remembered of
// one partition.
const (
	recentMarks = 10 * time.Minute
	mostRecent  = 10_000
)

// memoryResume: a full memory takes rows again when a tenth of it is free, so
// that it does not flap.
const memoryResume = 0.9

func newMemory(limit int64) *memory {
	return &memory{limit: limit, places: make(map[Place]*held)}
}

func (m *memory) at(p Place) *held {
	h := m.places[p]
	if h == nil {
		h = &held{}
		m.places[p] = h
	}
	return h
}

// keep a unit. It must be kept before anybody is told that it was accepted.
func (m *memory) keep(p Place, u *unit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.at(p)
	if u.last.After(h.high) {
		h.high = u.last
	}
	if m.limit == 0 {
		return
	}
	at := len(h.units)
	for at > 0 && h.units[at-1].last.After(u.last) { // the lanes' answers cross
		at--
	}
	h.units = slices.Insert(h.units, at, u)
	m.kept.Add(u.bytes)
	m.grow(u.bytes)
}

// refusal of rows of a table, while the memory is full.
func (m *memory) refusal(table string) *BacklogFull {
	return &BacklogFull{Cap: CapHeld, Place: Place{Table: table, Partition: -1}, Bytes: m.bytes.Load(), Limit: m.limit}
}

func (m *memory) grow(by int64) {
	n := m.bytes.Add(by)
	switch {
	case n >= m.limit:
		if m.limit > 0 && !m.full.Swap(true) {
			m.since.Store(time.Now().UnixNano())
		}
	case float64(n) < memoryResume*float64(m.limit):
		m.full.Store(false)
	}
}

// settled lets go of what is committed. Seqs go on from epoch to epoch, so the
// seq alone tells, but for units whose new id is not known yet.
func (m *memory) settled(p Place, seq uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.places[p]
	if h == nil {
		return
	}
	n := 0
	for n < len(h.units) && h.units[n].staged == 0 && h.units[n].last.Seq <= seq {
		m.grow(-h.units[n].bytes)
		h.remember(h.units[n])
		n++
	}
	h.units = slices.Delete(h.units, 0, n)
}

// remember the marks of a unit that is let go of.
func (h *held) remember(u *unit) {
	now := time.Now()
	for _, m := range u.Marks {
		id := u.first()
		id.Seq += uint64(m.Row) //nolint:gosec // a row of the unit
		h.recent = append(h.recent, recentMark{m.Name, m.Value, id, now})
	}
	n := max(len(h.recent)-mostRecent, 0)
	for n < len(h.recent) && now.Sub(h.recent[n].at) > recentMarks {
		n++
	}
	h.recent = slices.Delete(h.recent, 0, n)
}

// holding lists the places of which something is kept.
func (m *memory) holding() []Place {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Place
	for p, h := range m.places {
		if len(h.units) > 0 {
			out = append(out, p)
		}
	}
	return out
}

// joined is the epoch that this process takes part in.
func (m *memory) joined(p Place) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at(p).joined
}

// take gives what is to be given back to an epoch: units above an id, with their
// marks, and marks of those before. Their new ids are not known then until
// moved is called.
func (m *memory) take(p Place, kept table.ID, epoch uint64) (units []*unit, recent []recentMark, high table.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.at(p)
	for i, u := range h.units {
		if u.last.After(kept) && u.last.Epoch < epoch {
			h.units[i] = u.after(kept)
			h.units[i].staged = epoch
			units = append(units, h.units[i])
		}
	}
	return units, slices.Clone(h.recent), h.high
}

// join notes that this process takes part in an epoch now.
func (m *memory) join(p Place, epoch uint64, kept table.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.at(p)
	h.joined, h.kept = epoch, kept
}

// intact reports whether a row that was appended under an id is still there
// under it: Redis has not lost it since.
func (m *memory) intact(p Place, id table.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.at(p)
	return id.Epoch >= h.joined || !id.After(h.kept)
}

// unsure reports whether this process gave rows back of which it does not know
// the new ids.
func (m *memory) unsure(p Place) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.at(p).units, func(u *unit) bool { return u.staged != 0 })
}

// moved takes over what epochs began with: units that were put back get their
// new ids. Those that were lost and not put back came too late: they are let go
// of, and their rows counted.
func (m *memory) moved(p Place, recorded []Recovery) (late int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.at(p)
	for _, r := range recorded {
		to := make(map[table.ID]table.ID, len(r.Moves))
		for _, v := range r.Moves {
			to[v.From] = v.To
		}
		h.units = slices.DeleteFunc(h.units, func(u *unit) bool {
			if !u.last.After(r.Kept) || u.last.Epoch >= r.Epoch {
				return false
			}
			id, ok := to[u.last]
			if !ok {
				late += int64(u.Rows)
				m.grow(-u.bytes)
				return true
			}
			u.last, u.staged = id, 0
			if id.After(h.high) {
				h.high = id
			}
			return false
		})
	}
	slices.SortFunc(h.units, func(a, b *unit) int {
		if a.last.After(b.last) {
			return 1
		}
		return -1
	})
	return late
}
