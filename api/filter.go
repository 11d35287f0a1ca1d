package api

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/headpond/headpond/buffer/table"
)

// defaultList is how many rows a list has when nobody asks for more or fewer.
const defaultList = 100

// parseQuery reads the parameters of a list as PostgREST does: select, order,
// limit, offset; every other name is a column, and what it must hold. Rows that
// are alike in what they are ordered by are in the order of the primary key, so
// that pages neither overlap nor leave rows out. most bounds limit.
func parseQuery(t *table.Table, raw string, most int) (*table.Query, error) {
	params, err := url.ParseQuery(raw) // URL.Query drops what it cannot read: a filter, perhaps
	if err != nil {
		return nil, fault(codeBadFilter, "The query string cannot be read: %s.", clip(err.Error()))
	}
	q := &table.Query{Limit: int64(min(defaultList, most))}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		if err := readParam(q, t, name, params[name], most); err != nil {
			return nil, err
		}
	}
	for _, k := range t.Key {
		if !ordersBy(q, k) {
			q.Order = append(q.Order, table.Order{Column: k})
		}
	}
	return q, nil
}

func readParam(q *table.Query, t *table.Table, name string, values []string, most int) (err error) {
	switch name {
	case "select", "order", "limit", "offset":
		if len(values) > 1 {
			return fault(codeBadFilter, "%s is given %d times.", name, len(values))
		}
	}
	switch name {
	case "select":
		q.Select, err = selection(t, values[0])
	case "order":
		err = readOrder(q, t, values[0])
	case "limit":
		if q.Limit, err = readCount(name, values[0]); err == nil && q.Limit > int64(most) {
			err = fault(codeBadFilter, "limit can be at most %d.", most).hint("Read the rest with offset, or with a filter on the column that the list is ordered by.")
		}
	case "offset":
		q.Offset, err = readCount(name, values[0])
	default:
		err = readFilters(q, t, name, values)
	}
	return err
}

func readCount(name, text string) (int64, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, fault(codeBadFilter, "%s must be a whole number, not %q.", name, clip(text))
	}
	return int64(n), nil //nolint:gosec // 63 bits
}

// directions are what may follow a column in order. NULLs come last but where
// the order is turned round, as in SQL.
var directions = map[string]table.Order{
	"": {}, ".asc": {}, ".desc": {Desc: true, NullsFirst: true},
	".nullslast": {}, ".asc.nullslast": {}, ".desc.nullslast": {Desc: true},
	".nullsfirst": {NullsFirst: true}, ".asc.nullsfirst": {NullsFirst: true}, ".desc.nullsfirst": {Desc: true, NullsFirst: true},
}

// readOrder reads order=a,b.desc.nullslast.
func readOrder(q *table.Query, t *table.Table, text string) error {
	fields, ok := splitList(text)
	if !ok {
		return openQuote("order")
	}
	for _, f := range fields {
		name, rest := f.text, f.after
		if dot := strings.IndexByte(name, '.'); dot >= 0 && !f.quoted {
			name, rest = name[:dot], name[dot:]
		}
		c, known := t.Column(name)
		if !known {
			return fault(codeBadFilter, "order: there is no column %q.", clip(name))
		}
		o, known := directions[rest]
		if !known {
			return fault(codeBadFilter, "order: %q cannot follow %s.", clip(rest), name).
				hint("A column may be followed by .asc or .desc, and then by .nullsfirst or .nullslast.")
		}
		if ordersBy(q, c) {
			return fault(codeBadFilter, "order names %s twice.", name)
		}
		o.Column = c
		q.Order = append(q.Order, o)
	}
	return nil
}

func ordersBy(q *table.Query, c int) bool {
	return slices.ContainsFunc(q.Order, func(o table.Order) bool { return o.Column == c })
}

// readFilters reads what one column must hold; all of values must be true. The
// name may stand in double quotes: then it is a column's, whatever else it
// means.
func readFilters(q *table.Query, t *table.Table, name string, values []string) error {
	if text, after, ok := cutQuoted(name); ok && after == "" {
		name = text
	}
	c, ok := t.Column(name)
	if !ok {
		return fault(codeBadFilter, "There is no column %q.", clip(name)).
			hint("Parameters are select, order, limit, offset, and columns with what they must hold: id=eq.5.")
	}
	for _, text := range values {
		f := table.Filter{Column: c}
		if err := readFilter(&f, t.Columns[c], text); err != nil {
			return err
		}
		q.Where = append(q.Where, f)
	}
	return nil
}

// readFilter reads operator.value.
func readFilter(f *table.Filter, column table.Column, text string) error {
	operator, value, ok := strings.Cut(text, ".")
	for ok && operator == "not" {
		f.Not = !f.Not
		operator, value, ok = strings.Cut(value, ".")
	}
	if operator == "neq" {
		f.Not, operator = !f.Not, "eq"
	}
	f.Operator, f.Values = table.Operator(operator), []string{value}
	if !ok {
		f.Operator = ""
	}
	switch f.Operator {
	case table.Eq, table.Gt, table.Gte, table.Lt, table.Lte:
		return nil
	case table.Like, table.ILike:
		return readPattern(f, column)
	case table.In:
		return readIn(f, column)
	case table.Is:
		return readIs(f, column)
	}
	return fault(codeBadFilter, "%s: %q does not begin with an operator and a dot.", column.Name, clip(text)).
		hint("Operators are eq, neq, gt, gte, lt, lte, in, is, like and ilike; not. before one turns it round.")
}

// readPattern takes * for %, which has a meaning of its own in a URL.
func readPattern(f *table.Filter, column table.Column) error {
	pattern := f.Values[0]
	switch column.Type.Bottom().Kind {
	case table.KindText, table.KindVarchar, table.KindBpchar, table.KindOther: // name, citext
	default:
		return fault(codeBadFilter, "%s: the type %s has no %s, which is for text.", column.Name, column.Type.Name, f.Operator)
	}
	if escapes := len(pattern) - len(strings.TrimRight(pattern, `\`)); escapes%2 == 1 { // Postgres minds only if it comes to that
		return fault(codeBadFilter, "%s: the backslash at the end of the pattern escapes nothing.", column.Name)
	}
	f.Values[0] = strings.ReplaceAll(pattern, "*", "%")
	return nil
}

// readIn reads in.(a,"b,c").
func readIn(f *table.Filter, column table.Column) error {
	list, open := strings.CutPrefix(f.Values[0], "(")
	list, closed := strings.CutSuffix(list, ")")
	if !open || !closed {
		return fault(codeBadFilter, "%s: what follows in. must stand in brackets: in.(a,b).", column.Name)
	}
	f.Values = nil
	if list == "" {
		return nil
	}
	fields, ok := splitList(list)
	if !ok {
		return openQuote(column.Name)
	}
	for _, field := range fields {
		if field.after != "" {
			return fault(codeBadFilter, "%s: a comma must follow the quoted value, and not %q.", column.Name, clip(field.after))
		}
		f.Values = append(f.Values, field.text)
	}
	return nil
}

func readIs(f *table.Filter, column table.Column) error {
	value := strings.ToLower(f.Values[0])
	switch value {
	case "null":
	case "true", "false", "unknown":
		if column.Type.Bottom().Kind != table.KindBool {
			return fault(codeBadFilter, "%s: only a boolean can be %s; this column has the type %s.", column.Name, value, column.Type.Name)
		}
	default:
		return fault(codeBadFilter, "%s: what follows is. must be null, true, false or unknown, not %q.", column.Name, clip(value))
	}
	f.Values[0] = value
	return nil
}

// listField is one field of a list that commas separate.
type listField struct {
	text   string
	quoted bool
	after  string // the quotes and before the comma
}

// splitList cuts a list into its fields. A field that begins with a double
// quote ends with the next one, and may hold commas. ok is false when that one
// is missing.
func splitList(list string) (fields []listField, ok bool) {
	for more := true; more; {
		var f listField
		if strings.HasPrefix(list, `"`) {
			if f.text, list, f.quoted = cutQuoted(list); !f.quoted {
				return nil, false
			}
			f.after, list, more = strings.Cut(list, ",")
		} else {
			f.text, list, more = strings.Cut(list, ",")
		}
		fields = append(fields, f)
	}
	return fields, true
}

// cutQuoted takes the text in double quotes from the start of s; a backslash
// in it stands for the character that follows.
func cutQuoted(s string) (text, after string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		return "", s, false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", s, false
			}
		}
		b.WriteByte(s[i])
	}
	return "", s, false
}

func openQuote(where string) error {
	return fault(codeBadFilter, "%s: a double quote is not closed.", where)
}
