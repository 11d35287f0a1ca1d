package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/headpond/headpond/buffer/table"
)

// table makes one table of what was read about it.
func (l *load) table(r *relation) *table.Table {
	t := &table.Table{
		OID: r.oid, Schema: r.schema, Name: pathName(r.schema, r.name), SQLName: r.sql,
		Partitioned: r.kind == "p",
		Numbered:    r.numbered,
		Columns:     make([]table.Column, len(r.attributes)),
	}
	place := make(map[int]int, len(r.attributes)) // attnum → index
	for i := range r.attributes {
		place[r.attributes[i].num] = i
		t.Columns[i] = l.column(&r.attributes[i])
	}
	for _, k := range r.key {
		t.Key = append(t.Key, place[k.num])
		t.KeyEquals = append(t.KeyEquals, k.equals)
	}
	t.Unusable = l.unusable(r, t)
	t.Fingerprint = l.fingerprint(r, t)
	return t
}

func (l *load) column(a *attribute) table.Column {
	c := table.Column{
		Name: a.name, Number: a.num, Type: l.types.get(a.typ),
		NotNull:        a.notNull || l.types.notNull(a.typ),
		Generated:      a.generated,
		IdentityAlways: a.identity == "a",
	}
	if a.generated {
		c.Default.SQL = a.defaultSQL // what it is generated from
		return c
	}
	e := expression{sql: a.defaultSQL, constant: a.constant, sequence: a.sequence, identity: a.identity != ""}
	if r := l.types.rows[a.typ]; e.sql == "" && !e.identity && r != nil {
		e.sql, e.constant = r.defaultSQL, r.defaultConstant // the type's own
	}
	c.Default = classifyDefault(c.Type, e)
	return c
}

// fingerprint hashes what changes the meaning of text or where it goes. Oids
// are not in it: the same schema restored from a dump has the same one, and
// rows in the log stay valid for it.
func (l *load) fingerprint(r *relation, t *table.Table) string {
	h := sha256.New()
	fmt.Fprintf(h, "table %q %q\n", r.schema, r.name)
	for i := range t.Columns {
		c := &t.Columns[i]
		fmt.Fprintf(h, "column %d %q %t %t %q default %d %q %q\n", r.attributes[i].num, c.Name, c.NotNull, c.Generated,
			r.attributes[i].identity, c.Default.Kind, c.Default.SQL, c.Default.Sequence)
		l.types.describe(h, r.attributes[i].typ)
	}
	fmt.Fprintf(h, "key %d", t.Key)
	return hex.EncodeToString(h.Sum(nil)[:8])
}
