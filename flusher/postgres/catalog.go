package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headpond/headpond/buffer/table"
)

// Selection says which tables are served.
type Selection struct {
	Expose []string // patterns: "public.*", "audit.orders", "log_*"; * stands for anything, no dot means schema public
	Tables []string // named one by one: "orders" (in public) or "audit.orders"; one that is missing is told so
}

// Catalog reads the selected tables from pg_catalog. Safe for concurrent use.
type Catalog struct {
	pool *pgxpool.Pool
	sel  Selection
}

// NewCatalog of a selection, on a pool made by NewPool.
func NewCatalog(pool *pgxpool.Pool, sel Selection) *Catalog {
	return &Catalog{pool: pool, sel: sel}
}

// LoadCatalog reads the selected tables once.
func LoadCatalog(ctx context.Context, pool *pgxpool.Pool, sel Selection) (map[string]*table.Table, error) {
	return NewCatalog(pool, sel).Load(ctx)
}

// Load reads the selected tables, by the name they have in paths. Tables that
// cannot be served exactly are there too, and say why in Unusable. Take the
// Version before Load: a change that comes in between shows at the next look.
func (c *Catalog) Load(ctx context.Context) (map[string]*table.Table, error) {
	var l load
	err := pgx.BeginTxFunc(ctx, c.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		// Names outside pg_catalog are printed with their schema, and so can
		// be pasted into SQL whatever the search_path is there.
		if _, err := tx.Exec(ctx, "set local search_path = pg_catalog"); err != nil {
			return err
		}
		return l.read(ctx, tx, c.sel)
	})
	if err != nil {
		return nil, storeError("read the catalog", err)
	}
	tables, constants := l.tables(c.sel)
	if err := NewEdge(c.pool).evaluateConstants(ctx, constants); err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	for _, t := range tables {
		t.Seal()
	}
	return tables, nil
}

// load is what one reading of the catalog found.
type load struct {
	relations []*relation
	byOID     map[uint32]*relation
	types     *typeSet
}

// read asks for the tables, then for all that belongs to them in one batch.
func (l *load) read(ctx context.Context, tx pgx.Tx, sel Selection) error {
	rows, err := tx.Query(ctx, relationsSQL, likePatterns(sel.Expose), fullNames(sel.Tables))
	if err != nil {
		return err
	}
	l.byOID, l.types = make(map[uint32]*relation), newTypeSet()
	oids := []uint32{}
	err = each(rows, func() ([]any, func()) {
		r := &relation{}
		return r.targets(), func() {
			l.relations, l.byOID[r.oid] = append(l.relations, r), r
			oids = append(oids, r.oid)
		}
	})
	if err != nil || len(oids) == 0 {
		return err
	}
	b := &pgx.Batch{}
	b.Queue(columnsSQL, oids).Query(func(rows pgx.Rows) error {
		return each(rows, func() ([]any, func()) {
			var a attribute
			return a.targets(), func() { r := l.byOID[a.relation]; r.attributes = append(r.attributes, a) }
		})
	})
	b.Queue(keysSQL, oids).Query(func(rows pgx.Rows) error {
		return each(rows, func() ([]any, func()) {
			var k keyColumn
			return k.targets(), func() { r := l.byOID[k.relation]; r.key = append(r.key, k) }
		})
	})
	b.Queue(typesSQL, oids).Query(func(rows pgx.Rows) error {
		return each(rows, func() ([]any, func()) {
			r := &typeRow{}
			return r.targets(), func() { l.types.rows[r.key] = r }
		})
	})
	return tx.SendBatch(ctx, b).Close()
}

// each scans all rows: next gives where a row goes, and what to do then.
func each(rows pgx.Rows, next func() ([]any, func())) error {
	defer rows.Close()
	for rows.Next() {
		targets, take := next()
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		take()
	}
	return rows.Err()
}

// tables puts together what was read. Two tables whose names in paths are the
// same (dots in names can do that) are both told so.
func (l *load) tables(sel Selection) (map[string]*table.Table, []constantDefault) {
	out := make(map[string]*table.Table, len(l.relations))
	var constants []constantDefault
	for _, r := range l.relations {
		t := l.table(r)
		if other := out[t.Name]; other != nil {
			other.Unusable = fmt.Sprintf("its name in paths is not unique: %s and %s are both called %s; rename one", other.SQLName, t.SQLName, t.Name)
			continue
		}
		out[t.Name] = t
		for i := range t.Columns {
			if d := &t.Columns[i].Default; d.Kind == table.DefaultConstant {
				constants = append(constants, constantDefault{d, t.Columns[i].Type})
			}
		}
	}
	for _, name := range sel.Tables {
		schema, rel := splitName(name)
		path := pathName(schema, rel)
		if out[path] == nil && out[pathName("public", name)] == nil {
			out[path] = &table.Table{Schema: schema, Name: path, SQLName: pgx.Identifier{schema, rel}.Sanitize(), Unusable: "it does not exist in this database"}
		}
	}
	return out, constants
}

// pathName is a table's name in paths.
func pathName(schema, rel string) string {
	if schema == "public" && !strings.Contains(rel, ".") {
		return rel
	}
	return schema + "." + rel
}

// splitName reads a name of Selection.
func splitName(name string) (schema, rel string) {
	if schema, rel, ok := strings.Cut(name, "."); ok {
		return schema, rel
	}
	return "public", name
}

// fullNames: a name with a dot may also be that of a table in public.
func fullNames(names []string) []string {
	out := make([]string, 0, 2*len(names))
	for _, n := range names {
		out = append(out, n, "public."+n)
	}
	return out
}

// likePatterns turns patterns into those of LIKE, for schema.table.
func likePatterns(patterns []string) []string {
	out := make([]string, len(patterns))
	for i, p := range patterns {
		schema, rel := splitName(p)
		out[i] = likePattern(schema + "." + rel)
	}
	return out
}

var toLike = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`, `*`, `%`)

func likePattern(p string) string { return toLike.Replace(p) }
