package client

import (
	"encoding"
	"fmt"
	"net/url"
	"strings"
)

// Key is the primary key of a row: the texts of its columns, in key order.
type Key []string

// KeyOf makes a Key of strings, integers, or what has a MarshalText, such as
// uuid.UUID and time.Time. Other values are printed as fmt.Sprint does.
func KeyOf(values ...any) Key {
	k := make(Key, len(values))
	for i, v := range values {
		if m, ok := v.(encoding.TextMarshaler); ok {
			if text, err := m.MarshalText(); err == nil {
				k[i] = string(text)
				continue
			}
		}
		k[i] = fmt.Sprint(v)
	}
	return k
}

// String is the key as Headpond's answers show it: bare when it is one column,
// else percent-encoded and joined by commas.
func (k Key) String() string {
	if len(k) == 1 {
		return k[0]
	}
	return k.encoded()
}

func (k Key) encoded() string {
	parts := make([]string, len(k))
	for i, text := range k {
		parts[i] = url.PathEscape(text)
	}
	return strings.Join(parts, ",")
}

// keyOfLocation reads the key in the path of a row; nil when there is none.
func keyOfLocation(location string) Key {
	if location == "" {
		return nil
	}
	var k Key
	for part := range strings.SplitSeq(location[strings.LastIndexByte(location, '/')+1:], ",") {
		text, err := url.PathUnescape(part)
		if err != nil {
			return nil
		}
		k = append(k, text)
	}
	return k
}

func tablePath(table string) string { return "/v1/" + segment(url.PathEscape(table)) }

func rowPath(table string, k Key) string { return tablePath(table) + "/" + segment(k.encoded()) }

// segment escapes what has a meaning of its own in Headpond's paths: they are
// compared as they were sent.
func segment(encoded string) string {
	switch encoded {
	case "receipts", "_schema", "_bulk", "flush":
		return fmt.Sprintf("%%%02X%s", encoded[0], encoded[1:])
	}
	return encoded
}
