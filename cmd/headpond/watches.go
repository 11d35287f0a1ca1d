package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher/postgres"
)

// watches keeps an eye on the triggers of tables with `watch: notify`.
type watches struct {
	a       *app
	watches *postgres.Watches
	served  atomic.Pointer[map[string]postgres.Watched]

	mu       sync.Mutex // guards problems
	problems map[string]string
	looked   time.Time
}

func newWatches(a *app) *watches {
	return &watches{a: a, watches: postgres.NewWatches(a.pool), problems: make(map[string]string)}
}

// tables that the watcher takes changes of: also those whose triggers nobody asked
// for here.
func (w *watches) tables() map[string]postgres.Watched {
	if m := w.served.Load(); m != nil {
		return *m
	}
	return nil
}

// publish says what the catalog has now.
func (w *watches) publish(read map[string]*table.Table) {
	served := make(map[string]postgres.Watched)
	for name, t := range read {
		if c := w.a.config.table(name); t.Unusable == "" && t.HasKey() {
			served[name] = postgres.Watched{Table: t, Partitions: c.Partitions, DatabaseWins: c.OnExternal == databaseWins}
		}
	}
	w.served.Store(&served)
	w.looked = time.Time{}
}

const databaseWins = "database-wins"

// Triggers can be dropped or disabled without a change of what the catalog's
// version is made of, so they are looked at by themselves.
const watchesEvery = 2 * time.Second

// check looks at the triggers, now and then, and tells what has changed about
// them. A table that was not watched for a while may have rows in the cache that
// were changed then: all of them leave.
func (w *watches) check(ctx context.Context) {
	if time.Since(w.looked) < watchesEvery {
		return
	}
	w.looked = time.Now()
	var tables []*table.Table
	for name, t := range w.tables() {
		if w.a.config.table(name).Watch == "notify" {
			tables = append(tables, t.Table)
		}
	}
	if len(tables) == 0 {
		w.set(nil)
		return
	}
	found, err := w.watches.Problems(ctx, tables)
	if err != nil {
		return // Postgres is away: others say so
	}
	for _, t := range tables {
		was, is := w.problem(t.Name), found[t.Name]
		if is != "" && w.a.installs {
			if err := w.watches.Install(ctx, t); err == nil {
				delete(found, t.Name)
				continue
			}
		}
		switch {
		case is != "" && is != was:
			w.a.log.Warn(warning(t.Name, is))
		case is == "" && was != "":
			if err := w.watches.Forget(ctx, t); err != nil {
				found[t.Name] = was // again at the next look
				continue
			}
			w.a.log.Info("the table is watched now", "table", t.Name)
		}
	}
	w.set(found)
}

func warning(name, problem string) string {
	return fmt.Sprintf("Rows of %s that others change in Postgres stay in the cache until their time is over: %s. Mend: headpond watch install %s.",
		name, problem, name)
}

func (w *watches) problem(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.problems[name]
}

func (w *watches) set(problems map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = problems
}

// warnings for the status page.
func (w *watches) warnings() (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(w.problems)) {
		out = append(out, warning(name, w.problems[name]))
	}
	return out
}
