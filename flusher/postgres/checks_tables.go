package postgres

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// grants is one row of grantsSQL: what the role may do to a table, and what
// triggers do to its rows before they are written.
type grants struct {
	oid                           uint32
	mayRead, mayUpdate, mayDelete bool
	role                          string
	triggers                      []string
}

const grantsSQL = `
select c.oid, has_table_privilege(c.oid, 'select') or not exists (
		select from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and not has_column_privilege(c.oid, a.attnum, 'select')),
	has_table_privilege(c.oid, 'update') or not exists (
		select from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
			and not has_column_privilege(c.oid, a.attnum, 'update')),
	has_table_privilege(c.oid, 'delete'), current_user::text,
	array(select t.tgname::text from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled in ('O', 'A')
		and t.tgtype & 3 = 3 order by 1) -- before, for each row
from pg_class c where c.oid = any ($1)`

// Tables checks the tables that are served, as the catalog has them. named are
// those that the configuration names one by one.
func (c *Checks) Tables(ctx context.Context, tables map[string]*table.Table, named []string) ([]buffer.Check, error) {
	var out []buffer.Check
	var oids []uint32
	for _, name := range named {
		if tables[name] == nil {
			out = append(out, buffer.Wrong(buffer.GroupTables, name, "create it, or take it out of headpond.yaml", "The configuration names %s, and there is no such table.", name))
		}
	}
	for _, t := range tables {
		oids = append(oids, t.OID)
	}
	rows, err := c.pool.Query(ctx, grantsSQL, oids)
	if err != nil {
		return nil, storeError("check the tables", err)
	}
	of := make(map[uint32]*grants)
	err = each(rows, func() ([]any, func()) {
		g := &grants{}
		return []any{&g.oid, &g.mayRead, &g.mayUpdate, &g.mayDelete, &g.role, &g.triggers}, func() { of[g.oid] = g }
	})
	if err != nil {
		return nil, storeError("check the tables", err)
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		if g := of[tables[name].OID]; g != nil { // or it was dropped a moment ago
			out = append(out, checkTable(tables[name], g, slices.Contains(named, name)))
		}
	}
	ends, err := c.sequences(ctx, tables)
	return append(out, ends...), err
}

func checkTable(t *table.Table, g *grants, named bool) buffer.Check {
	const group = buffer.GroupTables
	switch {
	case t.Unusable != "" && named:
		return buffer.Wrong(group, t.Name, "", "%s is not served, though the configuration names it: %s.", t.Name, t.Unusable)
	case strings.HasPrefix(t.Unusable, "it is a "): // a view, say
		return buffer.Fine(group, t.Name, "%s is not served: %s.", t.Name, t.Unusable)
	case t.Unusable != "":
		return buffer.Risk(group, t.Name, "", "%s is not served: %s.", t.Name, t.Unusable)
	}
	var missing []string
	for name, may := range map[string]bool{"SELECT": g.mayRead, "UPDATE": g.mayUpdate, "DELETE": g.mayDelete} {
		if !may {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	switch {
	case len(missing) > 0:
		what := strings.Join(missing, ", ")
		return buffer.Risk(group, t.Name, fmt.Sprintf("GRANT %s ON %s TO %s", what, t.SQLName, quote(g.role)),
			"The role may only insert into %s: an operation that needs %s would halt the table.", t.Name, what)
	case len(g.triggers) > 0:
		return buffer.Risk(group, t.Name, "move what the trigger does to whoever writes the rows, or to an AFTER trigger",
			"Before a row of %s is written, a trigger may change or drop it (%s): until the log lets go of the row, readers get what was accepted.", t.Name, strings.Join(g.triggers, ", "))
	case !t.HasKey():
		return buffer.Fine(group, t.Name, "%s has no primary key: its rows can be added, and not read or changed one by one.", t.Name)
	}
	return buffer.Fine(group, t.Name, "%s can be served.", t.Name)
}

// sequences that are near their end.
func (c *Checks) sequences(ctx context.Context, tables map[string]*table.Table) (out []buffer.Check, err error) {
	var names, tableNames, columns []string
	var most []int64
	for _, t := range tables {
		for i := range t.Columns {
			column := &t.Columns[i]
			if column.Default.Kind != table.DefaultSequence || t.Unusable != "" {
				continue
			}
			names, tableNames, columns = append(names, column.Default.Sequence), append(tableNames, t.Name), append(columns, column.Name)
			most = append(most, mostOf(column.Type))
		}
	}
	rows, err := c.pool.Query(ctx, `
		select x.t, x.c, x.s, coalesce(pg_sequence_last_value(s.seqrelid), 0), least(s.seqmax, x.most)
		from unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) as x (s, t, c, most)
		join pg_sequence s on s.seqrelid = to_regclass(x.s)
		where not s.seqcycle and s.seqincrement > 0 and has_sequence_privilege(s.seqrelid, 'usage, select') order by 1, 2`,
		names, tableNames, columns, most)
	if err != nil {
		return nil, storeError("check the sequences", err)
	}
	err = each(rows, func() ([]any, func()) {
		var name, column, sequence string
		var last, most int64
		return []any{&name, &column, &sequence, &last, &most}, func() {
			if last > most/10*9 {
				out = append(out, buffer.Risk(buffer.GroupTables, name, fmt.Sprintf("make %s a bigint, and ALTER SEQUENCE %s MAXVALUE larger", quote(column), sequence),
					"The ids of %s end at %d, and %d are used up: then no row can be added without one.", name, most, last))
			}
		}
	})
	return out, err
}

// mostOf is the largest number of a type.
func mostOf(t *table.Type) int64 {
	switch bottom(t).Kind {
	case table.KindInt2:
		return math.MaxInt16
	case table.KindInt4:
		return math.MaxInt32
	}
	return math.MaxInt64
}
