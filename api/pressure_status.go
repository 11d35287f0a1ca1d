package api

import (
	"fmt"
	"math"
	"time"

	"github.com/headpond/headpond/buffer"
)

// pressureStatus is what the status says of the caps of all tables.
type pressureStatus struct {
	Limit  capStatus `json:"backlog_limit"`  // from here on writes are refused
	Resume capStatus `json:"backlog_resume"` // and here they are taken again
	// Redis is its memory; null before it was read.
	Redis *memoryStatus `json:"redis_memory"`
	// Down is how long Postgres may be away before a write is refused, at the rate
	// at which rows come in now: the smallest of all caps, 0 when writes are refused
	// already. While none come in limits.max_lag alone bounds it: null without that.
	Down *int64 `json:"postgres_may_be_down_for_ms"`
}

// capStatus is one threshold. 0: there is none.
type capStatus struct {
	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes"`
	LagMS int64 `json:"lag_ms,omitempty"` // of one table
}

type memoryStatus struct {
	Used   int64  `json:"used_bytes"`
	Pinned int64  `json:"pinned_bytes"` // of these, what no eviction can free
	Max    int64  `json:"max_bytes"`    // maxmemory, or without one the memory of the machine
	Limit  int64  `json:"limit_bytes"`
	Resume int64  `json:"resume_bytes"`
	Policy string `json:"policy"`
}

// refusingStatus says why the writes to a table are refused.
type refusingStatus struct {
	Cap    buffer.Cap `json:"cap"`
	Detail string     `json:"detail"`
	Since  time.Time  `json:"since"`
}

// pressed completes the status with what the caps say.
func (s *Server) pressed(st *status) {
	caps, memory := s.buffer.Caps(), s.books.redisMemory()
	st.Pressure.Limit, st.Pressure.Resume = thresholds(caps.TotalRows, caps.TotalBytes, 0)
	limit, resume := thresholds(caps.Rows, caps.Bytes, caps.Lag)
	if memory.Max > 0 {
		most := float64(memory.Max)
		st.Pressure.Redis = &memoryStatus{
			Used: memory.Used, Pinned: memory.Pinned, Max: memory.Max, Policy: memory.Policy,
			Limit: int64(buffer.MemoryLimit * most), Resume: int64(buffer.MemoryResume * most),
		}
		if s.local == nil { // a Redis of `headpond up` lives as long as its user watches
			st.Warnings = append(st.Warnings, memoryWarning(memory)...)
		}
	}
	total := roomOf(caps.TotalRows-st.Backlog.Rows, caps.TotalRows, caps.TotalBytes-int64(st.Backlog.Bytes), caps.TotalBytes) //nolint:gosec // below 2^53
	room := math.Inf(1)
	if memory.Max > 0 {
		room = max(buffer.MemoryLimit*float64(memory.Max)-float64(memory.Pinned), 0)
	}
	var rows, bytes, stored float64 // a second, of all tables
	for name, t := range st.Tables {
		size := s.rowBytes(&t)
		rows += t.Rates.In
		bytes += t.Rates.In * size
		stored += t.Rates.In * (size + s.indexBytes(name))
	}
	all := min(total.seconds(rows, bytes), over(room, stored), s.untilHeld(st.At))
	down := all
	for name, t := range st.Tables {
		t.Limit, t.Resume = limit, resume
		if r := s.buffer.Refusing(name); r.Full != nil {
			t.Refusing = &refusingStatus{Cap: r.Full.Cap, Detail: fullText(r.Full), Since: r.Since.UTC()}
		}
		own := s.untilRefused(name, &t, caps)
		if t.Rates.In > 0 {
			own = min(own, all)
		}
		if t.Refusing != nil || !st.Redis.OK {
			own = 0
		}
		t.Down = milliseconds(own)
		down = min(down, own)
		st.Tables[name] = t
	}
	st.Pressure.Down = milliseconds(down)
}

func thresholds(rows, bytes int64, lag time.Duration) (limit, resume capStatus) {
	limit = capStatus{rows, bytes, lag.Milliseconds()}
	part := func(n int64) int64 { return int64(buffer.BacklogResume * float64(n)) }
	return limit, capStatus{part(rows), part(bytes), part(lag.Milliseconds())}
}

// untilRefused is how many seconds Postgres may be away until the caps of a table
// and of its partitions are reached.
func (s *Server) untilRefused(name string, t *tableStatus, caps buffer.Caps) float64 {
	size := s.rowBytes(t)
	own := roomOf(caps.Rows-t.Backlog.Rows, caps.Rows, caps.Bytes-int64(t.Backlog.Bytes), caps.Bytes).seconds(t.Rates.In, t.Rates.In*size) //nolint:gosec // below 2^53
	sv, err := s.served(name)
	if err != nil {
		return own
	}
	if caps.Lag > 0 && !sv.Target.Direct() {
		own = min(own, max((caps.Lag-time.Duration(t.OldestMS)*time.Millisecond).Seconds(), 0))
	}
	rows, bytes := sv.Target.MaxRows, sv.Target.MaxBytes
	for i := range t.Partitions {
		l := &t.Partitions[i]
		own = min(own, roomOf(rows-l.BacklogRows, rows, bytes-int64(l.BacklogSize), bytes).seconds(l.Rates.In, l.Rates.In*size)) //nolint:gosec // below 2^53
	}
	return own
}

// untilHeld is how many seconds it takes until this process keeps as much as it may.
func (s *Server) untilHeld(at time.Time) float64 {
	limit, ever := s.buffer.Keeping()
	if limit == 0 {
		return math.Inf(1)
	}
	return over(float64(max(limit-s.buffer.Held(), 0)), s.books.keeps(ever, at))
}

// outage is the room that is left under caps.
type outage struct{ rows, bytes float64 }

// roomOf: a cap of 0 is none.
func roomOf(rows, mostRows, bytes, mostBytes int64) outage {
	o := outage{math.Inf(1), math.Inf(1)}
	if mostRows > 0 {
		o.rows = float64(max(rows, 0))
	}
	if mostBytes > 0 {
		o.bytes = float64(max(bytes, 0))
	}
	return o
}

// seconds until it is used up at these rates.
func (o outage) seconds(rows, bytes float64) float64 {
	return min(over(o.rows, rows), over(o.bytes, bytes))
}

func over(room, rate float64) float64 {
	if rate <= 0 {
		return math.Inf(1)
	}
	return room / rate
}

func milliseconds(seconds float64) *int64 {
	if math.IsInf(seconds, 1) {
		return nil
	}
	ms := int64(min(seconds*1000, 1<<53))
	return &ms
}

// rowBytes is about what a row of a table takes in the log: as those that wait
// now, or as those that this process took.
func (s *Server) rowBytes(t *tableStatus) float64 {
	if t.Backlog.Rows > 0 {
		return float64(t.Backlog.Bytes) / float64(t.Backlog.Rows)
	}
	c := s.buffer.Counters()
	if rows := c.Rows.Load(); rows > 0 {
		return float64(c.Bytes.Load()) / float64(rows)
	}
	return 150
}

// indexBytes is about what a row takes besides.
func (s *Server) indexBytes(name string) float64 {
	if sv, err := s.served(name); err == nil && !sv.Target.Index {
		return 10
	}
	return buffer.RowBytes
}

// memoryWarning says what to do when Redis has no limit: the kernel then ends it
// when the machine has no memory left.
func memoryWarning(m buffer.Memory) []string {
	if m.Limited {
		return nil
	}
	return []string{fmt.Sprintf(
		"Redis has no limit of its memory (maxmemory 0): when the machine has none left, the kernel may end Redis. "+
			"Headpond refuses writes from %s on. Mend: CONFIG SET maxmemory %dmb (half of this machine), CONFIG REWRITE.",
		sizeText(int64(buffer.MemoryLimit*float64(m.Max))), m.Max/2>>20)}
}
