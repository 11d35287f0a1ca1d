package postgres

// relationsSQL finds the tables: those that match a pattern of $1, without
// partitions (their rows are served by the partitioned table), and those that
// are named in $2. Whatever cannot be served is read too, to say why.
const relationsSQL = `
select c.oid, n.nspname::text, c.relname::text, format('%I.%I', n.nspname, c.relname),
	c.relkind::text, c.relpersistence::text, c.relrowsecurity, c.relnatts::int,
	array(select rulename::text from pg_rewrite w where w.ev_class = c.oid and w.ev_type in ('2', '3', '4') order by 1),
	coalesce(has_schema_privilege(n.oid, 'usage'), false),
	coalesce(has_table_privilege(c.oid, 'insert'), false) or not exists (
		select from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
			and not coalesce(has_column_privilege(c.oid, a.attnum, 'insert'), false)),
	case when c.relkind = 'p' then array(
		select format('%s', p.relid::regclass) from pg_partition_tree(c.oid) p join pg_class k on k.oid = p.relid
		where k.relkind = 'f' or k.relpersistence <> 'p' order by 1) else '{}' end
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f')
	and (n.nspname || '.' || c.relname = any ($2)
		or n.nspname || '.' || c.relname like any ($1) and not c.relispartition
			and n.nspname !~ '^pg_' and n.nspname not in ('headpond', 'information_schema'))
order by n.nspname, c.relname`

// relation is one row of relationsSQL and what belongs to it.
type relation struct {
	oid               uint32
	schema, name, sql string
	kind, persistence string
	rowSecurity       bool
	numbered          int // columns, dropped ones too
	rules             []string
	mayUse, mayInsert bool
	strangers         []string // partitions that are foreign or unlogged
	attributes        []attribute
	key               []keyColumn
}

func (r *relation) targets() []any {
	return []any{&r.oid, &r.schema, &r.name, &r.sql, &r.kind, &r.persistence, &r.rowSecurity, &r.numbered,
		&r.rules, &r.mayUse, &r.mayInsert, &r.strangers}
}

// columnsSQL reads the columns of tables $1 with their own defaults (those of
// domains come with the types), or what they are generated from. The sequence of an identity column, or the one
// that a default takes from, is what the column depends on.
const columnsSQL = `
select a.attrelid, a.attnum::int, a.attname::text, a.atttypid, a.atttypmod, a.attnotnull,
	a.attgenerated <> '', a.attidentity::text,
	coalesce(pg_get_expr(e.adbin, e.adrelid), ''), coalesce(` + constantSQL + `, false),
	coalesce(s.oid::regclass::text, ''), coalesce(has_sequence_privilege(s.oid, 'usage, update'), true)
from pg_attribute a
left join pg_attrdef e on e.adrelid = a.attrelid and e.adnum = a.attnum
cross join lateral (select e.adbin::text) d (tree)
left join lateral (
	select c.oid from pg_depend p join pg_class c on c.oid = p.objid and c.relkind = 'S'
	where a.attidentity <> '' and p.classid = 'pg_class'::regclass and p.refclassid = 'pg_class'::regclass
		and p.refobjid = a.attrelid and p.refobjsubid = a.attnum and p.deptype = 'i'
	union all
	select c.oid from pg_depend p join pg_class c on c.oid = p.refobjid and c.relkind = 'S'
	where a.attidentity = '' and p.classid = 'pg_attrdef'::regclass and p.objid = e.oid and p.refclassid = 'pg_class'::regclass
	limit 1
) s on true
where a.attrelid = any ($1) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum`

// attribute is one row of columnsSQL.
type attribute struct {
	relation    uint32
	num         int
	name        string
	typ         typeKey
	notNull     bool
	generated   bool
	identity    string // "", "a" (always), "d" (by default)
	defaultSQL  string
	constant    bool
	sequence    string
	maySequence bool
}

func (a *attribute) targets() []any {
	return []any{&a.relation, &a.num, &a.name, &a.typ.oid, &a.typ.mod, &a.notNull, &a.generated, &a.identity,
		&a.defaultSQL, &a.constant, &a.sequence, &a.maySequence}
}

// keysSQL reads the primary keys of tables $1: for each column the equality
// operator of the index (strategy 3 of a B-tree), and whether values that are
// equal are the same bytes. Postgres knows that for its deduplication: support
// function 4, "equalimage". Source: PostgreSQL documentation, B-Tree Support
// Functions.
const keysSQL = `
select i.indrelid, k.n, i.indkey[k.n]::int, not i.indimmediate,
	coalesce((select format('operator(%I.%s)', n.nspname, o.oprname)
		from pg_amop p join pg_operator o on o.oid = p.amopopr join pg_namespace n on n.oid = o.oprnamespace
		where p.amopfamily = c.opcfamily and p.amopstrategy = 3
			and p.amoplefttype = c.opcintype and p.amoprighttype = c.opcintype), 'operator(pg_catalog.=)'),
	exists (select from pg_amproc p where p.amprocfamily = c.opcfamily and p.amprocnum = 4
			and p.amproclefttype = c.opcintype and p.amprocrighttype = c.opcintype),
	coalesce((select l.collisdeterministic from pg_collation l where l.oid = i.indcollation[k.n]), true)
from pg_index i cross join lateral generate_series(0, i.indnkeyatts - 1) k (n)
join pg_opclass c on c.oid = i.indclass[k.n]
where i.indrelid = any ($1) and i.indisprimary
order by i.indrelid, k.n`

// keyColumn is one row of keysSQL.
type keyColumn struct {
	relation      uint32
	n, num        int
	deferrable    bool
	equals        string
	sameImage     bool
	deterministic bool
}

func (k *keyColumn) targets() []any {
	return []any{&k.relation, &k.n, &k.num, &k.deferrable, &k.equals, &k.sameImage, &k.deterministic}
}
