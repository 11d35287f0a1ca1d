package table

// What the edge asks of Postgres, because only Postgres can tell.

// JudgeItem is a JSON value that is to become canonical text.
type JudgeItem struct {
	Type *Type
	JSON []byte // one value, not null
}

// JudgeResult is the verdict on an item: its text, NULL, or what is wrong.
type JudgeResult struct {
	Text []byte
	Null bool
	Err  *FieldError
}

// DefaultItem is a default expression that is to be evaluated N times.
type DefaultItem struct {
	Type *Type
	SQL  string
	N    int
}

// DefaultResult is N cells, Null or Set, or why there are none.
type DefaultResult struct {
	Cells []Cell
	Err   *FieldError
}
