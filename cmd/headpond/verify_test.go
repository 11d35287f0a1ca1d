package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// A suspect counts only when it is there each time that it is looked at.
func TestSuspectsAreLookedAtAgain(t *testing.T) {
	t.Parallel()
	v := &verifier{report: verified{Counts: map[string]int64{}}}
	looks := map[string]int{}
	for key, gone := range map[string]int{"stays": 1000, "moves": 0, "moves later": 2} {
		require.NoError(t, v.suspect(t.Context(), difference{Key: key, Severity: buffer.CheckError}, func(context.Context) (bool, error) {
			looks[key]++
			return looks[key] <= gone, nil
		}))
	}
	require.NoError(t, v.judge(t.Context()))
	require.Len(t, v.report.Found, 1)
	require.Equal(t, "stays", v.report.Found[0].Key)
	require.Equal(t, map[string]int{"stays": len(looksAgain), "moves": 1, "moves later": 3}, looks)
	require.NoError(t, v.judge(t.Context()))
	require.EqualValues(t, 1, v.report.Differences, "each is judged once")
}

// What the flush will do to a row does not depend on how far it has come: the
// operations that Postgres has already are not done again.
func TestWaitingRowsWhereverTheWatermarkIs(t *testing.T) {
	t.Parallel()
	number := &table.Type{OID: 23, Name: "integer", Bare: "integer", Kind: table.KindInt4, Mod: -1}
	text := &table.Type{OID: 25, Name: "text", Bare: "text", Kind: table.KindText, Mod: -1}
	tbl := (&table.Table{Name: "x", Key: []int{0}, Columns: []table.Column{
		{Name: "id", Number: 1, Type: number}, {Name: "n", Number: 2, Type: number}, {Name: "body", Number: 3, Type: text},
	}}).Seal()
	row := func(n, body string) table.Row {
		return table.Row{{State: table.Set, Text: []byte("1")}, {State: table.Set, Text: []byte(n)}, {State: table.Set, Text: []byte(body)}}
	}
	at := func(seq uint64) table.ID { return table.ID{Epoch: 1, Seq: seq} }
	add := []table.Change{{Column: 1, Add: []byte("2")}}
	// Rows after each operation, and what is done.
	ops := []waitingOp{
		{id: at(11), op: table.OpPut, row: row("5", "a")},
		{id: at(12), op: table.OpIncrement, row: row("7", "a"), changes: add},
		{id: at(13), op: table.OpPatch, row: row("7", "b"), changes: []table.Change{{Column: 2}}},
		{id: at(14), op: table.OpIncrement, row: row("9", "b"), changes: add},
	}
	judge := func(ops []waitingOp, stored table.Row, wm uint64) *difference {
		newest := &ops[len(ops)-1]
		found := &buffer.Found{Source: buffer.Dirty, ID: newest.id, Op: newest.op, Columns: tbl.Header(), Line: tbl.AppendLine(nil, newest.row)}
		return judgeWaiting(buffer.Place{Table: "x"}, tbl, "1", ops, found, stored, at(wm))
	}
	require.Nil(t, judge(ops, nil, 10))
	require.Nil(t, judge(ops, row("77", "zz"), 10), "a put replaces what is there")
	for i, o := range ops {
		require.Nil(t, judge(ops, o.row, 11+uint64(i)), "committed up to %s", o.id)
	}
	require.NotNil(t, judge(ops, row("6", "a"), 11), "somebody else has changed n")
	require.Nil(t, judge(ops, row("7", "other"), 12), "the patch sets it")
	require.NotNil(t, judge(ops, row("7", "other"), 13))
	require.Nil(t, judge(ops, nil, 14), "all is committed")

	gone := append(ops[:3:3], waitingOp{id: at(14), op: table.OpDelete, row: row("7", "b")})
	require.Nil(t, judge(gone, row("5", "a"), 11))
	insert := []waitingOp{{id: at(11), op: table.OpInsert, row: row("1", "a")}}
	require.Nil(t, judge(insert, nil, 10))
	require.Nil(t, judge(insert, row("8", "z"), 10), "it will be a dead letter, and only the flush can tell")

	older := &buffer.Found{Source: buffer.Dirty, ID: at(13), Op: table.OpPatch, Columns: tbl.Header(), Line: tbl.AppendLine(nil, ops[2].row)}
	require.NotNil(t, judgeWaiting(buffer.Place{Table: "x"}, tbl, "1", ops, older, nil, at(10)), "readers are given an older row")
	older.ID = at(99)
	require.Nil(t, judgeWaiting(buffer.Place{Table: "x"}, tbl, "1", ops, older, nil, at(10)), "a newer one has come")
	require.NotNil(t, judgeWaiting(buffer.Place{Table: "x"}, tbl, "1", ops, &buffer.Found{Source: buffer.Clean}, nil, at(10)))
}
