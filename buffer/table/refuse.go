package table

import (
	"fmt"
	"unicode/utf8"
)

// Codes of http-api.md that a value can be refused with.
const (
	codeTypeMismatch    = "type_mismatch"
	codeOutOfRange      = "out_of_range"
	codeTooLong         = "too_long"
	codeInvalidValue    = "invalid_value"
	codeInvalidDatetime = "invalid_datetime"
	codeNUL             = "nul_not_allowed"
	codeInvalidKey      = "invalid_key"
	codeBadKey          = "bad_key"
	codeInvalidJSON     = "invalid_json"
	codeInvalidUTF8     = "invalid_utf8"
	codeInvalidUnicode  = "invalid_unicode"
)

func refuse(code, format string, args ...any) *FieldError {
	return &FieldError{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// mismatch says what the type wants and what was given instead.
func (t *Type) mismatch(raw []byte, want string) error {
	return refuse(codeTypeMismatch, "A value of type %s must be %s, not %s.", t.Name, want, jsonKind(raw))
}

func (t *Type) outOfRange(raw []byte) error {
	return refuse(codeOutOfRange, "%s is out of range for type %s.", piece(raw), t.Name)
}

var errNUL = refuse(codeNUL, `The value holds \u0000, which Postgres cannot store in text.`)

// jsonKind names the kind of a JSON value for a person.
func jsonKind(raw []byte) string {
	if len(raw) == 0 {
		return "nothing"
	}
	switch raw[0] {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "an array"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "the number " + piece(raw)
}

// piece is the beginning of a value, short enough for a message.
func piece(s []byte) string {
	const most = 40
	if len(s) <= most {
		return string(s)
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return string(s[:cut]) + "…"
}
