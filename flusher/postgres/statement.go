package postgres

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// Rows of a merge travel as arrays of text, one for each column, and are cast
// to the columns' types one by one: to the type beneath domains and without its
// modifier, so that nothing is cut off and the assignment checks the rest.
// Against a temporary table filled by COPY, this needs no privilege and no state
// in the session (pgbouncer), sends a patch without the rest of its row, and
// tells the planner how many rows there are. BenchmarkMerge compares the two.

// statement is SQL over arrays. Its parameters are in binary form.
type statement struct {
	sql    string
	params [][]byte
}

const binaryFormat = 1

// arrays collects the parameters of a statement.
type arrays struct {
	nets   []*flusher.Net
	params [][]byte
}

// add gives one more array, with a cell of each operation, and returns the name
// of its elements in SQL.
func (a *arrays) add(cell func(i int) table.Cell) string {
	a.params = append(a.params, textArray(len(a.nets), cell))
	return fmt.Sprintf("u.c%d", len(a.params))
}

// column gives the operations' values of a column of their list, and returns
// them cast.
func (a *arrays) column(t *table.Table, at int) string {
	return a.add(func(i int) table.Cell { return a.nets[i].Row[at] }) + castOf(t, a.nets[0].Columns.Names[at])
}

// key is column, for those of the primary key.
func (a *arrays) key(t *table.Table) (out []string) {
	for _, at := range a.nets[0].Columns.Key() {
		out = append(out, a.column(t, at))
	}
	return out
}

// from is the arrays as the relation u; o numbers the operations from 1.
func (a *arrays) from() string {
	params, names := make([]string, len(a.params)), make([]string, len(a.params))
	for i := range a.params {
		params[i], names[i] = fmt.Sprintf("$%d::text[]", i+1), fmt.Sprintf("c%d", i+1)
	}
	return "unnest(" + strings.Join(params, ", ") + ") with ordinality as u (" + strings.Join(names, ", ") + ", o)"
}

// castOf a column by its name. Frames are adapted to the table, so it is there.
func castOf(t *table.Table, name string) string {
	i, _ := t.Column(name)
	return "::" + bottom(t.Columns[i].Type).Bare
}

// textArray is a text[] in the binary form of array_recv.
func textArray(n int, cell func(i int) table.Cell) []byte {
	const dimensions, hasNull, lowerBound = 1, 1, 1
	out := make([]byte, 0, 20+16*n)
	for _, v := range []uint32{dimensions, hasNull, oidText, uint32(n), lowerBound} { //nolint:gosec // a batch is small
		out = binary.BigEndian.AppendUint32(out, v)
	}
	for i := range n {
		c := cell(i)
		if c.State != table.Set {
			out = binary.BigEndian.AppendUint32(out, ^uint32(0))
			continue
		}
		out = binary.BigEndian.AppendUint32(out, uint32(len(c.Text))) //nolint:gosec // a batch is small
		out = append(out, c.Text...)
	}
	return out
}

// conflict is what an INSERT does with a key that exists.
type conflict int

const (
	refuseConflict conflict = iota
	ignoreConflict
	replaceConflict
)

// insertStatement adds rows in key order, so that writers of the same keys wait
// for each other and do not deadlock.
func insertStatement(t *table.Table, nets []*flusher.Net, c conflict) statement {
	a := arrays{nets: nets}
	values := make([]string, len(nets[0].Columns.Names))
	for at := range values {
		values[at] = a.column(t, at)
	}
	var key []string
	for _, at := range nets[0].Columns.Key() {
		key = append(key, values[at])
	}
	sql := "insert into " + t.SQLName + " (" + quoteAll(nets[0].Columns.Names) + ") overriding system value select " +
		strings.Join(values, ", ") + " from " + a.from() + " order by " + strings.Join(key, ", ") + onConflict(t, c)
	return statement{sql, a.params}
}

// onConflict names the key, so that another unique constraint is an error. What
// a put does not give takes its default, which is what EXCLUDED holds then.
func onConflict(t *table.Table, c conflict) string {
	if c == refuseConflict {
		return ""
	}
	var key, sets []string
	for _, k := range t.Key {
		key = append(key, t.Columns[k].Name)
	}
	for _, i := range t.Stored() {
		if name := quote(t.Columns[i].Name); c == replaceConflict && !t.IsKey(i) && !t.Columns[i].IdentityAlways {
			sets = append(sets, name+" = excluded."+name)
		}
	}
	if len(sets) == 0 {
		return " on conflict (" + quoteAll(key) + ") do nothing"
	}
	return " on conflict (" + quoteAll(key) + ") do update set " + strings.Join(sets, ", ")
}

// only leaves out tables that inherit from this one: their rows are not under
// its primary key.
func only(t *table.Table) string {
	if t.Partitioned {
		return t.SQLName
	}
	return "only " + t.SQLName
}

// keyEquals joins t with the operations, by the operators of the key's index.
func keyEquals(t *table.Table, key []string) string {
	conditions := make([]string, len(key))
	for i, k := range t.Key {
		conditions[i] = "t." + quote(t.Columns[k].Name) + " " + t.KeyEquals[i] + " " + key[i]
	}
	return strings.Join(conditions, " and ")
}

// holdStatement locks the rows in key order, so that writers of the same keys
// wait for each other and do not deadlock. It gives the numbers of the
// operations whose keys are not there.
func holdStatement(t *table.Table, nets []*flusher.Net, strength string) statement {
	a := arrays{nets: nets}
	key := a.key(t)
	sql := fmt.Sprintf(`
		with u as (select * from %s),
			held as (select u.o from %s t join u on %s order by %s for %s of t)
		select u.o::text from u where not exists (select from held where held.o = u.o)`,
		a.from(), only(t), keyEquals(t, key), strings.Join(key, ", "), strength)
	return statement{sql, a.params}
}

func deleteStatement(t *table.Table, nets []*flusher.Net) statement {
	a := arrays{nets: nets}
	key := a.key(t)
	return statement{"delete from " + only(t) + " t using " + a.from() + " where " + keyEquals(t, key), a.params}
}

// What a patch does to a column, a letter of its mask.
const (
	keeps = '-'
	sets  = 's'
	adds  = 'a'
)

// changed is one column that some of the operations change.
type changed struct {
	name  string
	cells []table.Cell // of each operation: the value, or what is added
	added bool         // by some operation
}

// updateStatement changes the columns that are changed by any of the
// operations, each operation its own. It reports false when there are none.
func updateStatement(t *table.Table, nets []*flusher.Net) (s statement, some bool) {
	columns, masks := changesOf(nets)
	if len(columns) == 0 {
		return statement{}, false
	}
	a := arrays{nets: nets}
	key := a.key(t)
	mask := a.add(func(i int) table.Cell { return table.Cell{State: table.Set, Text: masks[i]} })
	assign := make([]string, len(columns))
	for slot, c := range columns {
		cast, own := castOf(t, c.name), "t."+quote(c.name)
		value := a.add(func(i int) table.Cell { return c.cells[i] })
		sum := ""
		if c.added { // NULL counts as 0, as it did when the row was accepted
			sum = fmt.Sprintf(" when '%c' then (coalesce(%s::numeric, 0) + %s::numeric)%s", adds, own, value, cast)
		}
		assign[slot] = fmt.Sprintf("%s = case substr(%s, %d, 1) when '%c' then %s%s%s else %s end",
			quote(c.name), mask, slot+1, sets, value, cast, sum, own)
	}
	sql := "update " + only(t) + " t set " + strings.Join(assign, ", ") + " from " + a.from() + " where " + keyEquals(t, key)
	return statement{sql, a.params}, true
}

// changesOf collects the changed columns, and a mask for each operation.
func changesOf(nets []*flusher.Net) (columns []*changed, masks [][]byte) {
	slots := make(map[int]int) // position in the list → in columns
	for i, n := range nets {
		for _, ch := range n.Changes {
			slot, known := slots[ch.Column]
			if !known {
				slot = len(columns)
				slots[ch.Column] = slot
				columns = append(columns, &changed{name: n.Columns.Names[ch.Column], cells: make([]table.Cell, len(nets))})
			}
			c := columns[slot]
			if c.cells[i] = n.Row[ch.Column]; ch.Add != nil {
				c.cells[i] = table.Cell{State: table.Set, Text: ch.Add}
				c.added = true
			}
		}
	}
	masks = make([][]byte, len(nets))
	for i, n := range nets {
		masks[i] = []byte(strings.Repeat(string(keeps), len(columns)))
		for _, ch := range n.Changes {
			masks[i][slots[ch.Column]] = sets
			if ch.Add != nil {
				masks[i][slots[ch.Column]] = adds
			}
		}
	}
	return columns, masks
}
