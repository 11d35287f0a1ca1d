package table

// CellState says what a cell holds.
type CellState uint8

// The states of a cell.
const (
	Missing CellState = iota // the request did not name the column
	Null
	Set   // Text is canonical
	Judge // Text is the raw JSON value; Postgres must make it canonical
)

// Cell is one column's value in one row.
type Cell struct {
	State CellState
	Text  []byte
}

// Row is one row on its way in or out: a cell for each of the table's
// columns, in table order.
type Row []Cell

// FieldError is what is wrong with one column of one row.
type FieldError struct {
	Column string // column name, empty when the row as a whole is meant
	Code   string // a stable code of http-api.md, such as "type_mismatch"
	Detail string // a full sentence for a person; never holds more than a short piece of the value
}

func (e *FieldError) Error() string { return e.Detail }
