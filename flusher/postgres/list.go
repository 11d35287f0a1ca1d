package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer/table"
)

// List reads the rows that q asks for and gives them to each, one after the
// other, in canonical text; columns that were not asked for are Missing. A row
// is valid until each returns. The list ends where each returns false. A
// *table.FieldError says that the query cannot be asked of this table: a value
// that its type refuses, a comparison that the type does not have. Safe for
// concurrent use.
//
// Values are read by the type beneath a column's domains, so that a filter may
// ask for what the column could not hold; nothing is cut or rounded. Operators
// are those that the session's search_path leads to.
func (e *Edge) List(ctx context.Context, t *table.Table, q *table.Query, each func(table.Row) bool) error {
	l := newListing(t, q)
	again, err := l.read(ctx, e, each)
	if again && ctx.Err() == nil { // as in ask
		e.pool.Reset()
		_, err = l.read(ctx, e, each)
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		if refused := l.refused(pg); refused != nil {
			return refused
		}
	}
	return storeError("list rows table="+t.Name, err)
}

// listing is a query as SQL.
type listing struct {
	t       *table.Table
	columns []int // of the result
	sql     strings.Builder
	params  [][]byte
	oids    []uint32
	asked   []int // for each parameter the column that it is compared with, -1 for none
}

const oidInt8 = 20

// newListing writes the statement. Names come from the catalog, and whatever a
// client wrote is a parameter. ONLY leaves out tables that inherit from this
// one: their rows are not this table's.
func newListing(t *table.Table, q *table.Query) *listing {
	l := &listing{t: t, columns: q.Select}
	if l.columns == nil {
		for c := range t.Columns {
			l.columns = append(l.columns, c)
		}
	}
	for i, c := range l.columns {
		l.sql.WriteString(separator(i, "select ", ", ") + l.name(c))
	}
	l.sql.WriteString(" from ")
	if !t.Partitioned {
		l.sql.WriteString("only ")
	}
	l.sql.WriteString(t.SQLName)
	for i := range q.Where {
		l.sql.WriteString(separator(i, " where ", " and "))
		l.filter(&q.Where[i])
	}
	for i, o := range q.Order {
		l.sql.WriteString(separator(i, " order by ", ", ") + l.name(o.Column) + direction(o))
	}
	l.sql.WriteString(" limit " + l.param(strconv.FormatInt(q.Limit, 10), oidInt8, -1))
	l.sql.WriteString(" offset " + l.param(strconv.FormatInt(q.Offset, 10), oidInt8, -1))
	return l
}

func separator(i int, first, next string) string {
	if i == 0 {
		return first
	}
	return next
}

func direction(o table.Order) string {
	out := " asc"
	if o.Desc {
		out = " desc"
	}
	if o.NullsFirst {
		return out + " nulls first"
	}
	return out + " nulls last"
}

func (l *listing) name(c int) string { return pgx.Identifier{l.t.Columns[c].Name}.Sanitize() }

// param adds a parameter and gives its place.
func (l *listing) param(value string, oid uint32, column int) string {
	l.params, l.oids, l.asked = append(l.params, []byte(value)), append(l.oids, oid), append(l.asked, column)
	return "$" + strconv.Itoa(len(l.params))
}

// comparisons are the operators that take one value of the column's type.
var comparisons = map[table.Operator]string{table.Eq: "=", table.Gt: ">", table.Gte: ">=", table.Lt: "<", table.Lte: "<="}

// truths are what Is can ask for. IS NULL is true of a composite whose fields
// are all null; IS NOT DISTINCT FROM NULL is not, needs no operator of the type
// either, and uses the same indexes.
var truths = map[string]string{"null": "is not distinct from null", "true": "is true", "false": "is false", "unknown": "is unknown"}

func (l *listing) filter(f *table.Filter) {
	name, oid := l.name(f.Column), bottom(l.t.Columns[f.Column].Type).OID
	if f.Not {
		l.sql.WriteString("not ")
	}
	switch f.Operator {
	case table.Is:
		fmt.Fprintf(&l.sql, "(%s %s)", name, truths[f.Values[0]])
	case table.Like:
		fmt.Fprintf(&l.sql, "(%s like %s)", name, l.param(f.Values[0], oidText, f.Column))
	case table.ILike:
		fmt.Fprintf(&l.sql, "(%s ilike %s)", name, l.param(f.Values[0], oidText, f.Column))
	case table.In:
		l.in(name, oid, f)
	default:
		fmt.Fprintf(&l.sql, "(%s %s %s)", name, comparisons[f.Operator], l.param(f.Values[0], oid, f.Column))
	}
}

// in writes a list of parameters. One array would do but for columns that are
// arrays themselves; to Postgres it is the same for all others. SQL has no
// empty list.
func (l *listing) in(name string, oid uint32, f *table.Filter) {
	if len(f.Values) == 0 {
		l.sql.WriteString("(false)")
		return
	}
	for i, v := range f.Values {
		l.sql.WriteString(separator(i, "("+name+" in (", ", ") + l.param(v, oid, f.Column))
	}
	l.sql.WriteString("))")
}

// read runs the statement once. again reports that nothing was given to each,
// and that the connection is at fault, which may be an old one.
func (l *listing) read(ctx context.Context, e *Edge, each func(table.Row) bool) (again bool, err error) {
	conn, err := e.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	result := conn.Conn().PgConn().ExecParams(ctx, l.sql.String(), l.params, l.oids, nil, nil)
	row := make(table.Row, len(l.t.Columns))
	rows := 0
	for ; result.NextRow(); rows++ {
		for i, text := range result.Values() {
			row[l.columns[i]] = cellOf(text)
		}
		if !each(row) {
			cancel() // or Close would read the rest
			_, _ = result.Close()
			return false, nil
		}
	}
	_, err = result.Close()
	var pg *pgconn.PgError
	return rows == 0 && err != nil && (!errors.As(err, &pg) || endsSession(pg)), err
}

// refused tells a query that can never be answered from a server that cannot
// answer now; nil means the latter.
func (l *listing) refused(pg *pgconn.PgError) *table.FieldError {
	if c, ok := l.parameter(pg); ok && (blamesData(pg) || blamesSchema(pg)) { // regclass blames the schema for a bad value
		bad := fieldError(bottom(l.t.Columns[c].Type), pg)
		bad.Column = l.t.Columns[c].Name
		return bad
	}
	const noFunction, ambiguous, noSupport = "42883", "42725", "0A000" // LIKE under some collations is not supported
	if strings.HasPrefix(pg.Code, "22") || pg.Code == noFunction || pg.Code == ambiguous || pg.Code == noSupport {
		return &table.FieldError{Code: "invalid_value", Detail: sentence(pg.Message)}
	}
	return nil
}

// parameterLine ends what Postgres says of a parameter that its type refuses:
// "unnamed portal parameter $2", in the server's language, perhaps with its
// value.
var parameterLine = regexp.MustCompile(`\$(\d+)( = .*)?$`)

// parameter gives the column that the refused parameter is compared with. Input
// functions may say more of a value, above the last line.
func (l *listing) parameter(pg *pgconn.PgError) (column int, ok bool) {
	line := pg.Where[strings.LastIndexByte(pg.Where, '\n')+1:]
	m := parameterLine.FindStringSubmatch(line)
	if m == nil {
		return 0, false
	}
	n, err := strconv.Atoi(m[1])
	if err != nil || n < 1 || n > len(l.asked) || l.asked[n-1] < 0 {
		return 0, false
	}
	return l.asked[n-1], true
}
