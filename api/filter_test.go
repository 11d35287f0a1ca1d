package api

import (
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
)

// listed has columns whose names mean something else in a list, or need quotes.
var listed = (&table.Table{Name: "listed", Key: []int{0}, Columns: []table.Column{
	{Name: "id", Type: &table.Type{Name: "bigint", Kind: table.KindInt8}},
	{Name: "v", Type: &table.Type{Name: "text", Kind: table.KindText}},
	{Name: "b", Type: &table.Type{Name: "flag", Kind: table.KindDomain, Base: &table.Type{Name: "boolean", Kind: table.KindBool}}},
	{Name: "limit", Type: &table.Type{Name: "integer", Kind: table.KindInt4}},
	{Name: `a.b,"c\`, Type: &table.Type{Name: "name", Kind: table.KindOther}},
}}).Seal()

func TestParseQuery(t *testing.T) {
	t.Parallel()
	filter := func(c int, o table.Operator, values ...string) table.Query {
		return table.Query{Where: []table.Filter{{Column: c, Operator: o, Values: values}}}
	}
	not := func(q table.Query) table.Query {
		q.Where[0].Not = true
		return q
	}
	for raw, want := range map[string]table.Query{
		"":                                   {},
		"&select=*":                          {},
		"select=v,id,v":                      {Select: []int{1, 0}},
		"limit=0&offset=9223372036854775807": {Limit: -1, Offset: 1<<63 - 1},
		"limit=50":                           {Limit: 50},
		"order=v":                            {Order: []table.Order{{Column: 1}}},
		"order=v.desc,b.asc.nullsfirst,id.desc.nullslast": {Order: []table.Order{
			{Column: 1, Desc: true, NullsFirst: true}, {Column: 2, NullsFirst: true}, {Column: 0, Desc: true},
		}},
		`order="a.b,\"c\\".nullsfirst,limit`: {Order: []table.Order{{Column: 4, NullsFirst: true}, {Column: 3}}},
		"id=eq.5":                            filter(0, table.Eq, "5"),
		"id=neq.5":                           not(filter(0, table.Eq, "5")),
		"id=not.gte.-5":                      not(filter(0, table.Gte, "-5")),
		"id=not.neq.5":                       filter(0, table.Eq, "5"),
		"id=gt.1&id=lt.9": {Where: []table.Filter{
			{Column: 0, Operator: table.Gt, Values: []string{"1"}}, {Column: 0, Operator: table.Lt, Values: []string{"9"}},
		}},
		"v=eq.":                     filter(1, table.Eq, ""),
		"v=eq.a.b%26c%3Dd":          filter(1, table.Eq, "a.b&c=d"),
		`v=eq."x"`:                  filter(1, table.Eq, `"x"`),
		"v=lte.*":                   filter(1, table.Lte, "*"),
		"v=like.*a%25_*":            filter(1, table.Like, "%a%_%"),
		`v=like.\*\\`:               filter(1, table.Like, `\%\\`),
		"v=not.ilike.x":             not(filter(1, table.ILike, "x")),
		"v=in.(a)":                  filter(1, table.In, "a"),
		"v=in.()":                   filter(1, table.In),
		`v=in.("")`:                 filter(1, table.In, ""),
		`v=in.(a,,"b,)\"\\c",d"e,)`: filter(1, table.In, "a", "", `b,)"\c`, `d"e`, ""),
		"b=is.TRUE":                 filter(2, table.Is, "true"),
		"b=is.unknown":              filter(2, table.Is, "unknown"),
		"id=not.is.null":            not(filter(0, table.Is, "null")),
		`"limit"=eq.5&limit=5`:      {Limit: 5, Where: filter(3, table.Eq, "5").Where},
		`"a.b,\"c\\"=like.x`:        filter(4, table.Like, "x"),
		`a.b,"c\=eq.x`:              filter(4, table.Eq, "x"),
	} {
		switch want.Limit {
		case 0:
			want.Limit = defaultList
		case -1:
			want.Limit = 0
		}
		if !ordersBy(&want, 0) {
			want.Order = append(want.Order, table.Order{Column: 0})
		}
		got, err := parseQuery(listed, raw, DefaultList)
		require.NoError(t, err, raw)
		require.Equal(t, &want, got, raw)
	}
}

func TestParseQueryWithoutKey(t *testing.T) {
	t.Parallel()
	keyless := *listed
	keyless.Key = nil
	q, err := parseQuery(&keyless, "", 10)
	require.NoError(t, err)
	require.Equal(t, &table.Query{Limit: 10}, q)
}

func TestParseQueryRefuses(t *testing.T) {
	t.Parallel()
	for raw, detail := range map[string]string{
		"id=eq.%zz":                     "cannot be read",
		"id=eq.1;v=eq.2":                "cannot be read",
		"=eq.1":                         `no column ""`,
		"nope=eq.1":                     `no column "nope"`,
		"or=(id.eq.1,v.eq.2)":           `no column "or"`,
		"Id=eq.1":                       `no column "Id"`,
		"id::text=eq.1":                 `no column "id::text"`,
		`"id=eq.1`:                      "no column",
		`"id"x=eq.1`:                    "no column",
		"%ff=eq.1":                      "no column",
		"id":                            "operator and a dot",
		"id=":                           "operator and a dot",
		"id=5":                          "operator and a dot",
		"id=eq":                         "operator and a dot",
		"id=not":                        "operator and a dot",
		"id=not.eq":                     "operator and a dot",
		"id=.5":                         "operator and a dot",
		"id=EQ.5":                       "operator and a dot",
		"id=fts.5":                      "operator and a dot",
		"id=5.eq":                       "operator and a dot",
		"id=like.5":                     "type bigint has no like",
		"b=ilike.t*":                    "type flag has no ilike",
		`v=like.a\`:                     "escapes nothing",
		`v=ilike.a\\\`:                  "escapes nothing",
		"id=is.true":                    "only a boolean can be true",
		"b=is.maybe":                    `not "maybe"`,
		"b=is.":                         `not ""`,
		"id=in.1,2":                     "brackets",
		"id=in.(1,2":                    "brackets",
		"id=in.1)":                      "brackets",
		"id=in.":                        "brackets",
		`v=in.("a)`:                     "double quote is not closed",
		`v=in.("a\")`:                   "double quote is not closed",
		`v=in.("a\`:                     "brackets",
		`v=in.("a"b,c)`:                 `not "b"`,
		"order=":                        `no column ""`,
		"order=id,":                     `no column ""`,
		"order=nope":                    `no column "nope"`,
		"order=id.up":                   `".up" cannot follow id`,
		"order=id.":                     `"." cannot follow id`,
		"order=id.nullsfirst.desc":      "cannot follow id",
		"order=id.asc.desc":             "cannot follow id",
		"order=id desc":                 `no column "id desc"`,
		`order="id`:                     "double quote is not closed",
		`order="id"desc`:                `"desc" cannot follow id`,
		"order=v,id,v.desc":             "order names v twice",
		"order=v&order=id":              "order is given 2 times",
		"select=id&select=v":            "select is given 2 times",
		"select=nope":                   `no column "nope"`,
		"select=id,":                    `no column ""`,
		"limit=1&limit=1":               "limit is given 2 times",
		"offset=1&offset=2&offset=3":    "offset is given 3 times",
		"limit=":                        `not ""`,
		"limit=-1":                      `not "-1"`,
		"limit=+1":                      `not " 1"`,
		"limit=%2B1":                    `not "+1"`,
		"limit=1e3":                     `not "1e3"`,
		"limit=1.0":                     `not "1.0"`,
		"limit=0x10":                    `not "0x10"`,
		"limit=1_000":                   `not "1_000"`,
		"limit=eq.5":                    `not "eq.5"`,
		"limit=10001":                   "at most 10000",
		"limit=9223372036854775808":     "whole number",
		"offset=-1":                     `not "-1"`,
		"offset=9223372036854775808":    "whole number",
		"offset=NaN":                    `not "NaN"`,
		"order=" + many("x", 1000):      "order: there is no column",
		"v=" + many("x", 1000) + ".eq":  "operator and a dot",
		"limit=" + many("9", 1000):      "whole number",
		many("x", 1000) + "=eq.1":       "no column",
		"select=" + many("id,", 10_000): "no column",
	} {
		_, err := parseQuery(listed, strings.ReplaceAll(raw, " ", "%20"), DefaultList)
		checkBadFilter(t, raw, err)
		require.Contains(t, err.(*Problem).Detail, detail, raw) //nolint:errorlint,forcetypeassert // checked
	}
}

func many(s string, n int) string { return strings.Repeat(s, n) }

func checkBadFilter(t *testing.T, raw string, err error) {
	t.Helper()
	var p *Problem
	require.ErrorAs(t, err, &p, raw)
	require.Equal(t, codeBadFilter, p.Code)
	require.Equal(t, 400, p.Code.status())
	require.Equal(t, "no", p.Applied)
	require.Less(t, len(p.Detail), 500, "nothing is echoed whole")
}

// FuzzFilter: what is refused is refused in a known way; what is accepted keeps
// within the table and the limits, and says the same when it is written again.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		"id=eq.5&v=like.*a*&order=v.desc.nullslast,id&limit=10&offset=5&select=id,v", `v=in.(a,"b,\"",)&b=not.is.unknown`, "limit=10001", "limit=0&limit=1",
		`"limit"=gte.1&"a.b,\"c\\"=neq.x`, `order="a.b,\"c\\".desc`, "id=not.not.neq.1&id=in.()", "%zz", "a;b", "id=%ff%00&v=is.null", "select=", `v=in.("a`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		const most = 1000
		q, err := parseQuery(listed, raw, most)
		if err != nil {
			checkBadFilter(t, raw, err)
			return
		}
		require.True(t, 0 <= q.Limit && q.Limit <= most)
		require.GreaterOrEqual(t, q.Offset, int64(0))
		require.True(t, ordersBy(q, 0), "the key makes the order whole")
		require.LessOrEqual(t, len(q.Order), len(listed.Columns))
		require.LessOrEqual(t, len(q.Select), len(listed.Columns))
		for _, filter := range q.Where {
			require.True(t, filter.Operator == table.In || len(filter.Values) == 1)
		}
		again, err := parseQuery(listed, rawQuery(listed, q), most)
		require.NoError(t, err, rawQuery(listed, q))
		require.ElementsMatch(t, q.Where, again.Where)
		q.Where, again.Where = nil, nil
		require.Equal(t, q, again)
	})
}

// rawQuery writes a query as a client would.
func rawQuery(t *table.Table, q *table.Query) string {
	quote := func(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` }
	quoteAll := func(all []string) string {
		out := make([]string, len(all))
		for i := range all {
			out[i] = quote(all[i])
		}
		return strings.Join(out, ",")
	}
	params := url.Values{"limit": {strconv.FormatInt(q.Limit, 10)}, "offset": {strconv.FormatInt(q.Offset, 10)}}
	for _, f := range q.Where {
		text := string(f.Operator) + "."
		if f.Not {
			text = "not." + text
		}
		if f.Operator == table.In && len(f.Values) > 0 {
			text += "(" + quoteAll(f.Values) + ")"
		} else if f.Operator == table.In {
			text += "()"
		} else {
			text += f.Values[0]
		}
		params.Add(quote(t.Columns[f.Column].Name), text)
	}
	var order, chosen []string
	for _, o := range q.Order {
		text := quote(t.Columns[o.Column].Name) + map[bool]string{false: ".asc", true: ".desc"}[o.Desc]
		order = append(order, text+map[bool]string{false: ".nullslast", true: ".nullsfirst"}[o.NullsFirst])
	}
	for _, c := range q.Select {
		chosen = append(chosen, t.Columns[c].Name)
	}
	params.Set("order", strings.Join(order, ","))
	params.Set("select", strings.Join(chosen, ","))
	return params.Encode()
}
