package api

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// TestReasonsReadWell: with and without a constraint's name they are sentences, and
// a foreign key says which end of it the row is, where the operation tells.
func TestReasonsReadWell(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		state, constraint string
		op                table.Op
		want              string
	}{
		{"23514", "t_a_check", table.OpInsert, "The row breaks the constraint t_a_check."},
		{"23514", "", table.OpInsert, "The row breaks a constraint."},
		{"23505", "t_u_key", table.OpPut, "A row with the same value is there already, and the constraint t_u_key allows only one."},
		{"23503", "f", table.OpInsert, "It refers to a row that is not there (the constraint f)."},
		{"23503", "f", table.OpIgnore, "It refers to a row that is not there (the constraint f)."},
		{"23503", "f", table.OpDelete, "Others refer to the row that it removes (the constraint f)."},
		{"23503", "f", table.OpPatch, "It refers to a row that is not there, or others refer to the value that it changes (the constraint f)."},
	} {
		require.Equal(t, x.want, reasonOf(&buffer.Letter{SQLState: x.state, Constraint: x.constraint, Op: x.op}).why)
	}
}
