package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// Two shapes of a table: the identity column that nobody may set is in the key,
// or beside it, where a put must leave it alone.
var shapes = []shape{
	{
		ddl: `create table t (
			tenant int, id bigint generated always as identity, n int, big bigint, amount numeric(12,2), free numeric, name text, ratio float8,
			twice numeric generated always as (amount * 2) stored, poison text check (poison <> 'bad'), primary key (tenant, id))`,
		columns: "tenant,id,n,big,amount,free,name,ratio,poison",
	},
	{
		ddl: `create table t (
			id text, tenant smallint, serial int generated always as identity, n smallint, big bigint, amount numeric(12,2), free numeric,
			name varchar(20), ratio real, twice numeric generated always as (amount * 2) stored,
			poison text check (poison <> 'bad'), primary key (tenant, id))`,
		columns: "id,tenant,serial,n,big,amount,free,name,ratio,poison",
	},
}

type shape struct{ ddl, columns string }

var countables = map[string]bool{"n": true, "big": true, "amount": true, "free": true}

// cell nil is NULL.
type modelRow map[string]*string

// logged is an operation as it is in the log.
type logged struct {
	op      table.Op
	columns []string
	row     modelRow
	changes []table.Change // positions in columns
	part    int
}

func (l *logged) line() []byte {
	var out []byte
	for i, c := range l.columns {
		if i > 0 {
			out = append(out, '\t')
		}
		if v := l.row[c]; v != nil && (l.op != table.OpDelete || c == "id" || c == "tenant") {
			out = table.AppendEscaped(out, []byte(*v))
		} else {
			out = append(out, '\\', 'N')
		}
	}
	if l.op.Changes() {
		out = table.AppendChanges(out, l.changes)
	}
	return append(out, '\n')
}

// writer makes operations as the API does: from what it believes a key holds.
type writer struct {
	shape  shape
	belief map[string]modelRow
	mixed  bool // column lists differ
	blind  bool // looks nothing up: a table with cache: none
	serial int
}

const partitions = 3

func (w *writer) operation(r *rapid.T) logged {
	tenant, id := strconv.Itoa(rapid.IntRange(1, 2).Draw(r, "tenant")), strconv.Itoa(rapid.IntRange(1, 3).Draw(r, "id"))
	key := tenant + "," + id
	number, _ := strconv.Atoi(tenant + id)
	l := logged{columns: strings.Split(w.shape.columns, ","), part: number % partitions}
	if w.mixed && rapid.Bool().Draw(r, "short") {
		l.columns = strings.Split(strings.ReplaceAll(w.shape.columns, ",name", ""), ",")
	}
	have := w.belief[key]
	kinds := []table.Op{table.OpPut, table.OpInsert, table.OpIgnore}
	switch {
	case w.blind:
	case have == nil: // what merges with a row, or creates one to add to
		kinds = append(kinds, table.OpPatch, table.OpIncrement)
	default:
		kinds = []table.Op{table.OpPut, table.OpPatch, table.OpPatch, table.OpIncrement, table.OpIncrement, table.OpDelete}
	}
	l.op = rapid.SampledFrom(kinds).Draw(r, "op")
	l.row = modelRow{"tenant": &tenant, "id": &id}
	if l.op == table.OpDelete {
		delete(w.belief, key)
		return l
	}
	w.serial++
	for _, c := range l.columns {
		if c != "tenant" && c != "id" && (have == nil || !l.op.Changes()) {
			l.row[c] = w.value(r, c)
		}
	}
	if l.op.Changes() {
		for c, v := range have {
			l.row[c] = v
		}
		w.change(r, &l)
	}
	w.belief[key] = l.row
	return l
}

func (w *writer) change(r *rapid.T, l *logged) {
	for i, c := range l.columns {
		if c == "tenant" || c == "id" || c == "serial" || c == "poison" || rapid.IntRange(0, 2).Draw(r, "changes "+c) > 0 {
			continue
		}
		if l.op == table.OpPatch || !countables[c] {
			if l.op == table.OpPatch || c == "ratio" {
				l.row[c] = w.value(r, c)
				l.changes = append(l.changes, table.Change{Column: i})
			}
			continue
		}
		add := strconv.Itoa(rapid.IntRange(-9, 9).Draw(r, "add"))
		if c == "amount" || c == "free" {
			add += fmt.Sprintf(".%02d", rapid.IntRange(0, 99).Draw(r, "cents"))
		}
		base := "0"
		if l.row[c] != nil {
			base = *l.row[c]
		}
		sum := string(table.AddDecimal([]byte(base), []byte(add)))
		l.row[c] = &sum
		l.changes = append(l.changes, table.Change{Column: i, Add: []byte(add)})
	}
}

func (w *writer) value(r *rapid.T, column string) *string {
	if column == "serial" {
		s := strconv.Itoa(w.serial)
		return &s
	}
	if rapid.IntRange(0, 5).Draw(r, column+" null") == 0 {
		return nil
	}
	s := strconv.Itoa(rapid.IntRange(-50, 50).Draw(r, column))
	switch column {
	case "amount":
		s += ".25"
	case "free":
		s += rapid.SampledFrom([]string{"", ".5", ".125"}).Draw(r, "fraction")
	case "name":
		s = rapid.SampledFrom([]string{"", "a", "tab\there", `back\slash`, "\n", `\N`, `"q",{}`}).Draw(r, "name")
	case "ratio":
		s += ".5"
	case "poison":
		s = rapid.SampledFrom([]string{"ok", "ok", "ok", "bad"}).Draw(r, "poison")
	}
	return &s
}

// alone applies one operation to the table r in SQL of its own. It gives the
// SQLSTATE if Postgres refused it.
func alone(t require.TestingT, conn *pgx.Conn, s shape, l *logged) (refused string) {
	var sql strings.Builder
	var params [][]byte
	param := func(v *string) string {
		if v == nil {
			return "null"
		}
		params = append(params, []byte(*v))
		return "$" + strconv.Itoa(len(params))
	}
	run := func() (int64, string) {
		tag := conn.PgConn().ExecParams(context.Background(), sql.String(), params, nil, nil, nil).Read()
		if c, pg := classify(tag.Err); tag.Err != nil {
			require.Equal(t, rowError, c, "%s: %v", sql.String(), tag.Err)
			return 0, pg.Code
		}
		return tag.CommandTag.RowsAffected(), ""
	}
	where := func() string { return " where tenant = " + param(l.row["tenant"]) + " and id = " + param(l.row["id"]) }
	if l.op == table.OpDelete {
		sql.WriteString("delete from r" + where())
		_, refused = run()
		return refused
	}
	if l.op.Changes() {
		sql.WriteString("update r set tenant = tenant")
		for _, ch := range l.changes {
			c := l.columns[ch.Column]
			if ch.Add != nil {
				add := string(ch.Add)
				fmt.Fprintf(&sql, ", %s = coalesce(%s, 0) + %s", c, c, param(&add))
			} else {
				fmt.Fprintf(&sql, ", %s = %s", c, param(l.row[c]))
			}
		}
		sql.WriteString(where())
		if rows, refused := run(); rows > 0 || refused != "" {
			return refused
		}
		sql.Reset()
		params = nil
	}
	var values, sets []string
	for _, c := range l.columns {
		values = append(values, param(l.row[c]))
	}
	for _, c := range strings.Split(s.columns, ",") {
		if c != "tenant" && c != "id" && c != "serial" {
			sets = append(sets, c+" = excluded."+c)
		}
	}
	sql.WriteString("insert into r (" + strings.Join(l.columns, ", ") + ") overriding system value values (" + strings.Join(values, ", ") + ")")
	switch l.op {
	case table.OpIgnore:
		sql.WriteString(" on conflict do nothing")
	case table.OpPut:
		sql.WriteString(" on conflict (tenant, id) do update set " + strings.Join(sets, ", "))
	}
	_, refused = run()
	return refused
}

// A batch, however it is cut, leaves what its operations leave one by one.
func TestMergeEqualsOneByOne(t *testing.T) {
	t.Parallel()
	for i, s := range shapes {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			b := setupFlush(t, s.ddl+"; create table r (like t including all)", partitions)
			known := loadTables(t, b.pool)["t"]
			b.Store = NewStore(b.pool, func(string) *table.Table { return known })
			conn, err := b.pool.Acquire(t.Context())
			require.NoError(t, err)
			defer conn.Release()
			rapid.Check(t, func(r *rapid.T) { mergeOnce(r, b, conn.Conn(), s) })
		})
	}
}

func mergeOnce(r *rapid.T, b *flushBundle, conn *pgx.Conn, s shape) {
	_, err := conn.PgConn().Exec(context.Background(), "truncate t, r, headpond.dead_letters; update headpond.watermarks set seq = 0, committed = 0, coalesced = 0, dead = 0").ReadAll()
	require.NoError(r, err)
	w := &writer{shape: s, belief: map[string]modelRow{}, mixed: rapid.Bool().Draw(r, "mixed"), blind: rapid.IntRange(0, 3).Draw(r, "blind") == 0}
	var dead []*death
	seqs := make([]uint64, partitions)
	for n := range rapid.IntRange(1, 3).Draw(r, "batches") {
		if rapid.Bool().Draw(r, "outsider") {
			outside(r, conn, s, w.mixed)
		}
		batch := make([][]logged, partitions)
		for range rapid.IntRange(1, 25).Draw(r, "operations") {
			l := w.operation(r)
			seqs[l.part]++
			batch[l.part] = append(batch[l.part], l)
			key := *l.row["tenant"] + "," + *l.row["id"]
			r.Logf("%d-%d %c %q", l.part, seqs[l.part], l.op, l.line())
			for _, d := range dead {
				d.excused = d.excused || d.batch == n && d.key == key && (l.op == table.OpDelete || l.op == table.OpPut && d.code != "23505")
			}
			if code := alone(r, conn, s, &l); code != "" {
				dead = append(dead, &death{part: l.part, seq: seqs[l.part], key: key, batch: n, code: code, excused: l.op == table.OpIgnore})
			}
		}
		_, err := b.flush(func(_ context.Context, claims []flusher.Claim) (out []flusher.Part, err error) {
			for _, c := range claims {
				out = append(out, flusher.Part{Claim: c, Frames: cut(r, c.Watermark, batch[c.Place.Partition])})
			}
			return out, nil
		}, 0, 1, 2)
		require.NoError(r, err)
		require.Equal(r, dump(r, conn, "r"), dump(r, conn, "t"))
	}
	books(r, b, dead, seqs)
}

// outside is what others do to the table.
func outside(r *rapid.T, conn *pgx.Conn, s shape, mixed bool) {
	doing := []string{
		"insert into %[1]s (tenant, id, n, amount, name) overriding system value values (1, 1, 7, 7, 'theirs'), (2, 2, null, null, null) on conflict do nothing",
		"update %[1]s set n = 5, amount = null, free = 1.50 where id = 2::" + map[bool]string{true: "text", false: "int"}[strings.HasPrefix(s.columns, "id")],
	}
	if !mixed {
		doing = append(doing, "delete from %[1]s where tenant = 1")
	}
	sql := rapid.SampledFrom(doing).Draw(r, "outside")
	if strings.Contains(s.columns, "serial") {
		sql = strings.Replace(strings.Replace(sql, "name)", "name, serial)", 1), "'theirs')", "'theirs', -1)", 1)
		sql = strings.Replace(sql, "null, null, null)", "null, null, null, -2)", 1)
	}
	for _, name := range []string{"t", "r"} {
		_, err := conn.Exec(context.Background(), fmt.Sprintf(sql, name), pgx.QueryExecModeSimpleProtocol)
		require.NoError(r, err)
	}
}

// cut makes frames: a new one where the column list changes, and now and then.
func cut(r *rapid.T, after table.ID, all []logged) (frames []*table.Frame) {
	var f *table.Frame
	for i := range all {
		header := strings.Join(all[i].columns, "\t")
		if f == nil || string(f.Columns) != header || rapid.IntRange(0, 4).Draw(r, "cut") == 0 {
			f = &table.Frame{Columns: []byte(header)}
			frames = append(frames, f)
		}
		f.Add(all[i].op, time.Now().UnixMicro(), all[i].line())
		f.Last = table.ID{Epoch: 1, Seq: after.Seq + uint64(i) + 1}
	}
	return frames
}

func dump(t require.TestingT, conn *pgx.Conn, name string) string {
	rows := conn.PgConn().ExecParams(context.Background(), "select coalesce(string_agg(x::text, E'\n' order by tenant, id), '') from "+name+" x", nil, nil, nil, nil).Read()
	require.NoError(t, rows.Err)
	return string(rows.Rows[0][0])
}

// death of an operation that was applied alone. It is excused when others of its
// batch made it meaningless, and its own row was never written: a later put or
// delete, or for an ignore an earlier one that left a row.
type death struct {
	part    int
	seq     uint64
	key     string
	batch   int
	code    string
	excused bool
}

// books: every operation is counted once, and those die that die alone.
func books(r *rapid.T, b *flushBundle, dead []*death, seqs []uint64) {
	all, err := b.wms.Progress(context.Background())
	require.NoError(r, err)
	for _, p := range all {
		require.EqualValues(r, seqs[p.Place.Partition], p.Watermark.Seq)
		require.EqualValues(r, p.Watermark.Seq, p.Committed+p.Coalesced+p.Dead, "%+v", p)
		letters, err := b.wms.Dead(context.Background(), p.Place, 0, p.Watermark.Seq)
		require.NoError(r, err)
		require.Len(r, letters, int(p.Dead))
		got := map[uint64]string{}
		for _, d := range letters {
			got[d.ID.Seq] = d.SQLState
		}
		for _, d := range dead {
			if d.part != p.Place.Partition {
				continue
			}
			if code, found := got[d.seq]; found || !d.excused {
				require.Equal(r, d.code, code, "%+v", d)
			}
			delete(got, d.seq)
		}
		require.Empty(r, got)
	}
}
