package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Code names what went wrong. Headpond's codes are stable, and there are more
// than are listed here: its OpenAPI document has all. A Code is itself an
// error, so that errors.Is(err, ErrRowNotFound) finds it in an Error.
type Code string

func (c Code) Error() string { return string(c) }

// Codes that programs act upon.
const (
	ErrTableNotFound        Code = "table_not_found"
	ErrRowNotFound          Code = "row_not_found"
	ErrReceiptNotFound      Code = "receipt_not_found"
	ErrReceiptGone          Code = "receipt_gone" // it cannot be told any more
	ErrRowExists            Code = "row_exists"
	ErrVersionMismatch      Code = "version_mismatch" // IfMatch or IfNoneMatch did not hold
	ErrInvalidRows          Code = "invalid_rows"     // Errors says which; nothing was applied
	ErrDeadLettered         Code = "dead_lettered"    // accepted, and then refused by Postgres
	ErrRefused              Code = "refused"          // by Postgres, of a table that is written directly
	ErrIdempotencyKeyReused Code = "idempotency_key_reused"
	ErrBodyTooLarge         Code = "body_too_large"
	ErrBatchTooLarge        Code = "batch_too_large"
	ErrUnauthorized         Code = "unauthorized"
	ErrForbidden            Code = "forbidden"
	ErrRateLimited          Code = "rate_limited"
	ErrBacklogFull          Code = "backlog_full" // Postgres is not keeping up
	ErrBufferUnavailable    Code = "buffer_unavailable"
	ErrStoreUnavailable     Code = "store_unavailable" // Postgres cannot be asked
	ErrDraining             Code = "draining"
	ErrOutcomeUnknown       Code = "outcome_unknown"
	ErrFlushTimeout         Code = "flush_timeout" // Errors says what is left
)

// Codes that the client makes.
const (
	ErrNoAnswer     Code = "no_answer"     // no connection, a broken one, or the context ended
	ErrBadAnswer    Code = "bad_answer"    // not from Headpond: from a proxy, say
	ErrSomeRejected Code = "some_rejected" // some of many rows were accepted; Errors says which were not
)

// What is known of a write that failed.
const (
	AppliedNo      = "no"      // nothing was applied
	AppliedSome    = "some"    // of many rows, all but those in Errors; of ErrOutcomeUnknown there it is not known
	AppliedUnknown = "unknown" // perhaps; a repeat with the same IdempotencyKey is safe
)

// Error is what the server refused or did not answer. errors.Is finds its Code,
// and the cause of ErrNoAnswer: context.DeadlineExceeded, for example.
type Error struct {
	Status     int           `json:"status"` // 0 when there was no answer
	Code       Code          `json:"code"`
	Detail     string        `json:"detail"`
	Hint       string        `json:"hint"`
	TraceID    string        `json:"trace_id"`
	Applied    string        `json:"applied"` // see AppliedNo
	Errors     []ItemError   `json:"errors"`  // at most 1,000
	RetryAfter time.Duration `json:"-"`       // what the last answer asked for
	Attempts   int           `json:"-"`       // how often the request was sent

	cause error
}

// ItemError is what is wrong with one column of one row.
type ItemError struct {
	Index   int    `json:"index"`   // which row or operation of many, from 0
	Pointer string `json:"pointer"` // JSON pointer into the request, /17/amount
	Code    Code   `json:"code"`
	Detail  string `json:"detail"`
}

// Error gives code, detail, and what helps to find the request in a log.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("headpond: " + string(e.Code) + ": " + e.Detail)
	if len(e.Errors) > 0 && e.Detail != e.Errors[0].Detail {
		fmt.Fprintf(&b, " First: %s: %s: %s", e.Errors[0].Pointer, e.Errors[0].Code, e.Errors[0].Detail)
	}
	fmt.Fprintf(&b, " (status=%d applied=%s attempts=%d", e.Status, e.Applied, e.Attempts)
	if e.TraceID != "" {
		b.WriteString(" trace_id=" + e.TraceID)
	}
	b.WriteByte(')')
	return b.String()
}

// Unwrap gives the code and the cause.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.Code}
	}
	return []error{e.Code, e.cause}
}

// temporary reports whether the same request may succeed later.
func (e *Error) temporary() bool {
	switch e.Status {
	case 0:
		return !errors.Is(e.cause, context.Canceled)
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable:
		return true
	case http.StatusGatewayTimeout:
		return e.Code != ErrFlushTimeout
	case http.StatusMultiStatus:
		return slices.ContainsFunc(e.Errors, func(i ItemError) bool { return i.Code.temporary() })
	}
	return false
}

// temporary reports whether a row that was rejected so may be accepted later.
func (c Code) temporary() bool {
	switch c {
	case ErrBacklogFull, ErrBufferUnavailable, ErrStoreUnavailable, ErrDraining, ErrOutcomeUnknown:
		return true
	}
	return false
}

// final reports whether the answer is kept under the Idempotency-Key: all that
// were sent under it get the same. What is refused before the key is looked at,
// such as a row of a wrong type, is not.
func (e *Error) final() bool {
	switch e.Code {
	case ErrRowExists, ErrRowNotFound, ErrVersionMismatch, ErrDeadLettered:
		return true
	}
	return false
}

// noAnswer is the error of an attempt that was not answered.
func noAnswer(err error, sent bool) *Error {
	e := &Error{Code: ErrNoAnswer, Detail: err.Error() + ".", Applied: AppliedNo, cause: err}
	if sent {
		e.Applied = AppliedUnknown
	}
	return e
}

// dialling reports whether err is of a connection that was not made.
func dialling(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func badAnswer(status int, detail string) *Error {
	return &Error{Status: status, Code: ErrBadAnswer, Detail: detail, Applied: AppliedUnknown}
}

const mostShown = 200 // bytes of an answer that is not Headpond's

// refusal reads an answer that is no success. One that is not Headpond's comes
// from something in between: below 500 it did not pass the request on.
func refusal(status int, header http.Header, body []byte) *Error {
	e := &Error{}
	kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	if kind != "application/problem+json" || json.Unmarshal(body, e) != nil || e.Code == "" {
		text := strings.ToValidUTF8(string(body[:min(len(body), mostShown)]), "")
		e = badAnswer(status, strings.TrimSpace(http.StatusText(status)+": "+text))
		if status < http.StatusInternalServerError {
			e.Applied = AppliedNo
		}
	}
	if e.Applied == "" {
		e.Applied = AppliedUnknown
	}
	e.Status = status
	e.RetryAfter = retryAfter(header.Get("Retry-After"), time.Now())
	return e
}

// retryAfter reads seconds or a date (RFC 9110, 10.2.3); 0 when there is none.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second //nolint:gosec // 31 bits
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
