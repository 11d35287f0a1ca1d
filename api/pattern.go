package api

import (
	"fmt"
	"regexp"
	"unicode/utf8"

	"github.com/headpond/headpond/buffer/table"
)

// cachePattern chooses rows of the cache: a glob over the names of tables, and one over
// keys.
type cachePattern struct{ tables, keys *regexp.Regexp }

// parsePattern cuts at the first colon that is not escaped.
func parsePattern(pattern string) (p cachePattern, ok bool) {
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '\\':
			i++
		case ':':
			p.tables, p.keys = compileGlob(pattern[:i]), compileGlob(pattern[i+1:])
			return p, p.tables != nil && p.keys != nil
		}
	}
	return p, false
}

// key reports whether the pattern takes a key of t, as answers show it: bare when it is
// one column.
func (p cachePattern) key(t *table.Table, key string) bool {
	if cells, ok := t.KeyCells(key); ok && len(cells) == 1 {
		return p.keys.Match(cells[0].Text)
	}
	return p.keys.MatchString(key)
}

// compileGlob reads a glob as Redis has them (KEYS, in its documentation), over
// characters instead of bytes. Nil when it is empty, or has a class without an end or a
// backslash before nothing, which Redis takes for something else in silence.
func compileGlob(glob string) *regexp.Regexp {
	if glob == "" || !utf8.ValidString(glob) {
		return nil
	}
	out := []byte(`(?s)\A`)
	for rest := []rune(glob); len(rest) > 0; {
		c := rest[0]
		rest = rest[1:]
		switch c {
		case '*':
			out = append(out, ".*"...)
			continue
		case '?':
			out = append(out, '.')
			continue
		case '[':
			if out, rest = appendClass(out, rest); rest == nil {
				return nil
			}
			continue
		case '\\':
			if len(rest) == 0 {
				return nil
			}
			c, rest = rest[0], rest[1:]
		}
		out = fmt.Appendf(out, `\x{%X}`, c)
	}
	re, err := regexp.Compile(string(out) + `\z`)
	if err != nil { // it is too large
		return nil
	}
	return re
}

// appendClass reads what follows a [, and gives what follows its ]; nil when there is
// none.
func appendClass(out []byte, rest []rune) (_ []byte, after []rune) {
	out = append(out, '[')
	if len(rest) > 0 && rest[0] == '^' {
		out, rest = append(out, '^'), rest[1:]
	}
	out = append(out, `\x00`...) // in no key; a class of nothing is none of regexp's
	for len(rest) > 0 {
		switch {
		case rest[0] == ']':
			return append(out, ']'), rest[1:]
		case rest[0] == '\\' && len(rest) > 1:
			out = fmt.Appendf(out, `\x{%X}`, rest[1])
			rest = rest[2:]
		case len(rest) > 2 && rest[1] == '-':
			out = fmt.Appendf(out, `\x{%X}-\x{%X}`, min(rest[0], rest[2]), max(rest[0], rest[2]))
			rest = rest[3:]
		default:
			out = fmt.Appendf(out, `\x{%X}`, rest[0])
			rest = rest[1:]
		}
	}
	return out, nil
}
