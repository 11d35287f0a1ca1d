package table

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// AppendCanonical appends the text that Postgres prints for one JSON value
// (not null) once it is stored in a column of this type, the modifier applied
// as an assignment applies it.
//
// The error is ErrJudge when only Postgres can tell, or a *FieldError without
// its Column. dst is then returned as it was. Safe for concurrent use.
func (t *Type) AppendCanonical(dst []byte, raw jsontext.Value) ([]byte, error) {
	value := trimSpace(raw)
	if len(value) == 0 {
		return dst, refuse(codeInvalidJSON, "There is no value.")
	}
	if !utf8.Valid(value) {
		return dst, refuse(codeInvalidUTF8, "The value is not valid UTF-8.")
	}
	out, err := t.appendValue(dst, value)
	if err != nil {
		return dst, ownError(err)
	}
	return out, nil
}

// ownError copies a *FieldError: the caller will write its Column, and some
// are shared.
func ownError(err error) error {
	if bad, ok := err.(*FieldError); ok { //nolint:errorlint // never wrapped here
		own := *bad
		return &own
	}
	return err
}

// appendValue may leave rubbish after dst when it fails.
func (t *Type) appendValue(dst, raw []byte) ([]byte, error) {
	switch t.Kind {
	case KindBool:
		return t.appendBool(dst, raw)
	case KindInt2:
		return t.appendInt(dst, raw, 16)
	case KindInt4:
		return t.appendInt(dst, raw, 32)
	case KindInt8:
		return t.appendInt(dst, raw, 64)
	case KindFloat4, KindFloat8:
		return t.appendFloat(dst, raw)
	case KindNumeric:
		return t.appendNumeric(dst, raw)
	case KindText, KindVarchar, KindBpchar:
		return t.appendString(dst, raw)
	case KindUUID:
		return t.appendWord(dst, raw, appendUUID)
	case KindDate, KindTimestamp, KindTimestamptz:
		return t.appendWord(dst, raw, t.appendDatetime)
	case KindBytea:
		return t.appendWord(dst, raw, appendBytea)
	case KindEnum:
		return t.appendWord(dst, raw, t.appendLabel)
	case KindJSON:
		return appendVerbatimJSON(dst, raw)
	case KindJSONB:
		return appendJSONB(dst, raw)
	case KindArray:
		return t.appendArray(dst, raw)
	case KindComposite:
		return t.judgeComposite(dst, raw)
	case KindDomain:
		return t.judgeDomain(dst, raw)
	}
	return dst, t.judgeOther(raw)
}

func (t *Type) appendBool(dst, raw []byte) ([]byte, error) {
	switch string(raw) {
	case "true":
		return append(dst, 't'), nil
	case "false":
		return append(dst, 'f'), nil
	}
	return dst, t.mismatch(raw, "true or false")
}

// appendWord reads types that are given as a string.
func (t *Type) appendWord(dst, raw []byte, read func(dst, s []byte) ([]byte, error)) ([]byte, error) {
	if raw[0] != '"' {
		return dst, t.mismatch(raw, "a string")
	}
	s, err := unquote(raw)
	if err != nil {
		return dst, err
	}
	return read(dst, s)
}

func (t *Type) appendLabel(dst, s []byte) ([]byte, error) {
	for _, label := range t.Labels {
		if label == string(s) {
			return append(dst, label...), nil
		}
	}
	return dst, refuse(codeInvalidValue, "%q is not a label of %s; its labels are %s.", piece(s), t.Name, t.someLabels())
}

func (t *Type) someLabels() string {
	const few = 5
	var b bytes.Buffer
	for i, label := range t.Labels {
		if i == few {
			b.WriteString(" and others")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(label)
	}
	return b.String()
}

// judgeDomain: a value that the base type refuses is refused by the domain
// too; the domain's own checks are for Postgres.
func (t *Type) judgeDomain(dst, raw []byte) ([]byte, error) {
	if t.Base != nil {
		if _, err := t.Base.appendValue(dst, raw); err != nil {
			return dst, err
		}
	}
	return dst, ErrJudge
}

// judgeComposite refuses what Postgres would pass over in silence: fields that
// the type does not have, and values that a field's type does not take.
func (t *Type) judgeComposite(dst, raw []byte) ([]byte, error) {
	if raw[0] == '"' {
		return dst, ErrJudge
	}
	if raw[0] != '{' {
		return dst, t.mismatch(raw, "an object")
	}
	err := eachMember(raw, func(name, value []byte) error {
		for i := range t.Fields {
			if t.Fields[i].Name != string(name) {
				continue
			}
			if value[0] == 'n' {
				return nil
			}
			_, err := t.Fields[i].Type.appendValue(dst, value)
			return inField(t.Fields[i].Name, err)
		}
		return refuse(codeInvalidValue, "The type %s has no field %q.", t.Name, piece(name))
	})
	if err != nil {
		return dst, err
	}
	return dst, ErrJudge
}

func inField(name string, err error) error {
	var bad *FieldError
	if errors.As(err, &bad) {
		return refuse(bad.Code, "In the field %s: %s", name, bad.Detail)
	}
	return nil
}

// judgeOther leaves strings to Postgres, and numbers for the likes of money and oid.
func (t *Type) judgeOther(raw []byte) error {
	switch raw[0] {
	case '{', '[', 't', 'f':
		return t.mismatch(raw, "a string")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		if strings.HasPrefix(t.Name, "interval") {
			return t.mismatch(raw, "a string") // 5 would be five seconds
		}
	case '"':
		if _, err := unquote(raw); err != nil {
			return err
		}
	}
	return ErrJudge
}
