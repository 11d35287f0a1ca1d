package buffer

import "time"

// Refusing is what the caps say of a table now.
type Refusing struct {
	Full  *BacklogFull // nil: its writes are taken
	Since time.Time    // when that began
}

// full says why a table takes no rows; nil when it does. One request that does
// not fit is refused alone: others may.
func (p *pressure) full(name string, rows, bytes int64) *BacklogFull {
	t := p.tables[name]
	if t == nil {
		t = &tableLoad{}
	}
	switch g := shut(t.gates[:]); {
	case p.memory.shut:
		return p.refusal(&p.memory, Place{Partition: -1}, p.rows, p.used, p.drain)
	case shut(p.all[:]) != nil:
		return p.refusal(shut(p.all[:]), Place{Partition: -1}, p.rows, p.bytes, p.drain)
	case g != nil:
		return p.refusal(g, Place{name, -1}, t.rows, t.bytes, t.drain)
	}
	for _, c := range []struct {
		name              Cap
		there, add, limit int64
	}{
		{CapRows, t.rows, rows, p.caps.Rows}, {CapBytes, t.bytes, bytes, p.caps.Bytes},
		{CapTotalRows, p.rows, rows, p.caps.TotalRows}, {CapTotalBytes, p.bytes, bytes, p.caps.TotalBytes},
	} {
		if c.limit > 0 && c.there+c.add > c.limit {
			g := gate{cap: c.name, value: float64(c.there + c.add), limit: float64(c.limit)}
			if c.name == CapTotalRows || c.name == CapTotalBytes {
				return p.refusal(&g, Place{Partition: -1}, p.rows, p.bytes, p.drain)
			}
			return p.refusal(&g, Place{name, -1}, t.rows, t.bytes, t.drain)
		}
	}
	return nil
}

// refusal tells what is known of a gate that is shut. It is worth to try again
// when the backlog has come down to where the gate opens.
func (p *pressure) refusal(g *gate, at Place, rows, bytes int64, drain float64) *BacklogFull {
	f := &BacklogFull{Cap: g.cap, Place: at, Rows: rows, Bytes: bytes, Limit: int64(g.limit), Drain: drain}
	if g.cap == CapLag {
		f.Limit, f.Lag = int64(g.limit*1000), time.Duration(g.value*float64(time.Second))
	}
	resume := BacklogResume
	if g.cap == CapMemory {
		resume = MemoryResume / MemoryLimit
	}
	if drain > 0 && g.value > 0 {
		over := (g.value - resume*g.limit) / g.value * float64(rows) // in rows, whatever the cap counts
		f.Retry = time.Duration(max(over, 0) / drain * float64(time.Second))
	}
	return f
}

// partitionFull completes what the script said of one partition.
func (p *pressure) partitionFull(at Place, rows, bytes int64, t *Target) *BacklogFull {
	f := &BacklogFull{Cap: CapPartition, Place: at, Rows: rows, Bytes: bytes, Limit: t.MaxRows}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.tables[at.Table]; l != nil && l.drain > 0 {
		f.Drain = l.drain
		f.Retry = time.Duration((1 - BacklogResume) * float64(rows) / (l.drain / float64(t.Partitions)) * float64(time.Second))
	}
	return f
}

// Refusing says whether writes to a table are refused now, and why.
func (b *Buffer) Refusing(name string) Refusing {
	if b.memory.full.Load() {
		return Refusing{b.memory.refusal(name), time.Unix(0, b.memory.since.Load())}
	}
	p := &b.pressure
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.measured) > trusted {
		return Refusing{}
	}
	full := p.full(name, 0, 0)
	switch t := p.tables[name]; {
	case full == nil:
		return Refusing{}
	case full.Place.Table == "" || t == nil:
		return Refusing{full, p.allSince}
	default:
		return Refusing{full, t.since}
	}
}

// Caps that are in force.
func (b *Buffer) Caps() Caps { return b.pressure.caps }

// refused ends a call that the script refused: the partition is full, or it was
// refused before, and only had to be asked whether it was done already.
func (b *Buffer) refused(k *call, rows, bytes int64) {
	if k.unknown { // an earlier copy of the call may lie in a socket yet, and come when there is room
		for _, c := range k.chunks {
			b.counters.Unknown.Add(int64(c.Len()))
		}
		k.finish(ErrOutcomeUnknown)
		return
	}
	full := k.chunks[0].full
	if full == nil {
		full = b.pressure.partitionFull(k.place, rows, bytes, k.chunks[0].Target)
	}
	for _, c := range k.chunks {
		b.counters.refuse(full.Cap, c.Len())
	}
	k.finish(full)
}
