package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
	"github.com/headpond/headpond/flusher/postgres"
	"github.com/headpond/headpond/migrations"
)

// safety looks at Postgres, once a minute, for what the promise stands on. The
// buffer does the same for Redis. What it finds is shown, and stops nobody.
type safety struct {
	a      *app
	checks *postgres.Checks
	last   atomic.Pointer[[]buffer.Check]
	told   map[string]bool // sentences that are in the log
}

// safetyEvery: as often as the buffer looks at Redis.
const safetyEvery = buffer.DefaultCheckEvery

func newSafety(a *app) *safety {
	return &safety{a: a, checks: postgres.NewChecks(a.pool, connections(a.config)), told: make(map[string]bool)}
}

// connections that a process may have: for the API, its direct writes, and the
// flusher.
func connections(c *config) int { return apiConns + mostDirect + flushConns(c) }

func flushConns(c *config) int { return or(c.Flusher.Workers, flusher.DefaultWorkers) + 3 }

// found at the last look.
func (s *safety) found() []buffer.Check {
	if all := s.last.Load(); all != nil {
		return *all
	}
	return nil
}

// watch looks until ctx ends, first when the catalog was read.
func (s *safety) watch(ctx context.Context) error {
	for ctx.Err() == nil {
		tables := s.a.tables.current.Load()
		if tables == nil {
			s.lookUnread(ctx)
			pause(ctx, catalogEvery)
			continue
		}
		s.look(ctx, *tables)
		pause(ctx, safetyEvery)
	}
	return nil
}

// lookUnread tells why there are no tables yet.
func (s *safety) lookUnread(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	why := "The catalog was not read yet: Postgres has not answered since the start."
	var said *answer
	schema, err := checkMigrations(ctx, s.a.databaseURL)
	if err == nil {
		err = s.a.edge.Ping(ctx)
	} else {
		err = answered(err)
	}
	switch {
	case errors.As(err, &said):
		why = "The catalog was not read yet: " + hider(s.a.databaseURL)(said.says)
	case err != nil:
	case schema.Severity != buffer.CheckOK:
		why = "The schema headpond is missing or older than this program: run headpond migrate up."
	default:
		why = "The catalog was not read yet, though Postgres answers: the log of this process says why."
	}
	s.a.server.SetUnread(why)
	if schema.Severity != buffer.CheckOK && err == nil && !s.told[why] {
		s.told[why] = true
		s.a.log.Warn(why)
	}
}

// look leaves what was found before when Postgres is away: others say that.
func (s *safety) look(ctx context.Context, tables map[string]*table.Table) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	all, err := checkPostgres(ctx, s.checks, s.a.databaseURL, tables, slices.Sorted(maps.Keys(s.a.config.Tables)))
	if err != nil {
		return
	}
	s.last.Store(&all)
	now := make(map[string]bool)
	for _, sentence := range buffer.Sentences(all) {
		if now[sentence] = true; !s.told[sentence] {
			s.a.log.Warn(sentence)
		}
	}
	s.told = now
}

// checkPostgres makes all checks of the server, its tables and our own ones.
func checkPostgres(ctx context.Context, checks *postgres.Checks, url string, tables map[string]*table.Table, named []string) ([]buffer.Check, error) {
	all, err := checks.Server(ctx)
	if err != nil {
		return nil, err
	}
	more, err := checks.Tables(ctx, tables, named)
	if err != nil {
		return nil, err
	}
	schema, err := checkMigrations(ctx, url)
	if err != nil {
		return nil, err
	}
	own, err := checks.Own(ctx)
	return append(append(append(all, more...), schema), own...), err
}

func checkMigrations(ctx context.Context, url string) (buffer.Check, error) {
	steps, err := migrations.Status(ctx, url)
	missing := 0
	for _, m := range steps {
		if !m.Applied() {
			missing++
		}
	}
	if missing > 0 {
		return buffer.Wrong(buffer.GroupHeadpond, "migrations", "headpond migrate up", "The schema headpond lacks %d of %d steps.", missing, len(steps)), err
	}
	return buffer.Fine(buffer.GroupHeadpond, "migrations", "The schema headpond is up to date."), err
}
