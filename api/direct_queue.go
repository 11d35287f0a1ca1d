package api

import (
	"context"
	"runtime/debug"
	"sync"
)

// Requests of one operation that come while others are being committed go
// together, in one transaction: it costs about as much as one of them. Whoever
// comes when few lead takes all that wait; nobody waits for company.

// mostLeaders of one table commit at a time: while one waits for the disk
// another can work.
const mostLeaders = 4

// directQueue is the requests of one table that wait. Safe for concurrent use.
type directQueue struct {
	mu      sync.Mutex
	waiting []*task
	leaders int
}

// queueOf a table.
func (s *Server) queueOf(table string) *directQueue {
	if q, ok := s.direct.Load(table); ok {
		return q.(*directQueue) //nolint:forcetypeassert // nothing else is stored
	}
	q, _ := s.direct.LoadOrStore(table, &directQueue{})
	return q.(*directQueue) //nolint:forcetypeassert // nothing else is stored
}

// writeTogether makes the one operation of a task, with those of other requests.
func (s *Server) writeTogether(t *task) {
	var done sync.WaitGroup
	done.Add(1)
	t.done = &done
	q := s.queueOf(t.sv.Target.Table)
	q.mu.Lock()
	q.waiting = append(q.waiting, t)
	lead := q.leaders < mostLeaders
	if lead {
		q.leaders++
	}
	q.mu.Unlock()
	if lead {
		go s.leadDirect(q)
	}
	done.Wait()
}

func (s *Server) leadDirect(q *directQueue) {
	for {
		tasks := q.take()
		if len(tasks) == 0 {
			return
		}
		ctx := context.Background()
		s.writeDirectly(ctx, together(tasks), false)
		if len(tasks) > 1 && failedWhole(tasks) { // perhaps because of one of them
			var alone sync.WaitGroup
			for _, t := range tasks {
				t.ops[0].err = nil
				alone.Go(func() { s.writeDirectly(ctx, []*task{t}, true) })
			}
			alone.Wait()
		}
		for _, t := range tasks {
			t.done.Done()
		}
	}
}

// survive ends operations whose leader panicked: no request may end the process
// with all that others have in it. Deferred.
func (s *Server) survive(what string, fail func(error)) {
	if p := recover(); p != nil {
		s.log.Error(what+" panicked", "error", p, "stack", string(debug.Stack()))
		err := fault(codeInternal, "Something went wrong inside Headpond; its log says more.")
		err.Applied = "unknown"
		fail(err)
	}
}

// take gives the tasks that go together; none when the leader is not needed any
// more. One request that came twice does not go with itself: its mark must be
// committed first.
func (q *directQueue) take() []*task {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	var names map[string]bool
	for n < len(q.waiting) && n < mostTogether && q.waiting[n].sv.Table == q.waiting[0].sv.Table {
		if idem := q.waiting[n].ops[0].idem; idem != nil {
			if names[idem.key] {
				break
			}
			if names == nil {
				names = make(map[string]bool)
			}
			names[idem.key] = true
		}
		n++
	}
	if n == 0 {
		q.leaders--
		return nil
	}
	tasks := append([]*task(nil), q.waiting[:n]...)
	left := copy(q.waiting, q.waiting[n:])
	clear(q.waiting[left:])
	q.waiting = q.waiting[:left]
	return tasks
}

// together makes one task of those on the same key.
func together(tasks []*task) []*task {
	if len(tasks) == 1 || !tasks[0].sv.Table.HasKey() {
		return tasks
	}
	byKey := make(map[string]*task, len(tasks))
	out := make([]*task, 0, len(tasks))
	for _, t := range tasks {
		if m := byKey[t.key]; m != nil {
			m.ops = append(m.ops, t.ops...)
			continue
		}
		m := &task{sv: t.sv, place: t.place, key: t.key, cells: t.cells, ops: append([]*operation(nil), t.ops...)}
		byKey[t.key] = m
		out = append(out, m)
	}
	return out
}

// failedWhole: the transaction failed, so all its tasks have the same error.
func failedWhole(tasks []*task) bool {
	first := tasks[0].ops[0].err
	for _, t := range tasks {
		if t.ops[0].err == nil || t.ops[0].err != first { //nolint:errorlint // the same one
			return false
		}
	}
	return problemOf(first).Code == codeStoreUnavailable
}
