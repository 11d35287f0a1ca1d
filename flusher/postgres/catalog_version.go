package postgres

import "context"

// versionSQL sums a hash of (row, xmin) over the catalog rows that Load reads.
// Each change of a row gives it a new xmin, so whatever DDL, GRANT or REVOKE
// does to the schemas of $1 gives another sum. It may change for less than
// that (a new index, VACUUM FULL): loading once more than needed does no harm.
const versionSQL = `
with ns as materialized (select oid from pg_catalog.pg_namespace where nspname like any ($1)),
rel as materialized (
	select c.oid, c.xmin from pg_catalog.pg_class c
	where c.relnamespace in (select oid from ns) and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') or c.relkind = 'c')
select concat_ws('.',
	(select sum(hash_record_extended(row (oid, xmin), 1)) from pg_catalog.pg_namespace where oid in (select oid from ns)),
	(select sum(hash_record_extended(row (oid, xmin), 2)) from rel),
	(select sum(hash_record_extended(row (a.attrelid, a.attnum, a.xmin), 3))
		from rel join pg_catalog.pg_attribute a on a.attrelid = rel.oid where a.attnum > 0),
	(select sum(hash_record_extended(row (d.oid, d.xmin), 4)) from rel join pg_catalog.pg_attrdef d on d.adrelid = rel.oid),
	(select sum(hash_record_extended(row (i.indexrelid, i.xmin), 5)) from rel join pg_catalog.pg_index i on i.indrelid = rel.oid),
	(select sum(hash_record_extended(row (w.oid, w.xmin), 6)) from pg_catalog.pg_rewrite w where w.ev_class in (select oid from rel)),
	(select sum(hash_record_extended(row (h.inhrelid, h.xmin), 7)) from pg_catalog.pg_inherits h where h.inhparent in (select oid from rel)),
	(select sum(hash_record_extended(row (t.oid, t.xmin), 8)) from pg_catalog.pg_type t where t.typtype in ('d', 'e', 'r', 'm', 'b') and t.oid >= 16384 and t.typcategory <> 'A'),
	(select sum(hash_record_extended(row (e.oid, e.xmin), 9)) from pg_catalog.pg_enum e),
	(select sum(hash_record_extended(row (k.oid, k.xmin), 10)) from pg_catalog.pg_constraint k where k.contypid <> 0),
	(select sum(hash_record_extended(row (m.roleid, m.member, m.xmin), 11)) from pg_catalog.pg_auth_members m))`

// Version is a short text that changes whenever anything that Load reads may
// have changed. It is cheap enough to be asked every second.
func (c *Catalog) Version(ctx context.Context) (string, error) {
	var version string
	err := c.pool.QueryRow(ctx, versionSQL, c.schemaPatterns()).Scan(&version)
	return version, storeError("read the catalog's version", err)
}

// schemaPatterns are the patterns of LIKE for the schemas of the selection.
func (c *Catalog) schemaPatterns() []string {
	out := []string{"public"}
	for _, p := range c.sel.Expose {
		schema, _ := splitName(p)
		out = append(out, likePattern(schema))
	}
	for _, name := range c.sel.Tables {
		schema, _ := splitName(name)
		out = append(out, likePattern(schema))
	}
	return out
}
