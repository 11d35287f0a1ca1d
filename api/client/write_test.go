package client_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api/client"
)

type counter struct {
	ID   int64       `json:"id,omitempty"`
	N    int64       `json:"n"`
	Sum  json.Number `json:"sum,omitempty"`
	Name string      `json:"name,omitempty"`
}

const counterColumns = "id bigint primary key, n bigint not null default 0, sum numeric, name text"

// TestOneRow: each write to one row, and what it answers.
func TestOneRow(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), dial(t, address)
	tbl := pond.table(t, counterColumns)

	var row counter
	w, err := c.Insert(ctx, tbl, counter{ID: 9007199254740993, N: 1, Sum: "0.10000000000000000001"}, client.Return(&row))
	require.NoError(t, err)
	require.Equal(t, counter{ID: 9007199254740993, N: 1, Sum: "0.10000000000000000001"}, row, "digit for digit")
	require.Equal(t, client.KeyOf(9007199254740993), w.Key)
	require.Equal(t, "fsync", w.Durability)
	require.NotEmpty(t, w.ETag)
	require.Contains(t, w.Receipt, tbl+".")
	require.False(t, w.Replayed)
	key := w.Key

	var loose map[string]any
	w, err = c.Increment(ctx, tbl, key, m{"n": 2, "sum": json.Number("0.9")}, client.Return(&loose))
	require.NoError(t, err)
	require.Equal(t, m{"id": json.Number("9007199254740993"), "n": json.Number("3"), "sum": json.Number("1.00000000000000000001"), "name": nil}, loose)
	require.Equal(t, key, w.Key)

	w, err = c.Patch(ctx, tbl, key, m{"name": "<é>"}, client.IfMatch(w.ETag))
	require.NoError(t, err)
	var raw json.RawMessage
	read, err := c.Get(ctx, tbl, key, &raw)
	require.NoError(t, err)
	require.Equal(t, `{"id":9007199254740993,"n":3,"sum":1.00000000000000000001,"name":"<é>"}`, strings.TrimSpace(string(raw)))
	require.Equal(t, w.ETag, read.ETag)

	w, err = c.Put(ctx, tbl, client.KeyOf(2), m{"n": 5}, client.IfNoneMatch("*"))
	require.NoError(t, err)
	require.Equal(t, client.Key{"2"}, w.Key)
	_, err = c.Put(ctx, tbl, client.KeyOf(2), m{"n": 5}, client.IfNoneMatch("*"))
	refused(t, err, client.ErrVersionMismatch)
	_, err = c.Put(ctx, tbl, client.KeyOf(3), m{"n": 5}, client.IfMatch("*"))
	refused(t, err, client.ErrVersionMismatch)

	w, err = c.Delete(ctx, tbl, client.KeyOf(2), client.Wait(30*time.Second))
	require.NoError(t, err)
	require.Equal(t, "committed", w.Durability)
	require.Equal(t, client.Key{"2"}, w.Key)
	require.Empty(t, w.ETag)
	w, err = c.Insert(ctx, tbl, counter{ID: 4}, client.Wait(30*time.Second), client.Return(&row))
	require.NoError(t, err)
	require.Equal(t, "committed", w.Durability)
	require.Equal(t, "4", pond.text(t, "select max(id) from "+tbl+" where id < 100"))
	_, err = c.Insert(ctx, tbl, m{"id": 4}, client.Wait(30*time.Second))
	refused(t, err, client.ErrRowExists)

	// Accepted, and not decoded.
	w, err = c.Insert(ctx, tbl, counter{ID: 5}, client.Return(new(int)))
	require.ErrorContains(t, err, "decode")
	require.Equal(t, client.Key{"5"}, w.Key)
}

// TestResolution: what happens when the key exists.
func TestResolution(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), dial(t, address)
	tbl := pond.table(t, counterColumns)
	var row counter
	for _, o := range []client.CallOption{client.MergeDuplicates(), client.MergeDuplicates(), client.IgnoreDuplicates()} {
		_, err := c.Insert(ctx, tbl, m{"id": 1, "name": "a"}, o, client.Return(&row))
		require.NoError(t, err)
		_, err = c.InsertMany(ctx, tbl, []m{{"id": 1, "n": 7}, {"id": 2, "n": 7}}, o)
		require.NoError(t, err)
	}
	require.Equal(t, counter{ID: 1, N: 7, Name: "a"}, row)
}

// TestRepeats: what is sent again under its key counts once and is told so.
func TestRepeats(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), dial(t, address)
	tbl := pond.table(t, counterColumns)
	for n := range 3 {
		var row counter
		w, err := c.Increment(ctx, tbl, client.KeyOf(1), m{"n": 1}, client.IdempotencyKey("k1"), client.Return(&row))
		require.NoError(t, err)
		require.EqualValues(t, 1, row.N)
		require.Equal(t, n > 0, w.Replayed)
		many, err := c.InsertMany(ctx, tbl, []m{{"id": 2}, {"id": 3}}, client.IdempotencyKey("k2"))
		require.NoError(t, err)
		require.Equal(t, 2, many.Accepted)
		require.Equal(t, n > 0, many.Replayed)
		_, err = c.Increment(ctx, tbl, client.KeyOf(4), m{"n": 1}, client.IdempotencyKey(""))
		require.NoError(t, err)
	}
	var row counter
	_, err := c.Get(ctx, tbl, client.KeyOf(4), &row)
	require.NoError(t, err)
	require.EqualValues(t, 3, row.N, "without a key each counts")
	_, err = c.Insert(ctx, tbl, m{}, client.IdempotencyKey("two words"))
	refused(t, err, "bad_idempotency_key")
}

// TestMany: strict and lenient, with rows, receipts and errors.
func TestMany(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), dial(t, address)
	tbl := pond.table(t, counterColumns)
	var rows []counter
	bad := []m{{"id": 1, "n": 1}, {"id": 2, "n": "x"}, {"id": 3, "n": 3, "k": 1}, {"id": 4, "n": 4}}
	w, err := c.InsertMany(ctx, tbl, bad)
	require.Nil(t, w)
	require.Len(t, refused(t, err, client.ErrInvalidRows).Errors, 2)
	require.Contains(t, err.Error(), "First: /1/n: type_mismatch")

	w, err = c.InsertMany(ctx, tbl, bad, client.Lenient(), client.Return(&rows))
	e := refused(t, err, client.ErrSomeRejected)
	require.Equal(t, client.AppliedSome, e.Applied)
	require.Equal(t, e.Errors, w.Errors)
	require.Equal(t, []int{2, 2}, []int{w.Accepted, w.Rejected})
	require.Equal(t, []any{1, "/1/n", 2, "/2/k"}, []any{e.Errors[0].Index, e.Errors[0].Pointer, e.Errors[1].Index, e.Errors[1].Pointer})
	require.Equal(t, []counter{{ID: 1, N: 1}, {ID: 4, N: 4}}, rows)
	require.Equal(t, "fsync", w.Durability)
	for _, receipt := range w.Receipts {
		_, err := c.WaitFor(ctx, receipt)
		require.NoError(t, err)
	}
	require.Equal(t, "1,4", pond.text(t, "select string_agg(id::text, ',' order by id) from "+tbl))

	w, err = c.InsertMany(ctx, tbl, []counter{{ID: 5}, {ID: 6}}, client.Wait(30*time.Second))
	require.NoError(t, err)
	require.Equal(t, "committed", w.Durability)
	for _, no := range []any{nil, []int(nil), counter{}, 5} {
		_, err = c.InsertMany(ctx, tbl, no)
		require.ErrorContains(t, err, "takes a slice")
	}
	_, err = c.InsertMany(ctx, tbl, []int{})
	refused(t, err, "empty_batch")
	_, err = c.InsertMany(ctx, tbl, []any{func() {}})
	require.ErrorContains(t, err, "encode row")
	_, err = c.Insert(ctx, tbl, func() {})
	require.ErrorContains(t, err, "encode row")
}

// TestBulk: every operation, in order, and the errors of some.
func TestBulk(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), dial(t, address)
	tbl, words := pond.table(t, counterColumns), pond.table(t, "a text, b text, n int default 0, primary key (b, a)")
	odd := client.Key{"x,y", "ä/%"}
	operations := []client.Operation{
		{client.OpInsert, tbl, nil, counter{ID: 1, N: 1}},
		{client.OpIncrement, tbl, client.KeyOf(1), m{"n": 1}},
		{client.OpPatch, tbl, client.KeyOf(1), m{"name": "p"}},
		{client.OpPut, tbl, nil, counter{ID: 2, N: 2}},
		{client.OpDelete, tbl, client.KeyOf(2), nil},
		{client.OpPut, words, odd, m{"n": 1}},
		{client.OpIncrement, words, odd, m{"n": 1}},
		{client.OpPatch, tbl, client.KeyOf(404), m{"n": 1}},
	}
	w, err := c.Bulk(ctx, operations, client.Strict())
	require.Nil(t, w)
	require.Equal(t, client.ErrRowNotFound, refused(t, err, client.ErrInvalidRows).Errors[0].Code)
	var rows []m
	w, err = c.Bulk(ctx, operations, client.Return(&rows))
	refused(t, err, client.ErrSomeRejected)
	require.Equal(t, 7, w.Accepted)
	require.Equal(t, 7, w.Errors[0].Index)
	require.Len(t, rows, 7)
	require.Nil(t, rows[4], "deleted")
	require.Equal(t, m{"a": "ä/%", "b": "x,y", "n": json.Number("2")}, rows[6])
	var row counter
	_, err = c.Get(ctx, tbl, client.KeyOf(1), &row)
	require.NoError(t, err)
	require.Equal(t, counter{ID: 1, N: 2, Name: "p"}, row)
	_, err = c.Bulk(ctx, []client.Operation{{client.OpPut, tbl, nil, func() {}}})
	require.ErrorContains(t, err, "operation 0")
}

// TestKeys: keys of every kind go there and come back, in the path, in an
// answer, and in a line of Bulk.
func TestKeys(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), dial(t, address)
	one, two := pond.table(t, "k text primary key, n int"), pond.table(t, "a text, b text, n int, primary key (b, a)")
	odd := []string{
		"a", "a b", "a+b", "a/b", "a,b", "a%2Cb", "100%", "?x=1&y", "#", ";", ":", "ü", "😀", `"q"`, `\`, "<&>", "receipts", "_schema", "_bulk", "flush",
		"increment", ".", "..", "a.b", "null", "~", "@", " ", "'", "{}", "[0]", "*",
	}
	for i, text := range odd {
		for tbl, key := range map[string]client.Key{one: {text}, two: {odd[(i+1)%len(odd)], text}} {
			row := m{"n": i}
			if tbl == one {
				row["k"] = text
			} else {
				row["b"], row["a"] = key[0], key[1]
			}
			w, err := c.Insert(ctx, tbl, row)
			require.NoError(t, err, text)
			require.Equal(t, key, w.Key, text)
			w, err = c.Increment(ctx, tbl, key, m{"n": 1})
			require.NoError(t, err, text)
			require.Equal(t, key, w.Key, text)
			_, err = c.Bulk(ctx, []client.Operation{{client.OpIncrement, tbl, key, m{"n": 1}}})
			require.NoError(t, err, text)
			var got struct{ N int }
			_, err = c.Get(ctx, tbl, key, &got)
			require.NoError(t, err, text)
			require.Equal(t, i+2, got.N, text)
		}
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	require.Equal(t, client.Key{"1", "x", "2026-01-02T03:04:05.000000006Z", "123456789012345678901", "true"},
		client.KeyOf(1, "x", at, new(big.Int).SetBytes([]byte{6, 0xb1, 0x4e, 0x9f, 0x81, 0x2f, 0x36, 0x6c, 0x35}), true))
	require.Equal(t, "a,b", client.Key{"a,b"}.String())
	require.Equal(t, "a%2Cb,%C3%BC", fmt.Sprint(client.Key{"a,b", "ü"}))
	log := pond.table(t, "v text")
	w, err := c.Insert(ctx, log, m{"v": "x"})
	require.NoError(t, err)
	require.Nil(t, w.Key, "a table without a key")
}

// TestOptionsHaveMeaning: an option that a call does not know is refused before
// anything is sent.
func TestOptionsHaveMeaning(t *testing.T) {
	t.Parallel()
	wire := &canned{answers: []answer{accepted}}
	ctx, c := t.Context(), wire.client(t)
	_, err := c.Insert(ctx, "t", 1, client.IfMatch("*"))
	require.ErrorContains(t, err, "IfMatch has no meaning for POST /v1/t")
	_, err = c.Insert(ctx, "t", 1, client.Strict())
	require.Error(t, err)
	_, err = c.Put(ctx, "t", client.KeyOf(1), 1, client.MergeDuplicates())
	require.Error(t, err)
	_, err = c.InsertMany(ctx, "t", []int{1}, client.Select("a"))
	require.Error(t, err)
	_, err = c.Bulk(ctx, nil, client.IgnoreDuplicates())
	require.Error(t, err)
	_, err = c.Get(ctx, "t", client.KeyOf(1), nil, client.Wait(time.Second))
	require.Error(t, err)
	_, err = c.List(ctx, "t", nil, nil, client.Return(nil))
	require.Error(t, err)
	_, err = c.NewWriter("t", client.WriterConfig{Rejected: func(any, *client.Error) {}}, client.IdempotencyKey("k"))
	require.Error(t, err)
	require.Empty(t, wire.sent)
}
