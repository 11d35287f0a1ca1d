package api

import (
	"fmt"
	"strings"

	"github.com/headpond/headpond/buffer/table"
)

// schema is what is used here of JSON Schema 2020-12.
type schema struct {
	Ref        string             `json:"$ref,omitempty"`
	Title      string             `json:"title,omitempty"`
	Type       []string           `json:"type,omitempty"` // none: any
	Format     string             `json:"format,omitempty"`
	MaxLength  int                `json:"maxLength,omitempty"`
	Enum       []any              `json:"enum,omitempty"`
	Items      *schema            `json:"items,omitempty"`
	AnyOf      []*schema          `json:"anyOf,omitempty"`
	Properties map[string]*schema `json:"properties,omitempty"`
	Others     *bool              `json:"additionalProperties,omitempty"`
	Required   []string           `json:"required,omitempty"`
	ReadOnly   bool               `json:"readOnly,omitempty"`

	Table   string   `json:"x-table,omitempty"`
	Key     []string `json:"x-key,omitempty"`
	SQLType string   `json:"x-type,omitempty"` // as Postgres prints it
	NotNull bool     `json:"x-not-null,omitempty"`
	Default string   `json:"x-default,omitempty"` // an SQL expression, or identity
}

// tableSchemas adds what the OpenAPI document says of one table:
//
//	row.<table>     a row as it is read; required names the columns in table order
//	change.<table>  what may be given for its columns
//	insert.<table>  the same, and what a new row needs
//
// The prefixes keep them apart from each other and from other schemas,
// whatever the table is called.
func tableSchemas(schemas map[string]*schema, name string, t *table.Table) {
	closed := false
	row := &schema{Title: "A row of " + name, Type: []string{"object"}, Properties: make(map[string]*schema), Others: &closed, Table: name}
	change := &schema{Title: "Columns of " + name, Type: []string{"object"}, Properties: make(map[string]*schema), Others: &closed, Table: name}
	insert := &schema{Title: "A new row of " + name, Ref: "#/components/schemas/" + schemaName("change", name), Table: name}
	for i := range t.Columns {
		c := &t.Columns[i]
		row.Properties[c.Name] = columnSchema(c, false)
		row.Required = append(row.Required, c.Name)
		if c.ReadOnly() {
			continue
		}
		change.Properties[c.Name] = columnSchema(c, true)
		if c.NotNull && c.Default.Kind == table.DefaultNone && !isMadeKey(t, i) {
			insert.Required = append(insert.Required, c.Name)
		}
	}
	for _, k := range t.Key {
		row.Key = append(row.Key, t.Columns[k].Name)
	}
	schemas[schemaName("row", name)] = row
	schemas[schemaName("change", name)] = change
	schemas[schemaName("insert", name)] = insert
}

// schemaName is the name of a schema of a table. OpenAPI takes letters, digits,
// ".", "_" and "-" alone: every other byte becomes "-" and two hex digits, and
// so does "-" itself, lest two tables have one name.
func schemaName(prefix, name string) string {
	var b strings.Builder
	b.WriteString(prefix + ".")
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "-%02x", c)
		}
	}
	return b.String()
}

// columnSchema describes the values of a column: those that are read, or those
// that may be given.
func columnSchema(c *table.Column, given bool) *schema {
	s := typeSchema(c.Type, given)
	if !c.NotNull {
		s.orNull()
	}
	s.SQLType, s.NotNull, s.ReadOnly, s.Default = c.Type.Name, c.NotNull, c.ReadOnly(), defaultText(c)
	return s
}

// typeSchema is loose where only Postgres can tell. NaN and infinities are
// strings.
func typeSchema(t *table.Type, given bool) *schema {
	switch t = t.Bottom(); t.Kind {
	case table.KindBool:
		return &schema{Type: []string{"boolean"}}
	case table.KindInt2, table.KindInt4:
		return &schema{Type: []string{"integer"}, Format: "int32"}
	case table.KindInt8:
		if given {
			return &schema{Type: []string{"integer", "string"}, Format: "int64"}
		}
		return &schema{Type: []string{"integer"}, Format: "int64"}
	case table.KindFloat4, table.KindFloat8, table.KindNumeric:
		return &schema{Type: []string{"number", "string"}}
	case table.KindVarchar, table.KindBpchar:
		if given { // blanks at the end do not count
			return &schema{Type: []string{"string"}}
		}
		return &schema{Type: []string{"string"}, MaxLength: t.Length}
	case table.KindUUID:
		return &schema{Type: []string{"string"}, Format: "uuid"}
	case table.KindDate:
		return &schema{Type: []string{"string"}, Format: "date"}
	case table.KindTimestamptz:
		return &schema{Type: []string{"string"}, Format: "date-time"}
	case table.KindEnum:
		s := &schema{Type: []string{"string"}}
		for _, label := range t.Labels {
			s.Enum = append(s.Enum, label)
		}
		return s
	case table.KindArray:
		inner := &schema{Type: []string{"array"}} // of an array with more dimensions
		return &schema{Type: []string{"array"}, Items: &schema{AnyOf: []*schema{typeSchema(t.Elem, given).orNull(), inner}}}
	case table.KindComposite:
		if given {
			return &schema{Type: []string{"object", "string"}}
		}
		return &schema{Type: []string{"object"}}
	case table.KindOther:
		if given {
			return &schema{Type: []string{"string", "number"}}
		}
		return &schema{Type: []string{"string"}}
	case table.KindJSON, table.KindJSONB:
		if given {
			return &schema{Type: []string{"object", "array", "string", "number", "boolean"}}
		}
		return &schema{}
	case table.KindText, table.KindTimestamp, table.KindBytea, table.KindDomain: // a domain is not at the bottom
	}
	return &schema{Type: []string{"string"}}
}

// orNull makes the schema take null too, unless it takes everything.
func (s *schema) orNull() *schema {
	if s.Type != nil {
		s.Type = append(s.Type, "null")
	}
	if s.Enum != nil {
		s.Enum = append(s.Enum, nil)
	}
	return s
}
