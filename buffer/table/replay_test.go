package table

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReplaying(t *testing.T) {
	tbl := (&Table{OID: 16384, Columns: []Column{{Name: "a/!b", Number: 1, Type: &Type{Kind: KindInt4, OID: 23}}}}).Seal()
	letter := Letter{Partition: 3, ID: ID{Epoch: 1, Seq: 871}}
	tagged := Replaying(tbl.Header(), letter)
	require.Equal(t, "16384!3.1.871/1.23:a/!b", string(tagged))
	require.Equal(t, []string{"a/!b"}, HeaderNames(tagged))
	places, retyped := tbl.Places(tagged)
	require.Equal(t, []int{0}, places)
	require.Empty(t, retyped)
	got, columns, is := CutReplay(tagged)
	require.True(t, is)
	require.Equal(t, letter, got)
	require.Equal(t, string(tbl.Header()), string(columns))
	for _, header := range []string{string(tbl.Header()), "a", "", "1!x/1.23:a", "1!1.2/1.23:a"} {
		_, columns, is := CutReplay([]byte(header))
		require.False(t, is, header)
		require.Equal(t, header, string(columns))
	}
	again, ok := ParseLetter(letter.String())
	require.True(t, ok)
	require.Equal(t, letter, again)
}

// TestBase: what a change was computed on is told, also after ALTER TABLE.
func TestBase(t *testing.T) {
	column := func(name string, number int) Column {
		return Column{Name: name, Number: number, Type: &Type{Kind: KindInt4, OID: 23}}
	}
	before := (&Table{OID: 9, Columns: []Column{column("id", 1), column("gone", 2), column("n", 3)}, Key: []int{0}}).Seal()
	now := (&Table{OID: 9, Columns: []Column{column("id", 1), column("n", 3)}, Key: []int{0}}).Seal()
	self := ID{Epoch: 2, Seq: 10}
	for base, want := range map[string]ID{
		Base(ID{}): {Epoch: 2, Seq: 9}, Base(ID{Epoch: 1, Seq: 4}): {Epoch: 1, Seq: 4}, "": {}, ";x": {},
	} {
		line := append(append(AppendChanges([]byte("1\t2\t3"), []Change{{Column: 2, Add: []byte("1")}}), base...), '\n')
		got, _ := BaseOf(line, self)
		require.Equal(t, want, got, "%q", base)
		f := &Frame{Columns: before.Header()}
		f.Add(OpIncrement, 0, line)
		f.Last = self
		adapted, _, err := now.Adapt(f)
		require.NoError(t, err)
		got, _ = BaseOf(adapted.Line(0), self)
		require.Equal(t, want, got, "%q", adapted.Line(0))
		changes, err := ParseChanges(ParseLine(adapted.Line(0))[2].Text)
		require.NoError(t, err)
		require.Equal(t, []Change{{Column: 1, Add: []byte("1")}}, changes)
	}
}
