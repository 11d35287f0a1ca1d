package table

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// JSONError is what is wrong with a body as JSON, whatever the table.
type JSONError struct {
	Code   string // of http-api.md: invalid_json, invalid_json_shape, invalid_utf8, invalid_unicode, duplicate_field, too_deep
	Detail string // a full sentence
	Offset int64  // byte of the decoder's input at which, or after which, it is
	cause  error
}

func (e *JSONError) Error() string { return e.Detail }

func (e *JSONError) Unwrap() error { return e.cause }

// AsJSONError turns an error of a jsontext.Decoder into a *JSONError. Errors of
// the reader beneath, such as a timeout, stay as they are.
func AsJSONError(err error) error { return jsonError(err, nil, 0) }

// decoderError is AsJSONError for an error that dec has just returned: what
// lies at the error's offset tells more than its message.
func decoderError(dec *jsontext.Decoder, err error) error {
	return jsonError(err, dec.UnreadBuffer(), dec.InputOffset())
}

// jsonError looks into unread, whose first byte is at offset base of the input.
func jsonError(err error, unread []byte, base int64) error {
	var known *JSONError
	var bad *jsontext.SyntacticError
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, io.EOF):
		return &JSONError{Code: codeInvalidJSON, Detail: "The JSON value is missing: the input has ended.", Offset: base, cause: err}
	case !errors.As(err, &bad):
		return err
	}
	out := &JSONError{Code: codeInvalidJSON, Offset: bad.ByteOffset, cause: err}
	at := culprit(bad)
	if i := bad.ByteOffset - base; unread != nil && i >= 0 && i <= int64(len(unread)) {
		at = unread[i:]
		if depthOf(unread[:i]) >= maxDepth {
			return tooDeep(base)
		}
	}
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		out.Code = "duplicate_field"
		out.Detail = fmt.Sprintf("The name %q is given twice in one object, at byte offset %d.", piece([]byte(bad.JSONPointer.LastToken())), out.Offset)
	case errors.Is(err, io.ErrUnexpectedEOF):
		out.Detail = fmt.Sprintf("The JSON ends too early, at byte offset %d.", out.Offset)
	case errors.Is(err, errUTF8):
		out.Code = codeInvalidUTF8
		out.Detail = fmt.Sprintf("The JSON is not valid UTF-8 at byte offset %d.", out.Offset)
	case isSurrogate(at):
		out.Code = codeInvalidUnicode
		out.Detail = fmt.Sprintf("There is one half of a surrogate pair at byte offset %d.", out.Offset)
	default:
		out.Detail = fmt.Sprintf("The JSON is not valid at byte offset %d: %s.", out.Offset, strings.ToValidUTF8(bad.Err.Error(), "?"))
	}
	return out
}

// errUTF8 is jsontext's error for invalid UTF-8, which it does not export.
var errUTF8 = func() error {
	_, err := jsontext.AppendUnquote(nil, "\"\xff\"")
	return errors.Unwrap(err)
}()

// isSurrogate reports whether s begins with the escape of a surrogate.
func isSurrogate(s []byte) bool {
	r, ok := readUnit(s)
	return ok && utf16.IsSurrogate(r)
}

// culprit is the escape that the message of an error shows, maybe quoted once
// more: all there is without the decoder.
func culprit(e *jsontext.SyntacticError) []byte {
	shown := strings.ReplaceAll(e.Err.Error(), `\\`, `\`)
	return []byte(shown[max(strings.Index(shown, `\u`), 0):])
}

func tooDeep(offset int64) *JSONError {
	return &JSONError{
		Code: "too_deep", Offset: offset,
		Detail: fmt.Sprintf("The row is nested more than %d levels deep, in the value at byte offset %d.", maxDepth, offset),
	}
}

// notAnObject says what came instead of a row, once it is known to be JSON.
func notAnObject(dec *jsontext.Decoder) error {
	kind := dec.PeekKind()
	if err := dec.SkipValue(); err != nil {
		return decoderError(dec, err)
	}
	return &JSONError{
		Code: "invalid_json_shape", Offset: dec.InputOffset(),
		Detail: fmt.Sprintf("A row must be a JSON object, not %s; it ends at byte offset %d.", kindName(kind), dec.InputOffset()),
	}
}

func kindName(k jsontext.Kind) string {
	if k == '0' {
		return "a number"
	}
	return jsonKind(utf8.AppendRune(nil, rune(k)))
}
