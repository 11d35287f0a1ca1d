package table

import (
	"errors"
	"slices"
	"strings"
)

// Kind is the family that a type's text belongs to. Types of KindOther are
// read and printed by Postgres alone; their text is a JSON string.
type Kind uint8

// The kinds. A domain has the kind KindDomain and its base type in Base.
const (
	KindOther Kind = iota
	KindBool
	KindInt2
	KindInt4
	KindInt8
	KindFloat4
	KindFloat8
	KindNumeric
	KindText // text and other unbounded strings that accept every string (not name, not citext)
	KindVarchar
	KindBpchar
	KindUUID
	KindDate
	KindTimestamp
	KindTimestamptz
	KindJSON
	KindJSONB
	KindBytea
	KindEnum
	KindArray
	KindDomain
	KindComposite
)

// Type is one column's type with its modifier, as pg_catalog describes it.
type Type struct {
	OID  uint32
	Name string // as format_type(oid, typmod) prints it, schema-qualified where needed: valid in SQL
	Bare string // the same without the modifier: a cast to it never cuts anything off
	Kind Kind
	Mod  int32 // atttypmod, -1 for none

	Precision int      // numeric(p,s): p, 0 when there is no modifier
	Scale     int      // numeric(p,s): s, may be negative
	Length    int      // varchar(n), char(n): n in characters, 0 when unbounded
	Digits    int      // timestamp(p), timestamptz(p): p, -1 when there is no modifier
	Labels    []string // enum, in sort order
	Elem      *Type    // array: the element
	Delim     byte     // array: the element delimiter, ',' but for box
	Base      *Type    // domain: the type beneath
	Fields    []Column // composite: its attributes (only Name and Type are set)
}

// DefaultKind says how the default of a column is made at accept time.
type DefaultKind uint8

// The ways to make a default.
const (
	DefaultNone       DefaultKind = iota
	DefaultConstant               // Default.Text, evaluated by Postgres when the catalog was read
	DefaultNow                    // now(), current_timestamp, clock_timestamp() …: the moment of accepting
	DefaultUUID                   // gen_random_uuid(), uuid_generate_v4()
	DefaultSequence               // nextval of Default.Sequence, or an identity column: reserved in blocks
	DefaultExpression             // Default.SQL, evaluated by Postgres for each request
)

// Default is what a column gets when a request leaves it out.
type Default struct {
	Kind     DefaultKind
	Null     bool   // DefaultConstant: the value is NULL
	Text     string // DefaultConstant: canonical text
	Sequence string // DefaultSequence: name as regclass::text prints it
	SQL      string // the expression as pg_get_expr prints it
}

// Column is one column of a table.
type Column struct {
	Name           string
	Number         int // in the catalog: kept when the column is renamed; 0 when not known
	Type           *Type
	NotNull        bool
	Generated      bool // GENERATED … STORED: computed by Postgres, never written by Headpond
	IdentityAlways bool // GENERATED ALWAYS AS IDENTITY: Headpond reserves it, clients may not give it
	Default        Default
}

// ReadOnly reports whether clients may not give a value for the column.
func (c *Column) ReadOnly() bool { return c.Generated || c.IdentityAlways }

// Table is one table as the catalog described it at one moment. It is
// immutable once published: a change of schema makes a new Table.
type Table struct {
	OID     uint32
	Schema  string
	Name    string // the name in paths: "orders" for public.orders, "audit.orders" for other schemas
	SQLName string // quoted and schema-qualified, safe to paste into SQL

	Columns  []Column // in attnum order, dropped columns left out
	Numbered int      // how many columns the table ever had, dropped ones too: the highest number
	Key      []int    // indexes into Columns, in primary-key order; empty when there is none

	// KeyEquals is for each key column the equality operator of the primary
	// key's index, ready for SQL: a bare = finds another operator, or none,
	// where the type's schema is not on the search_path.
	KeyEquals []string

	// Partitioned is set for a partitioned table. Any other is read and
	// written as ONLY itself, without tables that inherit from it.
	Partitioned bool

	// Unusable is the reason in plain words why the table cannot be served
	// exactly (view, RLS, unlogged …); empty when it can.
	Unusable string

	// Fingerprint is a hash of everything above that changes what text means
	// or where it goes: names, types, modifiers, NOT NULL, generated, key.
	// 16 hex digits.
	Fingerprint string

	byName map[string]int
	stored []int // the columns that travel in frames: all that are not Generated
	header []byte
}

// ErrJudge is returned when only Postgres can tell what a value means.
var ErrJudge = errors.New("only Postgres can judge this value")

// Seal computes the look-ups. Call it once, before the table is shared.
func (t *Table) Seal() *Table {
	t.byName = make(map[string]int, len(t.Columns))
	t.stored = t.stored[:0]
	for i := range t.Columns {
		t.byName[t.Columns[i].Name] = i
		if !t.Columns[i].Generated {
			t.stored = append(t.stored, i)
		}
	}
	t.header = t.newHeader()
	for i, c := range t.stored {
		if i > 0 {
			t.header = append(t.header, '\t')
		}
		t.header = t.Columns[c].appendHeader(t.header)
	}
	return t
}

// Column returns the index of the named column.
func (t *Table) Column(name string) (int, bool) {
	i, ok := t.byName[name]
	return i, ok
}

// Stored lists the columns that travel in frames, in table order: all but the
// generated ones. The caller must not change it.
func (t *Table) Stored() []int { return t.stored }

// Header is the column list of a frame: the stored columns as a COPY text line
// without its newline, see AllHeader. The caller must not change it.
func (t *Table) Header() []byte { return t.header }

// HasKey reports whether the table has a primary key.
func (t *Table) HasKey() bool { return len(t.Key) > 0 }

// IsKey reports whether column c belongs to the primary key.
func (t *Table) IsKey(c int) bool { return slices.Contains(t.Key, c) }

// KeyNames joins the names of the key columns for messages.
func (t *Table) KeyNames() string {
	names := make([]string, len(t.Key))
	for i, k := range t.Key {
		names[i] = t.Columns[k].Name
	}
	return strings.Join(names, ", ")
}
