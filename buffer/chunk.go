package buffer

import (
	"strconv"
	"strings"
	"sync"

	"github.com/headpond/headpond/buffer/table"
)

// Expect says what must be true of a key for its row to be accepted.
type Expect byte

// The expectations. They are the letters of append.lua.
const (
	ExpectNothing Expect = 'u'
	ExpectAbsent  Expect = 'a' // not in the buffer
	ExpectNew     Expect = 'g' // made by Headpond just now: nobody can know it, nothing to check

	expectID    Expect = 'i'
	expectLease Expect = 'l'
	expectClean Expect = 'c'
)

// Basis is what is known of a key, by a read: a row that is appended on it is
// refused when the key was written since. The zero Basis knows nothing.
type Basis struct {
	expect Expect
	text   string
}

// After is the basis of a row that was just appended.
func After(id table.ID) Basis { return Basis{expectID, id.String()} }

// ID of the row that the basis is, zero when that is not in the log.
func (b Basis) ID() table.ID {
	if b.expect != expectID {
		return table.ID{}
	}
	id, _ := table.ParseID(b.text) // ours
	return id
}

// Chunk is rows of one request for one partition, in order. Their seqs follow
// each other. It may be used once.
type Chunk struct {
	Target    *Target
	Partition int
	Columns   []byte // the column list, Table.Header
	Accepted  int64  // µs since 1970
	Atomic    bool   // when one expectation fails, nothing is appended

	data    []byte
	ends    []uint32
	ops     []byte
	keys    []string
	expects []byte
	bases   map[int]string // of the rows that were added on a basis
	marks   map[int]mark   // of rows
	traces  traces
	origin  []int // row numbers as they were added, once rows were taken out

	full   *BacklogFull // it is refused, unless it was done before
	result Result
	wait   *sync.WaitGroup
}

// Result is what became of a chunk.
type Result struct {
	First   table.ID       // id of the first row that was appended; the others follow
	Rows    int            // how many were appended
	Replays map[int]Replay // rows whose mark was there already: nothing was appended
	Failed  []int          // rows of the chunk whose expectation failed, in order
	Dead    []DeadLetter   // filled in by who waited for the commit
	Err     error          // nothing was appended, or (ErrOutcomeUnknown) perhaps all
}

// Last is the id of the last row that was appended.
func (r *Result) Last() table.ID {
	return table.ID{Epoch: r.First.Epoch, Seq: r.First.Seq + uint64(r.Rows) - 1}
}

// Add appends a row: its COPY line, and its key text when the target has an
// index. A change that follows another row of its key is taken to be computed on
// that one: such chunks are Atomic, so that it is the row before in the log too.
func (c *Chunk) Add(op table.Op, line []byte, key string, expect Expect) {
	base := ""
	if n := len(c.keys); op.Changes() && n > 0 && c.keys[n-1] == key {
		base = table.Base(table.ID{})
	}
	c.add(op, line, base, key, expect)
}

// add appends a row, and its base to the field of changes.
func (c *Chunk) add(op table.Op, line []byte, base, key string, expect Expect) {
	c.data = append(c.data, line...)
	if base != "" {
		c.data = append(append(c.data[:len(c.data)-1], base...), '\n')
	}
	c.ends = append(c.ends, uint32(len(c.data)))
	c.ops = append(c.ops, byte(op))
	if c.Target.Index {
		c.keys = append(c.keys, key)
		c.expects = append(c.expects, byte(expect))
	}
}

// AddOn appends a row that counts only if nothing was written to its key since
// the basis was known.
func (c *Chunk) AddOn(op table.Op, line []byte, key string, on Basis) {
	base := ""
	if id := on.ID(); op.Changes() && id != (table.ID{}) {
		base = table.Base(id)
	}
	c.addOn(op, line, base, key, on)
}

func (c *Chunk) addOn(op table.Op, line []byte, base, key string, on Basis) {
	c.add(op, line, base, key, on.expect)
	if c.bases == nil {
		c.bases = make(map[int]string, 1)
	}
	c.bases[c.Len()-1] = on.text
}

// mark is what makes a request that is sent twice count once.
type mark struct {
	name, value string
	whole       bool // of the chunk
	replays     *table.Letter
}

// Mark gives the row that was added last a mark, in the same step in which it is
// appended. If its partition has a mark of this name already, nothing of the
// chunk is appended and the Result has a Replay. Marks are kept for a day, or
// until so many came after them as Config says.
func (c *Chunk) Mark(name, value string) { c.mark(c.Len()-1, mark{name: name, value: value}) }

// MarkWhole marks the chunk: its one Replay, that of row 0, counts for all its
// rows, and the Result is as it was.
func (c *Chunk) MarkWhole(name, value string) { c.mark(0, mark{name: name, value: value, whole: true}) }

// MarkReplay is Mark for a row that replays a dead letter of its table: the flush
// that commits the row takes the letter away, and leaves the row out when there
// is none any more. The mark is what keeps most second replays out of the log;
// that a letter counts once is the flush's work.
func (c *Chunk) MarkReplay(of table.Letter, name, value string) {
	c.mark(c.Len()-1, mark{name: name, value: value, replays: &of})
}

// header is the column list of row i.
func (c *Chunk) header(i int) []byte {
	if len(c.marks) > 0 && c.marks[i].replays != nil {
		return table.Replaying(c.Columns, *c.marks[i].replays)
	}
	return c.Columns
}

func (c *Chunk) mark(row int, m mark) {
	if c.marks == nil {
		c.marks = make(map[int]mark, 1)
	}
	c.marks[row] = m
}

// Replay is what was noted when a row was appended earlier.
type Replay struct {
	ID    table.ID
	Value string
}

// replay takes over a mark that was found.
func (c *Chunk) replay(row int, text string) {
	id, value, _ := strings.Cut(text, " ")
	r := Replay{Value: value}
	r.ID, _ = table.ParseID(id)
	if c.result.Replays == nil {
		c.result.Replays = make(map[int]Replay, 1)
	}
	if !c.marks[row].whole {
		c.result.Replays[c.number(row)] = r
		return
	}
	counts, value, _ := strings.Cut(value, "\n")
	r.Value = value
	c.result.First, c.result.Failed = r.ID, nil
	for i, n := range strings.Fields(counts) {
		v, _ := strconv.Atoi(n)
		if i == 0 {
			c.result.Rows = v
		} else {
			c.result.Failed = append(c.result.Failed, v)
		}
	}
	c.result.Replays[0] = r
}

// marked gives what is noted of row i when it is appended now.
func (c *Chunk) marked(m mark) string {
	if !m.whole {
		return m.value
	}
	counts := strconv.Itoa(c.Len())
	for _, n := range c.result.Failed {
		counts += " " + strconv.Itoa(n)
	}
	return counts + "\n" + m.value
}

// Grow makes room for n rows of about size bytes in all.
func (c *Chunk) Grow(n, size int) {
	c.data = make([]byte, 0, size)
	c.ends = make([]uint32, 0, n)
	c.ops = make([]byte, 0, n)
	if c.Target.Index {
		c.keys = make([]string, 0, n)
		c.expects = make([]byte, 0, n)
	}
}

// Keys of the rows, when the target has an index. The caller must not change
// them.
func (c *Chunk) Keys() []string { return c.keys }

// ExpectNothing takes back every expectation but that of new keys.
func (c *Chunk) ExpectNothing() {
	for i, e := range c.expects {
		if Expect(e) == ExpectAbsent {
			c.expects[i] = byte(ExpectNothing)
		}
	}
}

// Len is the number of rows.
func (c *Chunk) Len() int { return len(c.ends) }

// Result is valid after Append has returned.
func (c *Chunk) Result() *Result { return &c.result }

// letters of append.lua for the rows: their expectations, capital for deletes.
func (c *Chunk) letters(dst []byte) []byte {
	for i, e := range c.expects {
		if table.Op(c.ops[i]) == table.OpDelete {
			e -= 'a' - 'A'
		}
		dst = append(dst, e)
	}
	return dst
}

func (c *Chunk) line(i int) []byte {
	if i == 0 {
		return c.data[:c.ends[0]]
	}
	return c.data[c.ends[i-1]:c.ends[i]]
}

// number of row i as it was added.
func (c *Chunk) number(i int) int {
	if c.origin == nil {
		return i
	}
	return c.origin[i]
}

// drop takes rows out; the others close up.
func (c *Chunk) drop(rows map[int]bool) {
	rest := Chunk{Target: c.Target, origin: make([]int, 0, c.Len())}
	rest.traces.spans = c.traces.spans
	var whole *mark
	for i := range c.ends {
		m, marked := c.marks[i]
		if marked && m.whole {
			whole = &m
		}
		if rows[i] {
			continue
		}
		key, expect := "", ExpectNothing
		rest.traces.set(rest.Len(), c.traces.at(i))
		if c.Target.Index {
			key, expect = c.keys[i], Expect(c.expects[i])
		}
		if text, on := c.bases[i]; on {
			rest.addOn(table.Op(c.ops[i]), c.line(i), "", key, Basis{expect, text})
		} else {
			rest.add(table.Op(c.ops[i]), c.line(i), "", key, expect)
		}
		rest.origin = append(rest.origin, c.number(i))
		switch {
		case whole != nil && rest.Len() == 1:
			rest.mark(0, *whole)
		case marked && !m.whole:
			rest.mark(rest.Len()-1, m)
		}
	}
	c.data, c.ends, c.ops, c.keys, c.expects = rest.data, rest.ends, rest.ops, rest.keys, rest.expects
	c.bases, c.marks, c.traces, c.origin = rest.bases, rest.marks, rest.traces, rest.origin
}
