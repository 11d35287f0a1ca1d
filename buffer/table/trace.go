package table

import (
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
// first row, and for each of the Traces " from+rows:trace:span". Scripts do not
// look into it. Without sampled rows it is a number alone.
func (f *Frame) Time() string {
	if len(f.Traces) == 0 {
		return strconv.FormatInt(f.Base, 10)
	}
	b := make([]byte, 0, 20+64*len(f.Traces))
	b = strconv.AppendInt(b, f.Base, 10)
	for _, t := range f.Traces {
		b = strconv.AppendInt(append(b, ' '), int64(t.From), 10)
		b = strconv.AppendInt(append(b, '+'), int64(t.To-t.From), 10)
		b = hex.AppendEncode(append(b, ':'), t.Span.Trace[:])
		b = hex.AppendEncode(append(b, ':'), t.Span.Span[:])
	}
	return string(b)
}

// ParseTime reads a field of times. An error wraps ErrCorruptFrame.
func ParseTime(text string) (base int64, traces []Trace, err error) {
	head, rest, more := strings.Cut(text, " ")
	if base, err = strconv.ParseInt(head, 10, 64); err != nil {
		return 0, nil, fmt.Errorf("%w: accept time %.40q", ErrCorruptFrame, text)
	}
	for at := ""; more; {
		at, rest, more = strings.Cut(rest, " ")
		t, ok := parseTrace(at)
		if !ok {
			return 0, nil, fmt.Errorf("%w: trace %.80q", ErrCorruptFrame, at)
		}
		traces = append(traces, t)
	}
	return base, traces, nil
}

func parseTrace(text string) (t Trace, ok bool) {
	rows, ids, _ := strings.Cut(text, ":")
	from, n, _ := strings.Cut(rows, "+")
	trace, span, _ := strings.Cut(ids, ":")
	first, err1 := strconv.Atoi(from)
	count, err2 := strconv.Atoi(n)
	t.From, t.To = first, first+count
	t.Span, ok = ParseSpan(trace, span)
	return t, ok && err1 == nil && err2 == nil && first >= 0 && count > 0
}

// ParseSpan reads a span's ids from hex.
func ParseSpan(trace, span string) (s Span, ok bool) {
	if len(trace) != 2*len(s.Trace) || len(span) != 2*len(s.Span) {
		return Span{}, false
	}
	_, err1 := hex.Decode(s.Trace[:], []byte(trace))
	_, err2 := hex.Decode(s.Span[:], []byte(span))
	return s, err1 == nil && err2 == nil
}
