package api

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/headpond/headpond/buffer"
)

// measure tells the buffer's caps how the backlogs stand. It is called with
// each sample, which it follows.
func (s *Server) measure(ctx context.Context, lines map[string][]partitionLine) {
	loads := make(map[string]buffer.Load, len(lines))
	var all []buffer.Place
	for name, l := range lines {
		load := buffer.Load{Drain: s.books.drain(name), Places: make([]buffer.PlaceLoad, len(l))}
		for i := range l {
			load.Places[i] = buffer.PlaceLoad{
				Partition: l[i].Partition, Last: l[i].Seq, Watermark: l[i].Watermark, Bytes: int64(l[i].BacklogSize), //nolint:gosec // below 2^53
			}
			load.Oldest = max(load.Oldest, time.Duration(l[i].OldestMS)*time.Millisecond)
			all = append(all, l[i].place)
		}
		loads[name] = load
	}
	reading, cancel := context.WithTimeout(ctx, sampleEvery)
	defer cancel()
	memory, err := s.buffer.Memory(reading, all)
	if err != nil {
		s.log.Debug("memory of Redis", "error", err) // INFO may be denied: its own refusals remain
	}
	s.books.remember(memory)
	s.buffer.Measured(loads, memory)
}

func (b *books) remember(m buffer.Memory) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.memory = m
}

func (b *books) redisMemory() buffer.Memory {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.memory
}

// Memory of Redis as it was at the last sample.
func (s *Server) Memory() buffer.Memory { return s.books.redisMemory() }

// drain is how many rows of a table are done with in a second, lately; 0 when
// none were, though some wait. The better of a short and a long look: a batch
// takes its time, and a rate from before a burst is that of what came in.
func (b *books) drain(name string) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.samples)
	if n < 2 {
		return 0
	}
	now := b.samples[n-1]
	short := rateSince(b.samples[max(n-3, 0)], now, name)
	if short == 0 && now.tables[name].Pending > 0 {
		return 0
	}
	return max(short, rateSince(b.samples[0], now, name))
}

func rateSince(before, now sample, name string) float64 {
	a, known := before.tables[name]
	seconds := now.at.Sub(before.at).Seconds()
	if !known || seconds <= 0 {
		return 0
	}
	b := now.tables[name]
	return max(float64(b.done()-a.done())/seconds, 0)
}

// mostRetry bounds Retry-After; blindRetry is it when nothing is being
// committed, so that nobody can tell.
const (
	mostRetry  = 120 * time.Second
	blindRetry = 15 * time.Second
)

// retryAfter is in whole seconds, and a quarter more or less for each client, so
// that they do not come back together.
func retryAfter(f *buffer.BacklogFull) int {
	d := f.Retry
	if f.Drain <= 0 {
		d = blindRetry
	}
	d = min(max(d, time.Second), mostRetry)
	seconds := math.Ceil(d.Seconds() * (0.75 + rand.Float64()/2)) //nolint:gosec // no secret
	return int(min(max(seconds, 1), mostRetry.Seconds()))
}

// fullProblem is the answer to a write that a cap refuses.
func fullProblem(f *buffer.BacklogFull) *Problem {
	return fault(codeBacklogFull, "%s Nothing was applied.", fullText(f)).
		hint("Repeat the request after the seconds of Retry-After.").
		header("Retry-After", fmt.Sprint(retryAfter(f)))
}

// fullText says which cap was reached, and how things stand there.
func fullText(f *buffer.BacklogFull) string {
	var why string
	switch f.Cap {
	case buffer.CapRows:
		why = fmt.Sprintf("Table %s is full: %d rows wait for Postgres, and limits.backlog_rows is %d.", f.Place.Table, f.Rows, f.Limit)
	case buffer.CapBytes:
		why = fmt.Sprintf("Table %s is full: %s wait for Postgres, and limits.backlog_bytes is %s.", f.Place.Table, sizeText(f.Bytes), sizeText(f.Limit))
	case buffer.CapLag:
		why = fmt.Sprintf("Table %s is too far behind: its rows wait for about %s, and limits.max_lag is %s.",
			f.Place.Table, f.Lag.Round(time.Second), time.Duration(f.Limit)*time.Millisecond)
	case buffer.CapTotalRows:
		why = fmt.Sprintf("The buffer is full: %d rows of all tables wait for Postgres, and limits.total_backlog_rows is %d.", f.Rows, f.Limit)
	case buffer.CapTotalBytes:
		why = fmt.Sprintf("The buffer is full: %s of all tables wait for Postgres, and limits.total_backlog_bytes is %s.", sizeText(f.Bytes), sizeText(f.Limit))
	case buffer.CapMemory:
		why = fmt.Sprintf("Redis is nearly full: it holds %s that cannot be evicted, and takes no more writes from %s on.", sizeText(f.Bytes), sizeText(f.Limit))
	case buffer.CapHeld:
		why = fmt.Sprintf("This process is full: it keeps %s until Postgres has committed them, and limits.memory is %s.", sizeText(f.Bytes), sizeText(f.Limit))
	case buffer.CapPartition:
		why = fmt.Sprintf("Partition %d of table %s is full: %d rows (%s) wait there for Postgres.", f.Place.Partition, f.Place.Table, f.Rows, sizeText(f.Bytes))
	}
	if f.Drain > 0 {
		return why + fmt.Sprintf(" About %.0f rows a second are written.", math.Ceil(f.Drain))
	}
	return why + " None were written in the last seconds."
}

// sizeText is a number of bytes for people.
func sizeText(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
