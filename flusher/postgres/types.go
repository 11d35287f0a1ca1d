package postgres

import (
	"fmt"
	"io"
	"slices"

	"github.com/headpond/headpond/buffer/table"
)

// typesSQL reads every type that the columns of tables $1 lead to: base types
// of domains, elements of arrays, fields of composites, with the modifier they
// have there. UNION, not UNION ALL, ends a cycle.
const typesSQL = `
with recursive need (oid, mod) as (
	select distinct atttypid, atttypmod from pg_attribute
	where attrelid = any ($1) and attnum > 0 and not attisdropped
	union
	select x.oid, x.mod
	from need join pg_type t on t.oid = need.oid cross join lateral (
		select t.typbasetype, t.typtypmod where t.typtype = 'd'
		union all
		select e.oid, need.mod from pg_type e where e.oid = t.typelem and e.typarray = t.oid
		union all
		select atttypid, atttypmod from pg_attribute
		where t.typtype = 'c' and attrelid = t.typrelid and attnum > 0 and not attisdropped
	) x (oid, mod)
)
select need.oid, need.mod, format_type(need.oid, need.mod), format_type(need.oid, -1),
	t.typtype::text, t.typisdefined, t.typbasetype, t.typtypmod, t.typnotnull,
	coalesce(e.oid, 0), coalesce(e.typdelim::text, ','),
	coalesce(pg_get_expr(t.typdefaultbin, 0), quote_literal(t.typdefault) || '::' || format_type(need.oid, need.mod), ''),
	coalesce(t.typdefaultbin is null or ` + constantSQL + `, false),
	array(select enumlabel::text from pg_enum where enumtypid = t.oid order by enumsortorder),
	f.names, f.types, f.mods,
	array(select pg_get_constraintdef(oid) from pg_constraint where contypid = t.oid order by conname)
from need join pg_type t on t.oid = need.oid
left join pg_type e on e.oid = t.typelem and e.typarray = t.oid
cross join lateral (select t.typdefaultbin::text) d (tree)
cross join lateral (
	select coalesce(array_agg(attname::text order by attnum), '{}'), coalesce(array_agg(atttypid order by attnum), '{}'),
		coalesce(array_agg(atttypmod order by attnum), '{}')
	from pg_attribute
	where t.typtype = 'c' and attrelid = t.typrelid and attnum > 0 and not attisdropped
) f (names, types, mods)`

// typeKey is a type with its modifier.
type typeKey struct {
	oid uint32
	mod int32
}

// typeRow is one row of typesSQL.
type typeRow struct {
	key             typeKey
	name, bare      string
	typtype         string
	defined         bool
	base            typeKey
	notNull         bool
	elem            uint32
	delim           string
	defaultSQL      string
	defaultConstant bool
	labels          []string
	fieldNames      []string
	fieldTypes      []uint32
	fieldMods       []int32
	checks          []string
}

func (r *typeRow) targets() []any {
	return []any{&r.key.oid, &r.key.mod, &r.name, &r.bare, &r.typtype, &r.defined, &r.base.oid, &r.base.mod, &r.notNull,
		&r.elem, &r.delim, &r.defaultSQL, &r.defaultConstant, &r.labels, &r.fieldNames, &r.fieldTypes, &r.fieldMods, &r.checks}
}

// kinds of the built-in types, by oid. Source: pg_type.dat.
var kinds = map[uint32]table.Kind{
	16: table.KindBool, 17: table.KindBytea, 20: table.KindInt8, 21: table.KindInt2, 23: table.KindInt4,
	25: table.KindText, 114: table.KindJSON, 700: table.KindFloat4, 701: table.KindFloat8,
	1042: table.KindBpchar, 1043: table.KindVarchar, 1082: table.KindDate, 1114: table.KindTimestamp,
	1184: table.KindTimestamptz, 1700: table.KindNumeric, 2950: table.KindUUID, 3802: table.KindJSONB,
}

// typeSet turns typeRows into types. Types are shared between columns.
type typeSet struct {
	rows map[typeKey]*typeRow
	made map[typeKey]*table.Type
}

func newTypeSet() *typeSet {
	return &typeSet{rows: make(map[typeKey]*typeRow), made: make(map[typeKey]*table.Type)}
}

// get makes the type of k. Postgres forbids a composite that holds itself,
// through arrays and domains too; should it ever allow it, the inner mention
// is a type that only Postgres reads, so that nobody walks in circles.
func (s *typeSet) get(k typeKey) *table.Type {
	if t, ok := s.made[k]; ok {
		return t
	}
	r := s.rows[k]
	if r == nil {
		return &table.Type{OID: k.oid, Mod: k.mod}
	}
	s.made[k] = &table.Type{OID: k.oid, Mod: k.mod, Name: r.name, Bare: r.bare, Digits: -1}
	t := &table.Type{OID: k.oid, Mod: k.mod, Name: r.name, Bare: r.bare, Kind: kinds[k.oid], Digits: -1}
	switch {
	case r.typtype == "d":
		t.Kind, t.Base = table.KindDomain, s.get(r.base)
	case r.typtype == "e":
		t.Kind, t.Labels = table.KindEnum, r.labels
	case r.elem != 0:
		t.Kind, t.Elem, t.Delim = table.KindArray, s.get(typeKey{r.elem, k.mod}), r.delim[0]
	case r.typtype == "c":
		t.Kind = table.KindComposite
		for i, name := range r.fieldNames {
			t.Fields = append(t.Fields, table.Column{Name: name, Type: s.get(typeKey{r.fieldTypes[i], r.fieldMods[i]})})
		}
	}
	decodeModifier(t)
	s.made[k] = t
	return t
}

// decodeModifier: what atttypmod means. Source: numeric.c, varchar.c,
// timestamp.c; the scale is 11 bits with a sign since PostgreSQL 15.
func decodeModifier(t *table.Type) {
	if t.Mod < 0 {
		return
	}
	switch t.Kind {
	case table.KindNumeric:
		m := t.Mod - 4
		t.Precision, t.Scale = int(m>>16)&0xffff, int((m&0x7ff)^1024)-1024
	case table.KindVarchar, table.KindBpchar:
		t.Length = int(t.Mod - 4)
	case table.KindTimestamp, table.KindTimestamptz:
		t.Digits = int(t.Mod)
	}
}

// notNull reports whether k is a domain, or a domain over one, that refuses NULL.
func (s *typeSet) notNull(k typeKey) bool {
	for r := s.rows[k]; r != nil && r.typtype == "d"; r = s.rows[r.base] {
		if r.notNull {
			return true
		}
	}
	return false
}

// noInput holds the types whose input function refuses everything.
var noInput = []string{
	"pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "gtsvector",
	"pg_brin_bloom_summary", "pg_brin_minmax_multi_summary",
}

// withoutInput names a type within k whose values cannot be given as text.
func (s *typeSet) withoutInput(k typeKey) (name string, found bool) {
	for _, at := range s.parts(k) {
		r := s.rows[at]
		if r == nil {
			return "unknown", true // dropped while the catalog was read
		}
		if !r.defined || r.typtype == "p" || slices.Contains(noInput, r.bare) {
			return r.name, true
		}
	}
	return "", false
}

// parts lists k and all that it is made of, each once, in an order that
// depends on nothing but the types.
func (s *typeSet) parts(k typeKey) []typeKey {
	out := []typeKey{k}
	add := func(k typeKey) {
		if k.oid != 0 && !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	for i := 0; i < len(out); i++ {
		r := s.rows[out[i]]
		if r == nil {
			continue
		}
		add(r.base)
		add(typeKey{r.elem, r.key.mod})
		for f := range r.fieldTypes {
			add(typeKey{r.fieldTypes[f], r.fieldMods[f]})
		}
	}
	return out
}

// describe writes all that text in a column of type k depends on: for
// fingerprints. Oids are left out, so that a restored dump looks the same.
func (s *typeSet) describe(w io.Writer, k typeKey) {
	for _, at := range s.parts(k) {
		r := s.rows[at]
		if r == nil {
			continue
		}
		fmt.Fprintf(w, "type %q %q %t labels %q checks %q fields", r.name, r.typtype, r.notNull, r.labels, r.checks)
		for f, name := range r.fieldNames {
			fmt.Fprintf(w, " %q %q", name, s.get(typeKey{r.fieldTypes[f], r.fieldMods[f]}).Name)
		}
	}
}
