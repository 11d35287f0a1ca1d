package table

// Query asks Postgres for rows of one table. Columns are indexes into
// Table.Columns.
type Query struct {
	Select        []int    // the columns that are wanted; nil means all
	Where         []Filter // all of them must hold
	Order         []Order  // the first one counts most
	Limit, Offset int64
}

// Filter is what must be true of one column. As in SQL, a NULL passes neither
// a comparison nor its negation; only Is tells it apart.
type Filter struct {
	Column   int
	Not      bool // it must be false instead
	Operator Operator
	Values   []string // as a client wrote them: any number for In, else one
}

// Operator of a Filter, by its name in PostgREST.
type Operator string

// The operators. "Not equal" is Eq with Not.
const (
	Eq    Operator = "eq"
	Gt    Operator = "gt"
	Gte   Operator = "gte"
	Lt    Operator = "lt"
	Lte   Operator = "lte"
	In    Operator = "in"
	Is    Operator = "is"    // null, true, false or unknown
	Like  Operator = "like"  // a pattern of SQL: % and _, escaped by a backslash
	ILike Operator = "ilike" // the same, in small or capital letters
)

// Order is one column that rows are sorted by.
type Order struct {
	Column     int
	Desc       bool
	NullsFirst bool
}
