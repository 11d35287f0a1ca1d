package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// keys goes through all keys of Redis: clean rows are compared with Postgres, and
// what must stay has no time to live.
func (v *verifier) keys(ctx context.Context) error {
	strays := make(map[string]int64)
	compared := make(map[string]int64)
	err := v.b.WalkNames(ctx, func(names []buffer.Name, scanned int64) error {
		v.progress(scanned)
		rows := make(map[buffer.Place][]string)
		for _, n := range names {
			name := n.Place.Table
			switch {
			case !v.of(name):
			case v.tables[name] == nil || v.accounts[n.Place] == nil:
				strays[name]++
			case n.Kind == buffer.NameRow:
				if v.tables[name].HasKey() && (v.sample == 0 || compared[name] < v.sample) {
					rows[n.Place] = append(rows[n.Place], n.Rest)
					compared[name]++
				}
			default:
				if err := v.lasting(ctx, n); err != nil {
					return err
				}
			}
		}
		for p, keys := range rows {
			if err := v.clean(ctx, p, keys); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return v.strays(ctx, strays)
}

// strays are keys of tables that are not served: they were dropped, or are not
// exposed.
func (v *verifier) strays(ctx context.Context, found map[string]int64) error {
	if len(found) == 0 {
		return nil
	}
	now, err := v.catalog.Load(ctx) // a table may have come meanwhile
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if now[name] != nil && v.tables[name] == nil {
			continue
		}
		d := differs(buffer.Place{Table: name}, "stray", "", "%d keys of Redis are of a table or a partition that Headpond does not serve", found[name])
		d.Severity = buffer.CheckWarning
		v.report.note(d)
	}
	return nil
}

// lasting: log, index, meta and marks have no time to live, and a generation is
// one of those that the meta knows.
func (v *verifier) lasting(ctx context.Context, n buffer.Name) error {
	if n.Mortal {
		err := v.suspect(ctx, differs(n.Place, "time to live", "", "%s is going to vanish: it has a time to live", n.Full),
			func(ctx context.Context) (bool, error) { return v.b.Mortal(ctx, n.Full) })
		if err != nil {
			return err
		}
	}
	if n.Kind != buffer.NameIndex {
		return nil
	}
	stray := func(ctx context.Context) (bool, error) {
		s, err := v.b.State(ctx, n.Place)
		if err := damagedIsNoError(err); err != nil || s == nil {
			return false, err
		}
		g, err := strconv.ParseInt(n.Rest, 10, 64)
		return err != nil || g < s.Oldest || g > s.Gen, nil
	}
	is, err := stray(ctx)
	if err != nil || !is {
		return err
	}
	d := differs(n.Place, "stray", "", "%s is a generation of the index that nobody knows", n.Full)
	d.Severity = buffer.CheckWarning
	return v.suspect(ctx, d, func(ctx context.Context) (bool, error) {
		is, err := stray(ctx)
		if err != nil || !is {
			return false, err
		}
		return v.b.Exists(ctx, n.Full)
	})
}

// clean compares clean rows of one place, and what says that there is no row,
// with Postgres.
func (v *verifier) clean(ctx context.Context, p buffer.Place, keys []string) error {
	t := v.tables[p.Table]
	for some := range slices.Chunk(keys, waitingKeys) {
		bad, n, err := v.cleanOnce(ctx, p, t, some)
		if v.report.CachedRows += n; err != nil {
			return err
		}
		for _, d := range bad {
			err := v.suspect(ctx, d.difference, func(ctx context.Context) (bool, error) {
				again, _, err := v.cleanOnce(ctx, p, t, []string{d.Key})
				if err != nil || len(again) == 0 || again[0].head != d.head {
					return false, err // another one lies there now
				}
				return v.served(ctx, p, d.Key)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// served reports whether readers are given what lies under row:<key>: not while
// the index leads to a row of the log.
func (v *verifier) served(ctx context.Context, p buffer.Place, key string) (bool, error) {
	got, err := v.b.LookUp(ctx, p, []string{key})
	if err != nil || got[0].ID.Seq == 0 {
		return err == nil, err
	}
	f, err := v.b.FrameOf(ctx, p, got[0].ID)
	return f == nil, err
}

type outdated struct {
	difference

	head string
}

// cleanOnce looks at what is cached, then at Postgres, then at what is cached once
// more. What lies there both times was not touched by any write in between: so
// that it is right does not depend on the moment.
func (v *verifier) cleanOnce(ctx context.Context, p buffer.Place, t *table.Table, keys []string) (bad []outdated, n int64, err error) {
	before, damaged, err := v.b.Cached(ctx, p, keys)
	if err != nil {
		return nil, 0, err
	}
	var asked []int
	var cells [][]table.Cell
	for i, c := range before {
		if damaged[i] != nil {
			bad = append(bad, outdated{differs(p, "clean row", keys[i], "it cannot be read: %s", damaged[i]), ""})
		}
		if c == nil || c.Old || time.Now().After(c.Ends) { // a miss for readers
			continue
		}
		key, ok := t.KeyCells(c.Key)
		if !ok {
			bad = append(bad, outdated{differs(p, "clean row", c.Key, "this is no key of the table"), c.Head})
			continue
		}
		asked, cells = append(asked, i), append(cells, key)
	}
	stored, _, err := v.pg.Rows(ctx, t, p, cells)
	if err != nil {
		return nil, 0, err
	}
	after, _, err := v.b.Cached(ctx, p, keys)
	if err != nil {
		return nil, 0, err
	}
	for at, i := range asked {
		if after[i] == nil || after[i].Head != before[i].Head {
			continue
		}
		n++
		if d := judgeClean(p, t, before[i], stored[at].Row, stored[at].Err); d != nil {
			bad = append(bad, outdated{*d, before[i].Head})
		}
	}
	return bad, n, nil
}

func judgeClean(p buffer.Place, t *table.Table, c *buffer.Cached, stored table.Row, failed error) *difference {
	var d difference
	switch {
	case failed != nil:
		d = differs(p, "clean row", c.Key, "this is no key of the table: %s", failed)
	case c.Absent && stored != nil:
		d = differs(p, "missing row", c.Key, "Redis remembers that there is no row, and there is one")
	case c.Absent:
		return nil
	default:
		places, retyped := t.Places(c.Row.Columns)
		for _, i := range retyped {
			places[i] = -1
		}
		cells := table.ParseLine(c.Row.Line)
		row := layOut(t, places, cells)
		for i := range row {
			if row[i].State == table.Missing { // it is loaded again before it is served
				return nil
			}
		}
		if stored == nil {
			d = differs(p, "clean row", c.Key, "Postgres has no row of this key")
			d.Redis = fmt.Sprintf("%.*s", 4*mostText, t.AppendRowJSON(nil, row))
			break
		}
		a, b := contrast(t, row, stored)
		if a == "" && len(cells) == len(places) {
			return nil
		}
		d = differs(p, "clean row", c.Key, "the row that readers are given is not the one in Postgres")
		d.Redis, d.Postgres = a, b
	}
	return &d
}
