package table

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// KeyCells reads what AppendKey wrote.
func TestKeyCells(t *testing.T) {
	t.Parallel()
	text := &Type{OID: 25, Name: "text", Kind: KindText, Mod: -1}
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.StringMatching(`[a,%2C5\n:]*`), 1, 3).Draw(t, "parts")
		tbl, row := &Table{}, Row{}
		for i, p := range parts {
			tbl.Columns = append(tbl.Columns, Column{Type: text})
			tbl.Key = append(tbl.Key, i)
			row = append(row, Cell{State: Set, Text: []byte(p)})
		}
		cells, ok := tbl.KeyCells(string(tbl.AppendKey(nil, row)))
		require.True(t, ok)
		require.Equal(t, row, Row(cells))
	})
}
