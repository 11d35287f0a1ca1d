package client

import (
	"strconv"
	"strings"
)

// rejections is why each of n rows was not accepted, nil for one that was. Of
// those that e does not list, rejected tells how many there are.
func rejections(n, rejected int, e *Error) []*Error {
	rows := make([]*Error, n)
	listed, after := 0, 0 // after the last that is listed there may be more
	if e.Code == ErrSomeRejected || e.Code == ErrInvalidRows {
		for _, item := range e.Errors {
			i := item.Index
			if i < 0 || i >= n {
				continue
			}
			if rows[i] == nil {
				rows[i] = e.ofRow(item)
				listed, after = listed+1, max(after, i+1)
			}
			rows[i].Errors = append(rows[i].Errors, item.inRow())
		}
	}
	rest := *e
	rest.Errors = nil
	switch {
	case e.Code != ErrSomeRejected:
		after = 0 // none was accepted
	case listed == rejected:
		return rows
	default: // more than one error a row, so that the list was cut
		rest.Applied = AppliedUnknown
		rest.Detail = "More rows were rejected than the answer lists, and this may be one of them."
	}
	for i := after; i < n; i++ {
		if rows[i] == nil {
			rows[i] = &rest
		}
	}
	return rows
}

// ofRow is the error of the row with this one among its errors.
func (e *Error) ofRow(first ItemError) *Error {
	row := *e
	row.Code, row.Detail, row.Errors, row.Applied = first.Code, first.Detail, nil, AppliedNo
	if first.Code == ErrOutcomeUnknown {
		row.Applied = AppliedUnknown
	}
	return &row
}

// inRow is the error as it would be if the row had been sent alone.
func (i ItemError) inRow() ItemError {
	i.Pointer = strings.TrimPrefix(i.Pointer, "/"+strconv.Itoa(i.Index))
	i.Index = 0
	return i
}
