package table

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A frame is one entry of a partition's log: rows of one table with one
// column list, one after the other, ready for COPY. In Redis it has the fields
//
//	c  the column list, a COPY text line without its newline (Table.Header)
//	t  the accept time of the first row, microseconds since 1970, decimal; behind it the
//	   traces of rows whose requests are sampled (Frame.Time)
//	h  the row heads: headSize bytes for each row
//	d  the rows: COPY text lines, with a field of changes where the operation has one (Change)
//	b  bytes appended to the log so far, this frame included (set by the script)
//	r  when Redis took the frame, by its clock, microseconds since 1970 (set by the script)
//
// or only l and b: l rows that were acknowledged are lost, and nothing else is here.
//
// A head is, little-endian: operation (1 byte), flags (1 byte, 0), accept time
// after t in milliseconds (2 bytes, saturating), end of the row in d (4 bytes).
// The fixed size lets the read script slice one row out without decoding.
const headSize = 8

// Op is what a row of a frame does to its key.
type Op byte

// The operations. Their letters lie in the log for as long as it is kept.
const (
	OpInsert    Op = 'i' // adds a row; its key must not exist
	OpIgnore    Op = 'g' // adds a row, and does nothing when its key exists
	OpPut       Op = 'p' // adds the row or replaces it as a whole
	OpPatch     Op = 'u' // sets columns; adds the row as a whole when its key is not there any more
	OpIncrement Op = 'n' // adds to columns; as OpPatch when the key is not there
	OpDelete    Op = 'd' // removes the key; only the key columns of the line count
)

func (o Op) String() string {
	switch o {
	case OpInsert, OpIgnore:
		return "insert"
	case OpPut:
		return "put"
	case OpPatch:
		return "patch"
	case OpIncrement:
		return "increment"
	case OpDelete:
		return "delete"
	}
	return "unknown(" + string(rune(o)) + ")"
}

// ErrCorruptFrame is returned for an entry that no version of Headpond wrote.
var ErrCorruptFrame = errors.New("frame is corrupt")

// ID is the number of a row: the epoch of the log and the dense seq within
// the partition. As a stream id it is printed "epoch-seq".
type ID struct {
	Epoch uint64
	Seq   uint64
}

func (id ID) String() string {
	return strconv.FormatUint(id.Epoch, 10) + "-" + strconv.FormatUint(id.Seq, 10)
}

// After reports whether id comes later than other.
func (id ID) After(other ID) bool {
	return id.Epoch > other.Epoch || id.Epoch == other.Epoch && id.Seq > other.Seq
}

// ParseID reads "epoch-seq".
func ParseID(s string) (ID, error) {
	e, q, ok := strings.Cut(s, "-")
	epoch, err1 := strconv.ParseUint(e, 10, 64)
	seq, err2 := strconv.ParseUint(q, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return ID{}, fmt.Errorf("id %q is not epoch-seq", s)
	}
	return ID{Epoch: epoch, Seq: seq}, nil
}

// Frame is a decoded or a growing frame. It is not safe for concurrent use.
type Frame struct {
	Last    ID // of its last row; set when read from the log
	Columns []byte
	Base    int64 // µs since 1970
	Heads   []byte
	Data    []byte
	Traces  []Trace `json:",omitempty"` // of rows whose requests are sampled, in order
	Bytes   uint64  // bytes appended to the log up to and with this frame; set when read
	Lost    uint64  // this many rows are lost; there are no others then
}

// Add appends one row: a COPY line with its newline.
func (f *Frame) Add(op Op, accepted int64, line []byte) {
	if len(f.Heads) == 0 {
		f.Base = accepted
	}
	delta := min(max((accepted-f.Base)/1000, 0), 0xffff)
	f.Data = append(f.Data, line...)
	f.Heads = append(f.Heads, byte(op), 0)
	f.Heads = binary.LittleEndian.AppendUint16(f.Heads, uint16(delta))
	f.Heads = binary.LittleEndian.AppendUint32(f.Heads, uint32(len(f.Data)))
}

// Len is the number of rows.
func (f *Frame) Len() int { return len(f.Heads) / headSize }

// First is the id of the first row.
func (f *Frame) First() ID {
	return ID{Epoch: f.Last.Epoch, Seq: f.Last.Seq - uint64(f.Len()) - f.Lost + 1}
}

// Op of row i.
func (f *Frame) Op(i int) Op { return Op(f.Heads[i*headSize]) }

// Accepted is when row i was accepted, to the millisecond.
func (f *Frame) Accepted(i int) time.Time {
	delta := binary.LittleEndian.Uint16(f.Heads[i*headSize+2:])
	return time.UnixMicro(f.Base + int64(delta)*1000)
}

func setEnd(heads []byte, i, end int) {
	binary.LittleEndian.PutUint32(heads[i*headSize+4:], uint32(end))
}

func (f *Frame) end(i int) uint32 {
	return binary.LittleEndian.Uint32(f.Heads[i*headSize+4:])
}

// Line of row i, with its newline; a slice of Data.
func (f *Frame) Line(i int) []byte { return f.Lines(i, i+1) }

// Lines of the rows from up to and without to, a slice of Data.
func (f *Frame) Lines(from, to int) []byte {
	var start uint32
	if from > 0 {
		start = f.end(from - 1)
	}
	if to == 0 {
		return nil
	}
	return f.Data[start:f.end(to-1)]
}

// Cut gives the rows from up to and without to as a frame.
func (f *Frame) Cut(from, to int) *Frame {
	out := &Frame{
		Last:    ID{Epoch: f.Last.Epoch, Seq: f.First().Seq + uint64(to) - 1}, //nolint:gosec // a row of the frame
		Columns: f.Columns, Base: f.Base, Heads: bytes.Clone(f.Heads[from*headSize : to*headSize]), Data: f.Lines(from, to), Bytes: f.Bytes,
		Traces: cutTraces(f.Traces, from, to),
	}
	for i := range out.Len() {
		setEnd(out.Heads, i, int(f.end(from+i))-int(f.end(to-1))+len(out.Data))
	}
	return out
}

// Check returns ErrCorruptFrame unless heads and data fit together.
func (f *Frame) Check() error {
	if f.Lost > 0 && len(f.Heads) == 0 && f.Last.Seq >= f.Lost {
		return nil
	}
	if len(f.Heads) == 0 || len(f.Heads)%headSize != 0 || f.Last.Seq < uint64(f.Len()) {
		return fmt.Errorf("%w: %d bytes of heads, id %s", ErrCorruptFrame, len(f.Heads), f.Last)
	}
	var prev uint32
	for i := range f.Len() {
		end := f.end(i)
		if end <= prev || uint64(end) > uint64(len(f.Data)) || f.Data[end-1] != '\n' {
			return fmt.Errorf("%w: row %d of %s ends at %d", ErrCorruptFrame, i, f.Last, end)
		}
		prev = end
	}
	if int(prev) != len(f.Data) || bytes.Count(f.Data, []byte{'\n'}) != f.Len() {
		return fmt.Errorf("%w: %d bytes after the last row of %s", ErrCorruptFrame, len(f.Data)-int(prev), f.Last)
	}
	return nil
}
