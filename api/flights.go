package api

import (
	"context"
	"sync"
)

// flights is the lists that this process is loading, by table, query and the
// version under which the load began. Whoever finds the same version in Redis
// when he comes may share it. Safe for concurrent use.
//
// golang.org/x/sync/singleflight was not taken: a load must end when all who
// wait for it have gone, not when the first of them has.
type flights struct {
	mu sync.Mutex // guards of, and of each flight what is named there
	of map[string]*flight
}

// flight is one load.
type flight struct {
	name   string
	ctx    context.Context // ends when nobody waits any more
	cancel context.CancelFunc

	held    string // lease under which the list is to be stored; guarded by flights.mu
	riders  int    // who has not gone; guarded by flights.mu
	landing bool   // the lease is being used; guarded by flights.mu

	done chan struct{} // closed when these are set:
	text *listText
	err  error
}

// board goes along with the flight of that name. lead is true when it is a new
// one, which the caller must make, and end. There is a new one when the caller
// holds the lease, unless a flight has outlived its own: that takes the new one
// over; or when it must not wait for anybody (alone), who may have died. Else
// the flight is nil when there is none. fresh never shares what began before it.
func (f *flights) board(name, lease string, fresh, alone bool) (fl *flight, lead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl = f.of[name]
	if fl != nil && !fresh && (lease == "" || !fl.landing) {
		if lease != "" {
			fl.held = lease
		}
		fl.riders++
		return fl, false
	}
	if lease == "" && !alone {
		return nil, false
	}
	fl = &flight{name: name, held: lease, riders: 1, done: make(chan struct{})}
	fl.ctx, fl.cancel = context.WithCancel(context.Background())
	if f.of == nil {
		f.of = make(map[string]*flight)
	}
	f.of[name] = fl
	return fl, true
}

// leave is called for a rider whose request has ended. The last one ends the
// load.
func (f *flights) leave(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.riders--; fl.riders == 0 {
		f.forget(fl)
		fl.cancel()
	}
}

// lease gives the lease of a flight that has landed. No other is taken over then.
func (f *flights) lease(fl *flight) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.landing = true
	return fl.held
}

// end lets nobody board any more.
func (f *flights) end(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget(fl)
	fl.cancel()
}

func (f *flights) forget(fl *flight) {
	if f.of[fl.name] == fl {
		delete(f.of, fl.name)
	}
}
