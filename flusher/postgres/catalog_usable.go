package postgres

import (
	"fmt"
	"strings"

	"github.com/headpond/headpond/buffer/table"
)

// unusable says why a table cannot be served exactly, in plain words and with
// the way out where there is one; "" when it can.
func (l *load) unusable(r *relation, t *table.Table) string {
	for _, reason := range []string{
		reservedReason(r), kindReason(r), accessReason(r, t), l.columnReason(r, t), l.keyReason(r, t),
	} {
		if reason != "" {
			return reason
		}
	}
	return ""
}

func reservedReason(r *relation) string {
	switch {
	case r.schema == "headpond":
		return "it belongs to Headpond itself"
	case r.schema == "pg_catalog", r.schema == "information_schema", r.schema == "pg_toast":
		return "it belongs to PostgreSQL itself"
	case strings.ContainsFunc(r.schema+r.name, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }): // receipts travel in an HTTP header
		return fmt.Sprintf("its name holds a control character; ALTER TABLE %s RENAME TO another", r.sql)
	}
	return ""
}

// kindReason: what is not an ordinary, logged table cannot hold what a
// watermark in the same transaction says it holds.
func kindReason(r *relation) string {
	switch {
	case r.kind == "v":
		return "it is a view; write to the table beneath it"
	case r.kind == "m":
		return "it is a materialized view; write to the tables beneath it"
	case r.kind == "f":
		return "it is a foreign table: another server does not commit with this one; put Headpond in front of that server"
	case r.persistence == "t":
		return "it is a temporary table: it vanishes with the session that made it"
	case r.persistence == "u":
		return fmt.Sprintf("it is unlogged: a crash of Postgres would empty it while the watermark stays; ALTER TABLE %s SET LOGGED", r.sql)
	case len(r.strangers) > 0:
		return fmt.Sprintf("its partition %s is foreign or unlogged, which a commit does not cover; detach it or make it an ordinary table", r.strangers[0])
	}
	return ""
}

// accessReason: what Postgres would refuse or turn into something else.
func accessReason(r *relation, t *table.Table) string {
	switch {
	case r.rowSecurity:
		return fmt.Sprintf("it has row-level security, whose policies COPY cannot follow; leave it out, or ALTER TABLE %s DISABLE ROW LEVEL SECURITY", r.sql)
	case len(r.rules) > 0:
		return fmt.Sprintf("its rule %q would be skipped by COPY; use a trigger instead", r.rules[0])
	case !r.mayUse:
		return fmt.Sprintf("the role may not use its schema; GRANT USAGE ON SCHEMA %s TO the role", strings.SplitN(r.sql, ".", 2)[0])
	case !r.mayInsert:
		return fmt.Sprintf("the role may not insert into it; GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO the role", r.sql)
	}
	for i := range t.Columns {
		if t.Columns[i].Default.Kind == table.DefaultSequence && !r.attributes[i].maySequence {
			s := t.Columns[i].Default.Sequence
			return fmt.Sprintf("the role may not take ids for its column %q; GRANT USAGE ON SEQUENCE %s TO the role", t.Columns[i].Name, s)
		}
	}
	return ""
}

func (l *load) columnReason(r *relation, t *table.Table) string {
	if len(t.Columns) == 0 {
		return "it has no columns"
	}
	writable := false
	for i := range t.Columns {
		c := &t.Columns[i]
		if name, found := l.types.withoutInput(r.attributes[i].typ); found {
			return fmt.Sprintf("its column %q has the type %s, whose values cannot be given as text", c.Name, name)
		}
		writable = writable || !c.Generated
	}
	if !writable {
		return "all its columns are generated: there is nothing to write"
	}
	return ""
}

// keyReason: a key is where a row lies in the buffer, so it must be known when
// the row is accepted, and equal keys must be equal text. Where they may
// differ (1.0 and 1.00, or citext's A and a) two writes to one row would go
// two ways, and their order would be lost.
func (l *load) keyReason(r *relation, t *table.Table) string {
	for i, k := range r.key {
		c := &t.Columns[t.Key[i]]
		switch {
		case k.deferrable:
			return "its primary key is deferrable, which ON CONFLICT cannot use; make it NOT DEFERRABLE"
		case c.Generated:
			return fmt.Sprintf("its primary key column %q is generated: the key is not known when a row is accepted", c.Name)
		case !k.deterministic:
			return fmt.Sprintf("its primary key column %q has a nondeterministic collation: one row could be called by several keys", c.Name)
		case !k.sameImage && !sameText(c.Type):
			return fmt.Sprintf("its primary key column %q has the type %s, in which equal values can be written in several ways%s", c.Name, c.Type.Name, wayOut(c.Type))
		}
	}
	return ""
}

func wayOut(t *table.Type) string {
	if bottom(t).Kind == table.KindNumeric {
		return "; give it a fixed scale, such as numeric(20,0)"
	}
	return ""
}

// sameText reports whether equal values of a type have equal text, for types
// of which the catalog does not say so. The built-in ranges named here are
// over types of which it does.
func sameText(t *table.Type) bool {
	switch t.Kind {
	case table.KindBool, table.KindInt2, table.KindInt4, table.KindInt8, table.KindText, table.KindVarchar, table.KindBpchar,
		table.KindUUID, table.KindDate, table.KindTimestamp, table.KindTimestamptz, table.KindBytea, table.KindEnum:
		return true
	case table.KindNumeric:
		return t.Precision > 0
	case table.KindDomain:
		return t.Base != nil && sameText(t.Base)
	case table.KindArray:
		return t.Elem != nil && sameText(t.Elem)
	}
	switch t.Name {
	case "int4range", "int8range", "daterange", "tsrange", "tstzrange":
		return true
	}
	return false
}
