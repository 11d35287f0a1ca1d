package flusher

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
)

// counters is the table t (id, a, b), and with lasting also (…, s), an identity
// column beside the key.
func counters(lasting bool) *table.Table {
	integer := &table.Type{Name: "bigint", Bare: "bigint", Kind: table.KindInt8, Mod: -1}
	t := &table.Table{Name: "t", Key: []int{0}}
	for _, name := range []string{"id", "a", "b", "s"} {
		t.Columns = append(t.Columns, table.Column{Name: name, Type: integer, IdentityAlways: name == "s" && lasting})
	}
	return t.Seal()
}

// logOf makes frames of words such as "u 1 5 6 1,2=-3": operation, values, and
// changes. "(id a)" begins a frame with other columns.
func logOf(words ...string) Part {
	f := &table.Frame{Columns: []byte("id\ta\tb")}
	p := Part{}
	seq := uint64(0)
	for _, w := range words {
		if names, ok := strings.CutPrefix(w, "("); ok {
			f = &table.Frame{Columns: []byte(strings.ReplaceAll(strings.TrimSuffix(names, ")"), " ", "\t"))}
			continue
		}
		if f.Len() == 0 {
			p.Frames = append(p.Frames, f)
		}
		seq++
		f.Add(table.Op(w[0]), time.Now().UnixMicro(), []byte(strings.ReplaceAll(w[2:], " ", "\t")+"\n"))
		f.Last = table.ID{Epoch: 1, Seq: seq}
	}
	return p
}

// show prints waves: "p(id a b) 1 2 3 <1 2>" is a put that stands for the rows
// 1 and 2 of the log.
func show(waves [][]*Net) string {
	var out []string
	for _, wave := range waves {
		var nets []string
		for _, n := range wave {
			var w strings.Builder
			fmt.Fprintf(&w, "%c", n.Op)
			if names := strings.Join(n.Columns.Names, " "); names != "id a b" {
				w.WriteString("(" + names + ")")
			}
			for i, c := range n.Row {
				if n.Op != table.OpDelete || i == 0 {
					w.WriteString(" " + string(c.Text))
				}
			}
			for _, c := range n.Changes {
				fmt.Fprintf(&w, " %s", n.Columns.Names[c.Column])
				if c.Add != nil {
					w.WriteString("+" + string(c.Add))
				}
			}
			var origins []string
			for _, o := range n.Origins {
				origins = append(origins, fmt.Sprint(o.ID().Seq))
			}
			nets = append(nets, w.String()+" <"+strings.Join(origins, " ")+">")
		}
		out = append(out, strings.Join(nets, ", "))
	}
	return strings.Join(out, " | ")
}

func TestCoalescePairs(t *testing.T) {
	t.Parallel()
	const ins, ign, put, del = "i 1 1 1", "g 1 2 2", "p 1 3 3", `d 1 \N \N`
	const patch, incr = "u 1 4 4 1", "n 1 5 5 2=3"
	for _, c := range []struct{ first, second, want string }{
		{ins, ins, "i 1 1 1 <1> | i 1 1 1 <2>"},
		{ins, ign, "i 1 1 1 <1 2>"},
		{ins, put, "i 1 3 3 <1 2>"},
		{ins, patch, "i 1 4 4 <1 2>"},
		{ins, incr, "i 1 5 5 <1 2>"},
		{ins, del, "d 1 <1 2>"},
		{ign, ins, "g 1 2 2 <1> | i 1 1 1 <2>"},
		{ign, ign, "g 1 2 2 <1 2>"},
		{ign, put, "p 1 3 3 <1 2>"},
		{ign, patch, "g 1 2 2 <1> | u 1 4 4 a <2>"},
		{ign, incr, "g 1 2 2 <1> | u 1 5 5 b+3 <2>"},
		{ign, del, "d 1 <1 2>"},
		{put, ins, "p 1 3 3 <1> | i 1 1 1 <2>"},
		{put, ign, "p 1 3 3 <1 2>"},
		{put, put, "p 1 3 3 <1 2>"},
		{put, patch, "p 1 4 4 <1 2>"},
		{put, incr, "p 1 5 5 <1 2>"},
		{put, del, "d 1 <1 2>"},
		{patch, ins, "u 1 4 4 a <1> | i 1 1 1 <2>"},
		{patch, ign, "u 1 4 4 a <1 2>"},
		{patch, put, "p 1 3 3 <1 2>"},
		{patch, patch, "u 1 4 4 a <1 2>"},
		{patch, incr, "u 1 5 5 a b+3 <1 2>"},
		{patch, del, "d 1 <1 2>"},
		{incr, ins, "u 1 5 5 b+3 <1> | i 1 1 1 <2>"},
		{incr, ign, "u 1 5 5 b+3 <1 2>"},
		{incr, put, "p 1 3 3 <1 2>"},
		{incr, patch, "u 1 4 4 b+3 a <1 2>"},
		{incr, incr, "u 1 5 5 b+6 <1 2>"},
		{incr, del, "d 1 <1 2>"},
		{del, ins, "p 1 1 1 <1 2>"},
		{del, ign, "p 1 2 2 <1 2>"},
		{del, put, "p 1 3 3 <1 2>"},
		{del, patch, "p 1 4 4 <1 2>"},
		{del, incr, "p 1 5 5 <1 2>"},
		{del, del, "d 1 <1 2>"},
	} {
		waves, err := Coalesce(counters(false), []Part{logOf(c.first, c.second)})
		require.NoError(t, err)
		require.Equal(t, c.want, show(waves), "%s, then %s", c.first, c.second)
	}
}

func TestCoalesceSequences(t *testing.T) {
	t.Parallel()
	for want, log := range map[string][]string{
		"u 1 8 0 a <1 2>":        {"u 1 5 0 1", "n 1 8 0 1=3"}, // added to what was set
		"u 1 7 0 a <1 2 3>":      {"n 1 3 0 1=3", "u 1 5 0 1", "n 1 7 0 1=2"},
		"u 1 0 0 a+0.10 <1 2 3>": {"n 1 0 0 1=0.1", "n 1 0 0 1=-5.25", "n 1 0 0 1=5.25"},
		"u 1 9 9 <1 2>":          {"u 1 9 9 ", "u 1 9 9 "},
		"i 1 1 1 <1>, p 2 9 9 <2 5>, d 3 <3 4>": {
			"i 1 1 1", "p 2 2 2", "p 3 3 3", `d 3 \N \N`, "u 2 9 9 1,2",
		},
		"g 1 0 0 <1> | u 1 2 2 a b <2 3> | i 1 3 3 <4>": {"g 1 0 0", "u 1 1 1 1", "u 1 2 2 2", "i 1 3 3"},
		"p 1 4 4 <1 2 3 4>":                             {"g 1 0 0", `d 1 \N \N`, "i 1 3 3", "n 1 4 4 1=1"},
	} {
		waves, err := Coalesce(counters(false), []Part{logOf(log...)})
		require.NoError(t, err)
		require.Equal(t, want, show(waves))
	}
}

// The schema changed while rows were on their way: columns meet by name.
func TestCoalesceColumnLists(t *testing.T) {
	t.Parallel()
	for want, log := range map[string][]string{
		"u(b id s a) 8 1 5 2 a+5 s b <1 2>": {"n 1 2 3 1=5", "(b id s)", "u 8 1 5 2,0"},
		"i(id b a) 1 9 2 <1 2>":             {"i 1 2 3", "(id b)", "u 1 9 1"},
		"u(id b a) 1 5 2 a b <1 2 3>":       {"u 1 2 3 1", "(id b)", "u 1 4 1", "(id b a)", "u 1 5 0 1"},
		"u(id b a) 1 5 5 a+4 b <1 2 3>":     {"n 1 2 3 1=1", "(id b)", "u 1 4 1", "(id b a)", "n 1 5 9 1=1,2=3"},
		"p(id b) 1 9 <1 2>":                 {"p 1 2 3", "(id b)", "p 1 9"},
		"u(id b) 1 9 b+4 <1>, u 2 0 0 b <2>, u(id b) 3 7 b <3>": {
			"(id b)", "n 1 9 1=4", "(id a b)", "u 2 0 0 2", "(id b)", "u 3 7 1",
		},
	} {
		waves, err := Coalesce(counters(false), []Part{logOf(log...)})
		require.NoError(t, err)
		require.Equal(t, want, show(waves))
	}
	_, err := Coalesce(counters(false), []Part{logOf("(a b)", "p 1 2")})
	require.ErrorIs(t, err, ErrKeyChanged)
	_, err = Coalesce((&table.Table{Columns: counters(false).Columns}).Seal(), []Part{logOf("p 1 2 3")})
	require.ErrorIs(t, err, ErrKeyChanged)
}

// A put leaves an identity column beside the key as it is, so which row a put
// finds there counts.
func TestCoalesceLastingColumn(t *testing.T) {
	t.Parallel()
	for want, log := range map[string][]string{
		"d 1 <1> | p 1 1 1 <2>":     {`d 1 \N \N`, "p 1 1 1"},
		"d 1 <1> | i 1 1 1 <2>":     {`d 1 \N \N`, "i 1 1 1"},
		"i 1 1 1 <1> | p 1 2 2 <2>": {"i 1 1 1", "p 1 2 2"},
		"p 1 2 2 <1 2>":             {"p 1 1 1", "u 1 2 2 1,2"},
		"d 1 <1 2>":                 {"p 1 1 1", `d 1 \N \N`},
	} {
		waves, err := Coalesce(counters(true), []Part{logOf(log...)})
		require.NoError(t, err)
		require.Equal(t, want, show(waves))
	}
}

func TestCoalesceCorrupt(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"i 1 2", "i 1 2 3 4", "u 1 2 3", "u 1 2 3 3", "u 1 2 3 x", "n 1 2 3 1="} {
		_, err := Coalesce(counters(false), []Part{logOf(line)})
		require.ErrorIs(t, err, table.ErrCorruptFrame, line)
	}
}
