package table_test

import (
	"fmt"

	"github.com/headpond/headpond/buffer/table"
)

func plain(kind table.Kind, name string) *table.Type {
	return &table.Type{Name: name, Bare: name, Kind: kind, Mod: -1, Digits: -1}
}

func arrayOf(elem *table.Type) *table.Type {
	t := plain(table.KindArray, elem.Name+"[]")
	t.Elem, t.Delim = elem, ','
	return t
}

func numeric(precision, scale int) *table.Type {
	t := plain(table.KindNumeric, fmt.Sprintf("numeric(%d,%d)", precision, scale))
	t.Precision, t.Scale = precision, scale
	return t
}

func sized(kind table.Kind, name string, n int) *table.Type {
	t := plain(kind, fmt.Sprintf("%s(%d)", name, n))
	t.Length = n
	return t
}

func digits(kind table.Kind, name string, p int) *table.Type {
	t := plain(kind, fmt.Sprintf(name, p))
	t.Digits = p
	return t
}

func domain(name string, base *table.Type) *table.Type {
	t := plain(table.KindDomain, name)
	t.Base = base
	return t
}

func composite(name string, fields ...table.Column) *table.Type {
	t := plain(table.KindComposite, name)
	t.Fields = fields
	return t
}

var (
	tBool      = plain(table.KindBool, "boolean")
	tInt2      = plain(table.KindInt2, "smallint")
	tInt4      = plain(table.KindInt4, "integer")
	tInt8      = plain(table.KindInt8, "bigint")
	tFloat4    = plain(table.KindFloat4, "real")
	tFloat8    = plain(table.KindFloat8, "double precision")
	tNumeric   = plain(table.KindNumeric, "numeric")
	tText      = plain(table.KindText, "text")
	tVarchar   = plain(table.KindVarchar, "character varying")
	tUUID      = plain(table.KindUUID, "uuid")
	tDate      = plain(table.KindDate, "date")
	tTimestamp = plain(table.KindTimestamp, "timestamp without time zone")
	tTimestamz = plain(table.KindTimestamptz, "timestamp with time zone")
	tJSON      = plain(table.KindJSON, "json")
	tJSONB     = plain(table.KindJSONB, "jsonb")
	tBytea     = plain(table.KindBytea, "bytea")
	tInet      = plain(table.KindOther, "inet")
	tInterval  = plain(table.KindOther, "interval")
	tMoney     = plain(table.KindOther, "money")
	tMood      = &table.Type{
		Name: "mood", Bare: "mood", Kind: table.KindEnum, Mod: -1, Digits: -1,
		Labels: []string{"sad", "so so", `happy, "very"`, "NULL"},
	}
	tSpot = composite("spot", table.Column{Name: "x", Type: tInt4}, table.Column{Name: "label", Type: tText},
		table.Column{Name: "a b", Type: numeric(5, 1)})
	tNest = composite("nest", table.Column{Name: "id", Type: tInt8}, table.Column{Name: "at", Type: tSpot},
		table.Column{Name: "tags", Type: arrayOf(tText)}, table.Column{Name: "doc", Type: tJSONB})
	tWords = domain("words", arrayOf(tText))
)

var scalars = []*table.Type{
	tBool, tInt2, tInt4, tInt8, tFloat4, tFloat8, tNumeric, numeric(5, 2), numeric(12, 2), numeric(3, 0), numeric(3, -2), numeric(2, 5),
	tText, tVarchar, sized(table.KindVarchar, "character varying", 5), sized(table.KindBpchar, "character", 5),
	plain(table.KindBpchar, "bpchar"), tUUID, tDate, tTimestamp, tTimestamz,
	digits(table.KindTimestamp, "timestamp(%d) without time zone", 0), digits(table.KindTimestamptz, "timestamp(%d) with time zone", 3),
	tJSON, tJSONB, tBytea, tInet, tInterval, tMoney, tMood,
	domain("positive", tInt4), domain("price", numeric(6, 2)), tWords, tSpot, tNest,
}

// allTypes is the scalars and arrays of them.
func allTypes() []*table.Type {
	all := append([]*table.Type(nil), scalars...)
	for _, t := range scalars {
		if t.Kind != table.KindDomain || t.Base.Kind != table.KindArray {
			all = append(all, arrayOf(t))
		}
	}
	return all
}
