package main

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
	"github.com/headpond/headpond/flusher/postgres"
)

// tables keeps the catalog up to date in every room.
type tables struct {
	a       *app
	current atomic.Pointer[map[string]*table.Table]
	targets map[string]*buffer.Target // kept for ever: they know what is being filled
	opened  map[string]bool
	catalog *postgres.Catalog
	version string
	forgot  time.Time // when old Idempotency-Keys were

	asked chan chan error // somebody wants the catalog to be read now, and its outcome
}

func newTables(a *app) *tables {
	sel := postgres.Selection{Expose: a.config.Expose, Tables: slices.Sorted(maps.Keys(a.config.Tables))}
	return &tables{a: a, catalog: postgres.NewCatalog(a.pool, sel), targets: make(map[string]*buffer.Target), opened: make(map[string]bool), asked: make(chan chan error)}
}

// lookup gives a table as the catalog knows it now, or nil. Safe for concurrent use.
func (t *tables) lookup(name string) *table.Table {
	if m := t.current.Load(); m != nil {
		return (*m)[name]
	}
	return nil
}

// keys of a frame's rows, as the table is now; nil when it has none or is gone.
func (t *tables) keys(name string, f *table.Frame) ([]string, error) {
	tbl := t.lookup(name)
	if tbl == nil || !tbl.HasKey() {
		return nil, nil
	}
	places, _ := tbl.Places(f.Columns)
	keys := make([]string, f.Len())
	for i := range keys {
		row := make(table.Row, len(tbl.Columns))
		cells := table.ParseLine(f.Line(i))
		if len(cells) < len(places) {
			return nil, table.ErrCorruptFrame
		}
		for j, place := range places {
			if place >= 0 {
				row[place] = cells[j]
			}
		}
		keys[i] = string(tbl.AppendKey(nil, row))
	}
	return keys, nil
}

// The catalog is looked at every second, by one cheap query.
const catalogEvery = time.Second

// watch reads the catalog, at once and whenever it has changed, until ctx ends.
func (t *tables) watch(ctx context.Context) error {
	complained := false
	var answer chan error // somebody waits for it; nil for nobody
	for {
		err := t.refresh(ctx, answer != nil)
		if answer != nil {
			answer <- err
		}
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err != nil && !complained:
			t.a.log.Warn("the catalog cannot be read; it is tried again every second", "error", err)
		case err == nil && complained:
			t.a.log.Info("the catalog can be read again")
		}
		complained = err != nil
		t.checkDrained(ctx)
		t.forget(ctx)
		t.a.watches.check(ctx)
		select {
		case <-ctx.Done():
			return nil
		case answer = <-t.asked:
		case <-time.After(catalogEvery):
			answer = nil
		}
	}
}

// reload reads the catalog again, whether it has changed or not, and waits for it.
func (t *tables) reload(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case t.asked <- answer:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forget lets go of old Idempotency-Keys and replays, now and then.
func (t *tables) forget(ctx context.Context) {
	if t.version == "" || time.Since(t.forgot) < time.Hour {
		return
	}
	t.forgot = time.Now()
	if err := t.a.edge.direct.Forget(ctx); err != nil && ctx.Err() == nil {
		t.a.log.Warn("forget old Idempotency-Keys and replays", "error", err)
	}
}

func (t *tables) refresh(ctx context.Context, anyway bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	version, err := t.catalog.Version(ctx)
	if err != nil || version == t.version && !anyway {
		return err
	}
	read, version, err := t.load(ctx, version)
	if err != nil {
		return err
	}
	if err := t.open(ctx, read); err != nil {
		return err
	}
	var written map[string]bool
	if t.a.role.flusher() {
		if written, err = t.written(ctx); err != nil {
			return err
		}
	}
	first := t.version == ""
	t.current.Store(&read)
	t.publish(read)
	t.a.watches.publish(read)
	t.flush(written)
	t.version = version
	if first {
		t.a.log.Info("catalog read", "tables", len(read))
		if t.a.ready != nil {
			return t.a.ready(t.a.addr)
		}
	}
	return nil
}

// mostLoads bounds how often the catalog is read because it changes meanwhile:
// somebody may do nothing else all day.
const mostLoads = 5

// load reads the catalog at one moment. Postgres prints expressions as they are
// now, not as they were in the snapshot: the defaults of a table that is dropped
// meanwhile are missing. So what was read counts when nothing changed.
func (t *tables) load(ctx context.Context, version string) (read map[string]*table.Table, of string, err error) {
	for try := 1; ; try++ {
		if read, err = t.catalog.Load(ctx); err != nil {
			return nil, "", err
		}
		after, err := t.catalog.Version(ctx)
		if err != nil || after == version || try == mostLoads {
			return read, version, err
		}
		version = after
	}
}

// open makes the partitions of new tables ready for writes.
func (t *tables) open(ctx context.Context, read map[string]*table.Table) error {
	var places []buffer.Place
	var names []string
	for name, tbl := range read {
		if tbl.Unusable != "" || t.opened[name] {
			continue
		}
		names = append(names, name)
		for p := range t.a.config.table(name).Partitions {
			places = append(places, buffer.Place{Table: name, Partition: p})
		}
	}
	if len(places) == 0 {
		return nil
	}
	for _, name := range names {
		t.a.buffer.AssumeStrategy(name, t.a.config.table(name).Strategy)
	}
	if t.a.role.api() {
		t.a.processes.Beat(ctx) // before it accepts anything
	}
	if err := t.a.buffer.OpenPlaces(ctx, places); err != nil {
		return err
	}
	if t.a.role.api() {
		if err := t.switchTo(ctx, names, read); err != nil {
			return err
		}
	}
	for _, name := range names {
		t.opened[name] = true
	}
	return nil
}

// target of a table: made once for each way of keeping its index.
func (t *tables) target(name string, index bool) *buffer.Target {
	c, limits := t.a.config.table(name), t.a.config.Limits
	old := t.targets[name]
	if old != nil && old.Index == index {
		return old
	}
	target := &buffer.Target{
		Table: name, Partitions: c.Partitions, Index: index,
		MaxRows:  buffer.PartitionShare(limits.BacklogRows, c.Partitions),
		MaxBytes: buffer.PartitionShare(int64(limits.BacklogBytes), c.Partitions),
	}
	if old != nil {
		target.Follow(old.Strategy())
	}
	t.targets[name] = target
	return target
}

// switchTo makes the strategies of the configuration those of the tables, in
// every process: the one that was started last is right.
func (t *tables) switchTo(ctx context.Context, names []string, read map[string]*table.Table) error {
	for _, name := range names {
		target := t.target(name, read[name].HasKey() && t.a.config.table(name).Cache != "none")
		if err := t.a.buffer.SetStrategy(ctx, target, t.a.config.table(name).Strategy); err != nil {
			return err
		}
	}
	return nil
}

// checkDrained looks whether tables that are written directly have rows in the
// log from before.
func (t *tables) checkDrained(ctx context.Context) {
	for _, target := range t.targets {
		if target.Direct() && !target.Drained() {
			_ = t.a.buffer.CheckDrained(ctx, target) // again in a second
		}
	}
}

// publish hands the catalog to the API.
func (t *tables) publish(read map[string]*table.Table) {
	served := make(map[string]*api.Served, len(read))
	for name, tbl := range read {
		c := t.a.config.table(name)
		target := t.target(name, tbl.HasKey() && c.Cache != "none")
		served[name] = &api.Served{
			Table: tbl, Target: target, Strategy: c.Strategy, Linger: c.Linger, Lag: c.TargetLag, Cache: c.Cache,
			TTL: *c.TTL, ListTTL: *c.ListTTL, NegativeTTL: *c.NegativeTTL, RefreshAhead: *c.Refresh, Stale: *c.Stale,
		}
	}
	t.a.server.SetTables(served)
}

// written names the tables that were ever open for writes.
func (t *tables) written(ctx context.Context) (map[string]bool, error) {
	progress, err := postgres.NewWatermarks(t.a.pool).Progress(ctx)
	names := make(map[string]bool)
	for i := range progress {
		names[progress[i].Place.Table] = true
	}
	return names, err
}

// flush hands tables to the flusher: also those that are gone or cannot be
// written now, so that it says why their rows wait.
func (t *tables) flush(written map[string]bool) {
	for name := range written {
		c := t.a.config.table(name)
		t.a.flusher.Set(flusher.Table{
			Name: name, Partitions: c.Partitions, Linger: c.Linger, TargetLag: c.TargetLag,
			Retain: c.Retain, RetainBytes: int64(c.RetainBytes) / int64(c.Partitions), DatabaseWins: c.OnExternal == databaseWins,
			Lists: *c.ListTTL > 0, PoisonLimit: c.PoisonLimit,
		})
	}
}
