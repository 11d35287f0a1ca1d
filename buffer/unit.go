package buffer

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/headpond/headpond/buffer/table"
)

// unit is what one script call appended to one partition, as this process keeps
// it until it is committed: enough to append it again when Redis has lost it.
// Read-only once it is made, but for the fields of memory.
type unit struct {
	Rows    int
	Frames  []*table.Frame
	Indexed bool
	Letters []byte   // of append.lua, without expectations
	Keys    []string // of the rows, with the index
	Marks   []unitMark

	last   table.ID // of the last row, where it is now
	bytes  int64
	staged uint64 // epoch into which it was given back, while it is not known under which id
}

type unitMark struct {
	Row         int
	Name, Value string
}

func (u *unit) first() table.ID {
	return table.ID{Epoch: u.last.Epoch, Seq: u.last.Seq - uint64(u.Rows) + 1}
}

// unitOverhead is about what a unit and a key cost beside their bytes.
const (
	unitOverhead = 400
	keyOverhead  = 16
)

// unitOf makes a unit of a call that was accepted.
func unitOf(k *call, last table.ID) *unit {
	u := &unit{Frames: k.frames, Indexed: k.chunks[0].Target.Index, last: last, bytes: unitOverhead}
	for _, c := range k.chunks {
		if u.Indexed {
			u.Keys = append(u.Keys, c.keys...)
			for i, e := range c.expects {
				u.Letters = append(u.Letters, letterAgain(Expect(e), table.Op(c.ops[i])))
			}
		}
		for i := 0; len(c.marks) > 0 && i < c.Len(); i++ {
			if m, ok := c.marks[i]; ok {
				u.Marks = append(u.Marks, unitMark{u.Rows + i, m.name, c.marked(m)})
			}
		}
		u.Rows += c.Len()
	}
	for _, f := range u.Frames {
		u.bytes += int64(len(f.Heads) + len(f.Data))
	}
	for _, k := range u.Keys {
		u.bytes += int64(len(k) + keyOverhead)
	}
	for _, m := range u.Marks {
		u.bytes += int64(len(m.Name) + len(m.Value))
	}
	return u
}

// letterAgain is the letter of a row that was accepted once: it expects nothing.
func letterAgain(e Expect, op table.Op) byte {
	switch {
	case op == table.OpDelete:
		return byte(ExpectNothing) - 'a' + 'A'
	case e == ExpectNew:
		return byte(e)
	}
	return byte(ExpectNothing)
}

// after gives what is left of the unit above an id: Postgres may have committed
// some of its frames before Redis lost all of them.
func (u *unit) after(kept table.ID) *unit {
	if u.first().After(kept) || !u.last.After(kept) || kept.Epoch != u.last.Epoch {
		return u
	}
	done := int(kept.Seq - u.first().Seq + 1) //nolint:gosec // rows of one call
	rest := &unit{Indexed: u.Indexed, Rows: u.Rows - done, last: u.last, bytes: u.bytes}
	from := 0
	for _, f := range u.Frames {
		if from >= done {
			rest.Frames = append(rest.Frames, f)
		} else if from+f.Len() > done { // never so: a flush commits whole frames
			f = &table.Frame{Last: u.last, Columns: f.Columns, Base: f.Base, Heads: f.Heads, Data: f.Data, Traces: f.Traces}
			rest.Frames = append(rest.Frames, f.Cut(done-from, f.Len()))
		}
		from += f.Len()
	}
	if u.Indexed {
		rest.Letters, rest.Keys = u.Letters[done:], u.Keys[done:]
	}
	for _, m := range u.Marks {
		if m.Row >= done {
			rest.Marks = append(rest.Marks, unitMark{m.Row - done, m.Name, m.Value})
		}
	}
	return rest
}

// name of a unit while it is given back: its last id, as it was, and its rows.
func (u *unit) name() string { return u.last.String() + " " + strconv.Itoa(u.Rows) }

// stretch is what a name says.
type stretch struct {
	last table.ID
	rows int
}

func parseStretch(name string) (s stretch, err error) {
	id, rows, _ := strings.Cut(name, " ")
	var err2 error
	s.last, err = table.ParseID(id)
	s.rows, err2 = strconv.Atoi(rows)
	return s, errors.Join(err, err2)
}

// covers reports whether all rows of a frame are in the stretch.
func (s stretch) covers(f *table.Frame) bool {
	return f.Last.Epoch == s.last.Epoch && f.Last.Seq <= s.last.Seq && f.First().Seq+uint64(s.rows) > s.last.Seq //nolint:gosec // rows of one call
}

func (u *unit) encode() ([]byte, error) {
	text, err := json.Marshal(u)
	if err != nil {
		return nil, fmt.Errorf("encode unit id=%s: %w", u.last, err)
	}
	return text, nil
}

func decodeUnit(name, text string) (*unit, error) {
	u := &unit{}
	if err := json.Unmarshal([]byte(text), u); err != nil {
		return nil, fmt.Errorf("decode unit id=%s: %w", name, err)
	}
	s, err := parseStretch(name)
	u.last = s.last
	return u, err
}

// unitOfFrame makes a unit of a frame of the log. keys are nil without an index.
func unitOfFrame(f *table.Frame, keys []string) *unit {
	u := &unit{Frames: []*table.Frame{f}, Rows: f.Len(), Indexed: keys != nil, Keys: keys, last: f.Last}
	for i := range keys {
		u.Letters = append(u.Letters, letterAgain(ExpectNothing, f.Op(i)))
	}
	return u
}

// args of append.lua that put the unit back.
func (u *unit) args(p Place, partitions int) []any {
	index := "0"
	if u.Indexed {
		index = "1"
	}
	args := make([]any, 0, 16+5*len(u.Frames)+3*len(u.Marks)+len(u.Keys))
	args = append(args, p.prefix(), "", 0, time.Now().UnixMilli(), 0, 0, index, len(u.Frames), len(u.Marks), u.name())
	for _, f := range u.Frames {
		args = append(args, f.Len(), f.Columns, f.Time(), f.Heads, f.Data)
	}
	if len(u.Marks) > 0 {
		args = append(args, max(marksPerTable/partitions, 1), marksKept.Milliseconds())
		for _, m := range u.Marks {
			args = append(args, m.Row, m.Name, m.Value)
		}
	}
	if u.Indexed {
		args = append(args, u.Letters)
		for _, k := range u.Keys {
			args = append(args, k)
		}
	}
	return args
}
