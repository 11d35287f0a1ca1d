package api

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// format of a body.
type format int

const (
	formatJSON format = iota
	formatNDJSON
	formatCSV
)

// media is what a kind of request may send.
type media struct {
	formats []format
	detail  string
	types   string // those to be told, the first one before others
	header  string // that tells them
}

// Answers tell the media types where their standards look for them: RFC 5789,
// section 2.2, for PATCH; W3C LDP 1.0, section 7.1, for POST; RFC 9110, section
// 15.5.16, for the rest.
var (
	rowsMedia = &media{
		[]format{formatJSON, formatNDJSON, formatCSV}, "The media type must be application/json, application/x-ndjson, or text/csv with a header line, in UTF-8.",
		"application/json, application/x-ndjson, text/csv", "Accept-Post",
	}
	linesMedia = &media{
		[]format{formatNDJSON}, "The operations must come as NDJSON, a line for each: the media type must be application/x-ndjson, in UTF-8.",
		"application/x-ndjson", "Accept-Post",
	}
)

// objectMedia is what a request that writes to one key may send.
func objectMedia(header string) *media {
	return &media{[]format{formatJSON}, "The media type must be application/json, in UTF-8.", "application/json", header}
}

// read looks at the media type of a body.
func (m *media) read(h http.Header) (format, error) {
	if f, known := formatOf(h.Get("Content-Type")); known && slices.Contains(m.formats, f) {
		return f, nil
	}
	first, _, _ := strings.Cut(m.types, ",")
	return 0, fault(codeUnsupportedMedia, "%s", m.detail).hint("Send the header Content-Type: "+first+".").header(m.header, m.types)
}

func formatOf(contentType string) (f format, known bool) {
	kind, params, err := mime.ParseMediaType(contentType)
	if charset := params["charset"]; err != nil || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return 0, false
	}
	switch kind {
	case "application/json":
		return formatJSON, true
	case "application/x-ndjson", "application/ndjson", "application/jsonl":
		return formatNDJSON, true
	case "text/csv":
		return formatCSV, params["header"] != "absent" // RFC 4180, section 3: there would be no names
	}
	return 0, false
}

// bodies keeps buffers for reuse.
var bodies bufferPool

type bufferPool struct{ pool sync.Pool }

// mostKept bounds what is kept of a request: not what one giant needed.
const mostKept = 16 << 20

func (p *bufferPool) Get() *bytes.Buffer {
	if b, ok := p.pool.Get().(*bytes.Buffer); ok {
		b.Reset()
		return b
	}
	return new(bytes.Buffer)
}

func (p *bufferPool) Put(b *bytes.Buffer) {
	if b.Cap() <= mostKept {
		p.pool.Put(b)
	}
}

// readBody reads all of it, at most limit bytes, and undoes its encoding, to at
// most decodedRatio times as many. The buffer goes back to the pool with
// bodies.Put.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, limit int64) (*bytes.Buffer, error) {
	encoding, err := readEncoding(r.Header)
	if err != nil {
		return nil, err
	}
	body, err := s.readWire(w, r, limit)
	if err != nil || encoding == "" || body.Len() == 0 {
		return body, err
	}
	defer bodies.Put(body)
	return decode(encoding, body.Bytes(), decodedRatio*limit)
}

// announced is how much room is made because a client says that so much will
// come: it may say so on many connections, and send nothing.
const announced = 256 << 10

// readWire reads the body as it was sent. It is read to its end before it is
// decoded, so that a slow client holds no decoder.
func (s *Server) readWire(w http.ResponseWriter, r *http.Request, limit int64) (*bytes.Buffer, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	buf := bodies.Get()
	if r.ContentLength > 0 {
		buf.Grow(int(min(r.ContentLength, announced)) + bytes.MinRead)
	}
	p := &patient{from: http.MaxBytesReader(w, r.Body, limit), control: http.NewResponseController(w), patience: s.patience, began: time.Now()}
	_, err := buf.ReadFrom(p)
	p.done(err, s.limits.Wait+writeTime)
	if err == nil {
		return buf, nil
	}
	read := buf.Len()
	bodies.Put(buf)
	var big *http.MaxBytesError
	var slow net.Error
	switch {
	case errors.As(err, &big):
		return nil, tooLarge(limit)
	case errors.As(err, &slow) && slow.Timeout():
		return nil, fault(codeRequestTimeout, "The body did not arrive in time.").header("Connection", "close")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fault(codeInvalidJSON, "The body ended at byte offset %d, before the length that was announced.", read)
	}
	return nil, fault(codeInvalidJSON, "The body could not be read beyond byte offset %d.", read)
}

func tooLarge(limit int64) error {
	return fault(codeBodyTooLarge, "The body is larger than %d bytes.", limit).
		hint("Send fewer rows at a time.").header("Connection", "close")
}

// decodedRatio is how many times the limit of a body its decoded form may be:
// rows of JSON shrink to between a fifth and a tenth.
const decodedRatio = 8

// decoder undoes an encoding.
type decoder interface {
	io.Reader
	Reset(r io.Reader) error
}

// decoders are kept for reuse: each holds tables and windows.
var decoders = map[string]*sync.Pool{
	"gzip": {New: func() any { return new(gzip.Reader) }},
	"zstd": {New: newZstd},
}

// newZstd takes windows up to what HTTP allows (RFC 9659), decodes in the
// caller's goroutine, and never ahead of what is read.
func newZstd() any {
	d, _ := zstd.NewReader(nil, zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderConcurrency(1), zstd.WithDecodeBuffersBelow(0)) // the only errors are of options
	return d
}

// readEncoding is the one encoding of the body, or "" for none.
func readEncoding(h http.Header) (string, error) {
	name := strings.ToLower(strings.TrimSpace(strings.Join(h.Values("Content-Encoding"), ",")))
	switch name {
	case "", "identity":
		return "", nil
	case "gzip", "zstd":
		return name, nil
	case "x-gzip": // RFC 9110, section 8.4.1.3
		return "gzip", nil
	}
	return "", fault(codeUnsupportedEncoding, "The content encoding %q is not supported.", clip(name)).
		hint("Encode the body once, with gzip or zstd, or not at all.").header("Accept-Encoding", "gzip, zstd, identity")
}

// decode undoes the encoding of wire. It stops at limit bytes, however many
// more there would be.
func decode(encoding string, wire []byte, limit int64) (*bytes.Buffer, error) {
	pool := decoders[encoding]
	d := pool.Get().(decoder) //nolint:forcetypeassert // the pools hold nothing else
	defer func() {
		_ = d.Reset(bytes.NewReader(nil)) // let go of wire
		pool.Put(d)
	}()
	err := d.Reset(bytes.NewReader(wire))
	buf := bodies.Get()
	if err == nil {
		err = fill(buf, d, int(limit))
	}
	if err == nil && int64(buf.Len()) <= limit {
		return buf, nil
	}
	bodies.Put(buf)
	if err == nil {
		return nil, fault(codeBodyTooLarge, "The body is larger than %d bytes once it is decoded.", limit).hint("Send fewer rows at a time.")
	}
	return nil, fault(codeBadEncoding, "The body is not whole and valid %s: %s.", encoding, err)
}

// fill reads r to its end or until it has given more than limit bytes. Unlike
// Buffer.ReadFrom it never makes room for more than that, so a bomb takes less
// than twice the limit.
func fill(buf *bytes.Buffer, r io.Reader, limit int) error {
	out := buf.AvailableBuffer()
	var err error
	for err == nil && len(out) <= limit {
		if len(out) == cap(out) {
			out = append(make([]byte, 0, min(2*len(out)+4096, limit+1)), out...)
		}
		var n int
		n, err = r.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
	}
	*buf = *bytes.NewBuffer(out)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
