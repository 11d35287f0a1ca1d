package main

import (
	"sync"
	"time"
)

// drillBacklog is the durability lag and the backlog as the clients see them:
// what they were told is accepted, and what Postgres says is committed. It
// needs no word from Headpond itself. Safe for concurrent use.
type drillBacklog struct {
	mu     sync.Mutex // guards places
	places map[drillPlace]*drillPending
}

// drillPending is a partition's acknowledged writes that are not committed.
type drillPending struct {
	waiting []drillWaiting // in the order of their answers
	last    drillPoint     // the highest that was acknowledged
	mark    drillPoint     // the watermark
}

type drillWaiting struct {
	drillPoint

	at time.Time
}

type drillPoint struct{ epoch, seq uint64 }

func (p drillPoint) after(o drillPoint) bool {
	return p.epoch > o.epoch || p.epoch == o.epoch && p.seq > o.seq
}

func newDrillBacklog() *drillBacklog {
	return &drillBacklog{places: make(map[drillPlace]*drillPending)}
}

func (b *drillBacklog) place(p drillPlace) *drillPending {
	if b.places[p] == nil {
		b.places[p] = &drillPending{}
	}
	return b.places[p]
}

// accepted notes an answer.
func (b *drillBacklog) accepted(r drillReceipt, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, point := b.place(r.drillPlace), drillPoint{r.epoch, r.seq}
	if !point.after(p.mark) {
		return
	}
	p.waiting = append(p.waiting, drillWaiting{point, at})
	if point.after(p.last) {
		p.last = point
	}
}

// committed notes a watermark.
func (b *drillBacklog) committed(r drillReceipt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.place(r.drillPlace)
	p.mark = drillPoint{r.epoch, r.seq}
	for len(p.waiting) > 0 && !p.waiting[0].after(p.mark) {
		p.waiting = p.waiting[1:]
	}
}

// now gives the writes that wait, and how long the oldest has.
func (b *drillBacklog) now(at time.Time) (rows int64, lag time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.places {
		if !p.last.after(p.mark) {
			continue
		}
		if p.last.seq > p.mark.seq {
			rows += int64(p.last.seq - p.mark.seq) //nolint:gosec // below 2^53
		}
		if len(p.waiting) > 0 {
			lag = max(lag, at.Sub(p.waiting[0].at))
		}
	}
	return rows, lag
}
