package table

import "strings"

var keyUnescape = strings.NewReplacer("%2C", ",", "%25", "%")

// KeyCells gives the cells of the key columns, in key order, of a key text that
// AppendKey made. ok is false for a text of another number of columns. Values
// are in the form that all values have that are equal to them: to be compared by
// the operators of the key's index.
func (t *Table) KeyCells(key string) (cells []Cell, ok bool) {
	parts := strings.Split(key, ",")
	if len(parts) != len(t.Key) {
		return nil, false
	}
	cells = make([]Cell, len(parts))
	for i, part := range parts {
		cells[i] = Cell{State: Set, Text: []byte(keyUnescape.Replace(part))}
	}
	return cells, true
}
