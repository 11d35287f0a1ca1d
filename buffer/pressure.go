package buffer

import (
	"sync"
	"time"
)

// Load is how the backlog of one table stood when it was measured.
type Load struct {
	Places []PlaceLoad
	Drain  float64       // rows per second that left it lately; 0 when it stands still
	Oldest time.Duration // age of its oldest row
}

// PlaceLoad is one partition of it.
type PlaceLoad struct {
	Partition int
	Last      uint64 // seq of the newest row
	Watermark uint64
	Bytes     int64
}

// pressure holds the caps: it knows how much waits in each table, and refuses
// writes in this process before the script, or Redis itself, has to. It is told
// by measurements every other second; in between it counts what this process
// appends, and hears what is settled. So it may be wrong by what other processes
// append between two measurements; the script's own cap is never wrong. Safe for
// concurrent use.
type pressure struct {
	caps Caps

	mu       sync.Mutex // guards the rest; never held while talking to Redis
	tables   map[string]*tableLoad
	rows     int64 // of all tables
	bytes    int64
	drain    float64
	all      [2]gate // total rows, total bytes
	memory   gate
	used     int64     // bytes of Redis that cannot be evicted
	most     int64     // and how many there may be; 0 when it is not known
	allSince time.Time // when all tables began to be refused
	measured time.Time
}

// tableLoad is the backlog of a table as far as it is known.
type tableLoad struct {
	places map[int]*PlaceLoad
	rows   int64
	bytes  int64
	drain  float64
	oldest time.Duration
	gates  [3]gate // rows, bytes, lag
	since  time.Time
}

// trusted is how long a measurement counts: when nobody measures, nothing is
// refused but by the script.
const trusted = 20 * time.Second

func (p *pressure) init(caps Caps) {
	p.caps = caps
	p.tables = make(map[string]*tableLoad)
	p.all = [2]gate{{cap: CapTotalRows}, {cap: CapTotalBytes}}
	p.memory = gate{cap: CapMemory}
}

func (p *pressure) table(name string) *tableLoad {
	t := p.tables[name]
	if t == nil {
		t = &tableLoad{places: make(map[int]*PlaceLoad), gates: [3]gate{{cap: CapRows}, {cap: CapBytes}, {cap: CapLag}}}
		p.tables[name] = t
	}
	return t
}

// Measured tells the caps how all backlogs and the memory of Redis stand.
func (b *Buffer) Measured(loads map[string]Load, memory Memory) {
	b.pressure.measure(loads, memory, time.Now())
}

func (p *pressure) measure(loads map[string]Load, memory Memory, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.measured, p.rows, p.bytes, p.drain = now, 0, 0, 0
	for name := range p.tables {
		if _, still := loads[name]; !still {
			delete(p.tables, name)
		}
	}
	for name, l := range loads {
		t := p.table(name)
		t.rows, t.bytes, t.drain, t.oldest = 0, 0, l.Drain, l.Oldest
		clear(t.places)
		for _, at := range l.Places {
			t.places[at.Partition] = &at
			t.rows += at.rows()
			t.bytes += at.Bytes
		}
		p.rows += t.rows
		p.bytes += t.bytes
		p.drain += t.drain
		t.lookAtLag(p.caps.Lag)
		p.look(t, now)
	}
	p.used, p.most = memory.Pinned, memory.Max
	p.look(nil, now)
}

func (l *PlaceLoad) rows() int64 { return max(int64(l.Last)-int64(l.Watermark), 0) } //nolint:gosec // below 2^53

// lookAtLag: the newest row waits for as long as the backlog takes to drain.
// While it stands still nobody can tell how long that is; then the oldest row's
// wait counts, and a gate that is shut stays so: nothing has become better.
func (t *tableLoad) lookAtLag(limit time.Duration) {
	g := &t.gates[2]
	standing := t.drain <= 0 && t.rows > 0
	if g.shut && standing && limit > 0 {
		return
	}
	lag := t.oldest
	if t.drain > 0 && t.oldest >= steady {
		lag = max(lag, time.Duration(float64(t.rows)/t.drain*float64(time.Second)))
	}
	g.look(lag.Seconds(), limit.Seconds())
}

// steady is how old a backlog must be before its rate says how long it will
// take: what just came in is not being written yet.
const steady = 4 * time.Second

// look moves the gates of a table, and those of all.
func (p *pressure) look(t *tableLoad, now time.Time) {
	if t != nil {
		t.gates[0].look(float64(t.rows), float64(p.caps.Rows))
		t.gates[1].look(float64(t.bytes), float64(p.caps.Bytes))
		since(&t.since, shut(t.gates[:]) != nil, now)
	}
	p.all[0].look(float64(p.rows), float64(p.caps.TotalRows))
	p.all[1].look(float64(p.bytes), float64(p.caps.TotalBytes))
	p.memory.lookAt(float64(p.used), MemoryLimit*float64(p.most), MemoryResume*float64(p.most))
	since(&p.allSince, p.memory.shut || shut(p.all[:]) != nil, now)
}

func since(at *time.Time, is bool, now time.Time) {
	if !is {
		*at = time.Time{}
	} else if at.IsZero() {
		*at = now
	}
}

func shut(gates []gate) *gate {
	for i := range gates {
		if gates[i].shut {
			return &gates[i]
		}
	}
	return nil
}

// appended notes rows that were accepted, up to seq last.
func (p *pressure) appended(at Place, last uint64, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tables[at.Table]
	if t == nil || t.places[at.Partition] == nil {
		return // not measured yet: where its watermark is nobody knows
	}
	l := t.places[at.Partition]
	before := l.rows()
	l.Last = max(l.Last, last)
	l.Bytes += int64(bytes)
	p.used += stored(int64(bytes), l.rows()-before)
	p.moved(t, l.rows()-before, int64(bytes))
}

// stored is about what rows take in Redis, rather more than less: its allocator
// rounds up. Frames of 64 KiB were measured to take an eighth more than their rows.
func stored(bytes, rows int64) int64 { return bytes + bytes/4 + RowBytes*rows }

// settled notes that everything up to seq is committed.
func (p *pressure) settled(at Place, seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tables[at.Table]
	if t == nil || t.places[at.Partition] == nil {
		return
	}
	l := t.places[at.Partition]
	rows, bytes := l.rows(), l.Bytes
	l.Watermark = max(l.Watermark, seq)
	if rows > 0 {
		l.Bytes = int64(float64(bytes) * float64(l.rows()) / float64(rows))
	}
	p.moved(t, l.rows()-rows, l.Bytes-bytes)
}

func (p *pressure) moved(t *tableLoad, rows, bytes int64) {
	t.rows += rows
	t.bytes += bytes
	p.rows += rows
	p.bytes += bytes
	p.look(t, time.Now())
}

// admit decides about chunks that are to be appended together: those of a table
// are taken or refused as one, because a request may be all or nothing. It gives
// those that go on. One with marks goes on though it is refused: the request may
// have been done before, and then the script knows its answer.
func (p *pressure) admit(chunks []*Chunk) []*Chunk {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.measured) > trusted {
		return chunks
	}
	type sum struct{ rows, bytes int64 }
	sums := make(map[string]sum, 1)
	for _, c := range chunks {
		s := sums[c.Target.Table]
		sums[c.Target.Table] = sum{s.rows + int64(c.Len()), s.bytes + int64(len(c.data))}
	}
	refused := 0
	for name, s := range sums {
		full := p.full(name, s.rows, s.bytes)
		if full == nil {
			continue
		}
		for _, c := range chunks {
			if c.Target.Table == name {
				c.full = full
				refused++
			}
		}
	}
	if refused == 0 {
		return chunks
	}
	onward := make([]*Chunk, 0, len(chunks)-refused)
	for _, c := range chunks {
		if c.full == nil || len(c.marks) > 0 {
			onward = append(onward, c)
		}
	}
	return onward
}

// admit gives the chunks that are to be sent. The others have their result.
func (b *Buffer) admit(chunks []*Chunk) []*Chunk {
	onward := b.pressure.admit(chunks)
	if len(onward) == len(chunks) {
		return onward
	}
	for _, c := range chunks {
		if c.full != nil && len(c.marks) == 0 {
			b.counters.refuse(c.full.Cap, c.Len())
			c.result.Err = c.full
		}
	}
	return onward
}
