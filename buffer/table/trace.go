package table

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Span names a span of a sampled trace (W3C Trace Context). The zero Span is none.
type Span struct {
	Trace [16]byte
	Span  [8]byte
}

// TraceID in hex.
func (s Span) TraceID() string { return hex.EncodeToString(s.Trace[:]) }

// SpanID in hex.
func (s Span) SpanID() string { return hex.EncodeToString(s.Span[:]) }

// Trace is rows of a frame that a sampled request wrote, from From up to and
// without To, and the span that put them into the log.
type Trace struct {
	From, To int
	Span     Span
}

// Trace notes that a sampled request wrote the row that was added last.
func (f *Frame) Trace(s Span) {
	row := f.Len() - 1
	if n := len(f.Traces); n > 0 && f.Traces[n-1].Span == s && f.Traces[n-1].To == row {
		f.Traces[n-1].To++
		return
	}
	f.Traces = append(f.Traces, Trace{row, row + 1, s})
}

// Traced gives the span of row i; the zero Span when its request is not sampled.
func (f *Frame) Traced(i int) Span {
	for _, t := range f.Traces {
		if t.From <= i && i < t.To {
			return t.Span
		}
	}
	return Span{}
}

// cutTraces gives the traces of the rows from up to and without to, counted from there.
func cutTraces(all []Trace, from, to int) (out []Trace) {
	for _, t := range all {
		if t.From, t.To = max(t.From, from)-from, min(t.To, to)-from; t.From < t.To {
			out = append(out, t)
		}
	}
	return out
}

// Time is the frame's field of times as it lies in the log: the accept time of its
// first row in decimal, and, if it has Traces, a space and for each of them the rows
// that it lies behind the one before, its number of rows (both unsigned varints), the
// trace and the span. Scripts do not look into it. Without sampled rows it is a number
// alone.
func (f *Frame) Time() string {
	if len(f.Traces) == 0 {
		return strconv.FormatInt(f.Base, 10)
	}
	b := make([]byte, 0, 24+28*len(f.Traces))
	b = append(strconv.AppendInt(b, f.Base, 10), ' ')
	end := 0
	for i := range f.Traces {
		t := &f.Traces[i]
		b = binary.AppendUvarint(b, uint64(t.From-end))  //nolint:gosec // they are in order
		b = binary.AppendUvarint(b, uint64(t.To-t.From)) //nolint:gosec // never negative
		b = append(append(b, t.Span.Trace[:]...), t.Span.Span[:]...)
		end = t.To
	}
	return string(b)
}

// ParseTime reads a field of times. An error wraps ErrCorruptFrame.
func ParseTime(text string) (base int64, traces []Trace, err error) {
	head, rest, more := strings.Cut(text, " ")
	if base, err = strconv.ParseInt(head, 10, 64); err != nil {
		return 0, nil, fmt.Errorf("%w: accept time %.40q", ErrCorruptFrame, text)
	}
	if !more {
		return base, nil, nil
	}
	end := 0
	for b := []byte(rest); len(b) > 0 || end == 0; {
		gap, n := binary.Uvarint(b)
		rows, m := binary.Uvarint(b[max(n, 0):])
		if n <= 0 || m <= 0 || len(b) < n+m+24 || rows == 0 || gap > mostFrameRows || rows > mostFrameRows {
			return 0, nil, fmt.Errorf("%w: traces %.80q", ErrCorruptFrame, rest)
		}
		t := Trace{From: end + int(gap), To: end + int(gap+rows)} //nolint:gosec // not that many
		copy(t.Span.Trace[:], b[n+m:])
		copy(t.Span.Span[:], b[n+m+16:])
		traces, end, b = append(traces, t), t.To, b[n+m+24:]
	}
	return base, traces, nil
}

// mostFrameRows is more than a frame can have: what is above was not written by us.
const mostFrameRows = 1 << 20

// ParseSpan reads a span's ids from hex.
func ParseSpan(trace, span string) (s Span, ok bool) {
	if len(trace) != 2*len(s.Trace) || len(span) != 2*len(s.Span) {
		return Span{}, false
	}
	_, err1 := hex.Decode(s.Trace[:], []byte(trace))
	_, err2 := hex.Decode(s.Span[:], []byte(span))
	return s, err1 == nil && err2 == nil
}
