package postgres

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// TestNamedRows: what details say leads to the row, whatever the language, and to
// no row where it cannot be read.
func TestNamedRows(t *testing.T) {
	t.Parallel()
	columns := &flusher.Columns{Names: []string{"id", "parent", "w"}}
	g := &group{b: &batch{table: &table.Table{Columns: []table.Column{{Name: "id"}, {Name: "parent"}, {Name: "w"}}, Key: []int{0}}}}
	for i := range 100 {
		row := table.Row{{State: table.Set, Text: fmt.Append(nil, i)}, {State: table.Set, Text: fmt.Append(nil, 1000+i)}, {State: table.Null}}
		g.nets = append(g.nets, &flusher.Net{Columns: columns, Row: row})
	}
	for detail, want := range map[string]int{
		`Key (parent)=(1042) is not present in table "parents".`: 42,
		`Key (id, parent)=(7, 1007) already exists.`:             7,
		`Failing row contains (13, 1013, null).`:                 13,
		`Fehlgeschlagene Zeile enthält (99, 1099, null).`:        99,
		`Key (id)=(100) already exists.`:                         -1,
		`Key (lower(w))=(x) already exists.`:                     -1,
		`Failing row contains (x`:                                -1,
		`Failing row contains ().`:                               -1,
		``:                                                       -1,
	} {
		n, ok := g.named(&pgconn.PgError{Detail: detail}, 0, 100)
		require.Equal(t, want >= 0, ok, detail)
		if ok {
			require.Equal(t, want, n, detail)
			_, ok = g.named(&pgconn.PgError{Detail: detail}, 0, n)
			require.False(t, ok, "not among those")
		}
	}
}

// TestNamedWrongly: a trigger may say what it likes, and only the row that is bad
// becomes a dead letter.
func TestNamedWrongly(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, intTable+`; create function judge() returns trigger language plpgsql as $$ begin
		if new.v = 13 then raise exception 'no' using errcode = '23514', detail = 'Failing row contains (5, 5, x).'; end if;
		return new; end $$; create trigger judge before insert on t for each row execute function judge()`, 1)
	r, err := b.flush(func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
		f := &table.Frame{Columns: []byte("id\tv\tw"), Last: table.ID{Epoch: 1, Seq: 99}}
		for i := range 99 {
			f.Add(table.OpPut, 0, fmt.Appendf(nil, "%d\t%d\tx\n", i, i))
		}
		return []flusher.Part{{Claim: claims[0], Frames: []*table.Frame{f}}}, nil
	}, 0)
	require.NoError(t, err)
	require.Equal(t, 98, b.count(`select count(*) from t`))
	dead := r.Dead[r.Parts[0].Place]
	require.Len(t, dead, 1)
	require.Equal(t, "13", dead[0].Key)
}
