package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/trace"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// A code is the stable name of what went wrong: clients may match on it.
type code string

const (
	codeTableNotFound       code = "table_not_found"
	codeTableNotUsable      code = "table_not_usable"
	codeRowNotFound         code = "row_not_found"
	codeReceiptNotFound     code = "receipt_not_found"
	codeReceiptGone         code = "receipt_gone"
	codeNotFound            code = "not_found"
	codeMethodNotAllowed    code = "method_not_allowed"
	codeNoPrimaryKey        code = "no_primary_key"
	codeRowExists           code = "row_exists"
	codeInvalidJSON         code = "invalid_json"
	codeInvalidJSONShape    code = "invalid_json_shape"
	codeInvalidCSV          code = "invalid_csv"
	codeBadEncoding         code = "bad_encoding"
	codeEmptyBody           code = "empty_body"
	codeEmptyBatch          code = "empty_batch"
	codeBadPreference       code = "bad_preference"
	codeBadFilter           code = "bad_filter"
	codeInvalidRows         code = "invalid_rows"
	codeBodyTooLarge        code = "body_too_large"
	codeBatchTooLarge       code = "batch_too_large"
	codeUnsupportedMedia    code = "unsupported_media_type"
	codeUnsupportedEncoding code = "unsupported_encoding"
	codeRequestTimeout      code = "request_timeout"
	codeBufferUnavailable   code = "buffer_unavailable"
	codeStoreUnavailable    code = "store_unavailable"
	codeBacklogFull         code = "backlog_full"
	codeDraining            code = "draining"
	codeOutcomeUnknown      code = "outcome_unknown"
	codeNotCached           code = "not_cached"
	codeFlushTimeout        code = "flush_timeout"
	codeDeadLettered        code = "dead_lettered"
	codeInternal            code = "internal"
	codeVersionMismatch     code = "version_mismatch"
	codeKeyMismatch         code = "key_mismatch"
	codeNotNumeric          code = "not_numeric"
	codeInvalidKey          code = "invalid_key"
	codeIdempotencyReused   code = "idempotency_key_reused"
	codeBadIdempotencyKey   code = "bad_idempotency_key"
	codeRefused             code = "refused"
	codeBadPattern          code = "bad_pattern"
	codeRowPending          code = "row_pending"
	codeLetterNotFound      code = "dead_letter_not_found"
	codeLetterParked        code = "dead_letter_parked"
	codeRateLimited         code = "rate_limited"
	codeTooManyConnections  code = "too_many_connections"
	codeTooManyStreams      code = "too_many_streams"
	codeReadOnly            code = "read_only"
	codeCrossOrigin         code = "cross_origin"
	codeNoLocalFlusher      code = "no_local_flusher"
)

// statuses maps every code to its HTTP status; what is not listed is 422.
var statuses = map[code]int{
	codeTableNotFound: 404, codeRowNotFound: 404, codeReceiptNotFound: 404, codeNotFound: 404, codeReceiptGone: 410,
	codeMethodNotAllowed: 405, codeRequestTimeout: 408, codeVersionMismatch: 412,
	codeLetterNotFound: 404, codeLetterParked: 409,
	codeTableNotUsable: 409, codeNoPrimaryKey: 409, codeRowExists: 409, codeRowPending: 409,
	codeInvalidJSON: 400, codeInvalidJSONShape: 400, codeInvalidCSV: 400, "invalid_utf8": 400, "invalid_unicode": 400,
	"duplicate_field": 400, "too_deep": 400, codeEmptyBody: 400, codeEmptyBatch: 400,
	"bad_key": 400, codeBadIdempotencyKey: 400, codeBadPreference: 400, codeBadEncoding: 400, codeBadFilter: 400, codeBadPattern: 400,
	codeBodyTooLarge: 413, codeBatchTooLarge: 413,
	codeUnsupportedMedia: 415, codeUnsupportedEncoding: 415,
	codeRateLimited: 429, codeTooManyConnections: 503, codeTooManyStreams: 503,
	codeReadOnly: 403, codeCrossOrigin: 403, codeNoLocalFlusher: 404,
	codeBufferUnavailable: 503, codeStoreUnavailable: 503, codeBacklogFull: 503, codeDraining: 503,
	codeOutcomeUnknown: 504, codeNotCached: 504, codeFlushTimeout: 504, codeInternal: 500,
}

func (c code) status() int {
	if s, ok := statuses[c]; ok {
		return s
	}
	return http.StatusUnprocessableEntity
}

// Problem is an error as the client sees it (RFC 9457).
type Problem struct {
	Code    code
	Detail  string
	Hint    string
	Applied string // "no" unless it may have been applied: "unknown"
	Errors  []ProblemItem
	Headers map[string]string
}

// ProblemItem is what is wrong with one column of one row.
type ProblemItem struct {
	Index   *int   `json:"index,omitempty"`
	Pointer string `json:"pointer"`
	Code    string `json:"code"`
	Detail  string `json:"detail"`
}

func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }

func fault(c code, format string, args ...any) *Problem {
	return &Problem{Code: c, Detail: fmt.Sprintf(format, args...), Applied: "no"}
}

func (p *Problem) hint(h string) *Problem {
	p.Hint = h
	return p
}

func (p *Problem) header(name, value string) *Problem {
	if p.Headers == nil {
		p.Headers = make(map[string]string)
	}
	p.Headers[name] = value
	return p
}

// with gives the same problem with what is wrong with rows.
func (p *Problem) with(items []ProblemItem) *Problem {
	more := *p
	more.Errors = items
	return &more
}

// problemOf turns any error into what the client may know of it.
func problemOf(err error) *Problem {
	var p *Problem
	var full *buffer.BacklogFull
	var http *echo.HTTPError
	var bad *table.JSONError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &bad):
		return fault(code(bad.Code), "%s", bad.Detail)
	case errors.As(err, &full):
		return fullProblem(full)
	case errors.Is(err, buffer.ErrDraining):
		return fault(codeDraining, "This process is shutting down. Nothing was applied.").header("Retry-After", "1").header("Connection", "close")
	case errors.Is(err, buffer.ErrSwitched):
		return fault(codeBufferUnavailable, "The strategy of this table was changed a moment ago. Nothing was applied.").header("Retry-After", "1")
	case errors.Is(err, buffer.ErrUnavailable):
		return fault(codeBufferUnavailable, "The buffer cannot take or give data now.").header("Retry-After", "1")
	case errors.Is(err, buffer.ErrOutcomeUnknown):
		p = fault(codeOutcomeUnknown, "Redis did not answer in time: the write may or may not have been applied.").
			hint("Repeat the request with the same Idempotency-Key; without one, look which rows are there before you repeat.")
		p.Applied = "unknown"
		return p
	case errors.As(err, &http):
		return routing(http)
	}
	return fault(codeInternal, "Something went wrong inside Headpond; its log says more under this trace id.")
}

func routing(e *echo.HTTPError) *Problem {
	switch e.Code {
	case http.StatusNotFound:
		return fault(codeNotFound, "There is nothing at this path.").hint("GET /v1 lists the tables.")
	case http.StatusMethodNotAllowed:
		return fault(codeMethodNotAllowed, "This path does not take this method.")
	case http.StatusRequestEntityTooLarge:
		return fault(codeBodyTooLarge, "The body is too large.")
	}
	return fault(codeInternal, "The request could not be handled.")
}

// sent marks a request whose rows were perhaps handed to Redis: from then on
// nobody can say of an unforeseen error that nothing was applied.
const sent = "sent"

// onError is the one place where errors become HTTP.
func (s *Server) onError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	p := problemOf(err)
	status := p.Code.status()
	id := traceID(c.Request())
	if p.Code == codeInternal && c.Get(sent) != nil {
		mine := *p // other requests may have the same one
		mine.Applied, p = "unknown", &mine
	}
	if p.Code == codeInternal && !errors.Is(err, context.Canceled) { // the client is gone: no failure of ours
		s.log.Error("request failed", "method", c.Request().Method, "path", c.Path(), "trace_id", id, "error", err)
	}
	if span := trace.SpanFromContext(c.Request().Context()); span.IsRecording() {
		span.SetAttributes(semconv.ErrorTypeKey.String(string(p.Code)))
	}
	h := c.Response().Header()
	for name, value := range p.Headers {
		h.Set(name, value)
	}
	h.Set(echo.HeaderContentType, "application/problem+json")
	if c.Request().Method == http.MethodHead {
		_ = c.NoContent(status)
		return
	}
	body := p.body(id)
	h.Set(echo.HeaderContentLength, strconv.Itoa(len(body)))
	c.Response().WriteHeader(status)
	_, _ = c.Response().Write(body)
}

// body of the answer.
func (p *Problem) body(traceID string) []byte {
	status := p.Code.status()
	body, _ := json.Marshal(struct {
		Type    string        `json:"type"`
		Title   string        `json:"title"`
		Status  int           `json:"status"`
		Detail  string        `json:"detail"`
		Code    code          `json:"code"`
		Hint    string        `json:"hint,omitempty"`
		TraceID string        `json:"trace_id"`
		Applied string        `json:"applied"`
		Errors  []ProblemItem `json:"errors,omitempty"`
	}{
		Type: "about:blank", Title: http.StatusText(status), Status: status,
		Detail: p.Detail, Code: p.Code, Hint: p.Hint, TraceID: traceID, Applied: p.Applied, Errors: p.Errors,
	})
	return append(body, '\n')
}

// pointer is the JSON pointer (RFC 6901) to a column, of a row of many when
// index is not negative.
func pointer(index int, column string) string {
	var b strings.Builder
	if index >= 0 {
		b.WriteString("/" + strconv.Itoa(index))
	}
	if column != "" {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(column))
	}
	return b.String()
}
