package api

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync"
)

// format of a body.
type format int

const (
	formatJSON format = iota
	formatNDJSON
)

// readFormat looks at the media type and the encoding.
func readFormat(h http.Header) (format, error) {
	for _, enc := range h.Values("Content-Encoding") {
		if enc = strings.TrimSpace(enc); enc != "" && !strings.EqualFold(enc, "identity") {
			return 0, fault(codeUnsupportedEncoding, "The content encoding %q is not supported.", clip(enc)).
				header("Accept-Encoding", "identity")
		}
	}
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if charset := params["charset"]; err == nil && (charset == "" || strings.EqualFold(charset, "utf-8")) {
		switch kind {
		case "application/json":
			return formatJSON, nil
		case "application/x-ndjson", "application/ndjson", "application/jsonl":
			return formatNDJSON, nil
		}
	}
	return 0, fault(codeUnsupportedMedia, "The media type must be application/json or application/x-ndjson, in UTF-8.").
		hint("Send the header Content-Type: application/json.").header("Accept-Post", "application/json, application/x-ndjson")
}

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// readBody reads all of it, at most limit bytes. The buffer goes back to the
// pool with bodies.Put.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) (*bytes.Buffer, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	buf := bodies.Get().(*bytes.Buffer) //nolint:forcetypeassert // the pool holds nothing else
	buf.Reset()
	if r.ContentLength > 0 {
		buf.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		return buf, nil
	}
	bodies.Put(buf)
	var big *http.MaxBytesError
	var slow net.Error
	switch {
	case errors.As(err, &big):
		return nil, tooLarge(limit)
	case errors.As(err, &slow) && slow.Timeout():
		return nil, fault(codeRequestTimeout, "The body did not arrive in time.").header("Connection", "close")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fault(codeInvalidJSON, "The body ended before the length that was announced.")
	}
	return nil, fault(codeInvalidJSON, "The body could not be read.")
}

func tooLarge(limit int64) error {
	return fault(codeBodyTooLarge, "The body is larger than %d bytes.", limit).
		hint("Send fewer rows at a time.").header("Connection", "close")
}
