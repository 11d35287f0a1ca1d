package table

import "bytes"

// appendArrayJSON reads the text that array_out prints. Lower bounds, as in
// [2:3]={1,2}, have no place in JSON.
func (t *Type) appendArrayJSON(dst, text []byte) (out []byte, ok bool) {
	if t.Elem == nil {
		return dst, false
	}
	if len(text) > 0 && text[0] == '[' {
		i := bytes.IndexByte(text, '=')
		if i < 0 {
			return dst, false
		}
		text = text[i+1:]
	}
	r := arrayReader{elem: t.Elem, delim: t.Delim, rest: text}
	if r.delim == 0 {
		r.delim = ','
	}
	dst, ok = r.level(dst)
	return dst, ok && len(r.rest) == 0
}

type arrayReader struct {
	elem    *Type
	delim   byte
	rest    []byte
	scratch []byte
}

func (r *arrayReader) take(c byte) bool {
	if len(r.rest) > 0 && r.rest[0] == c {
		r.rest = r.rest[1:]
		return true
	}
	return false
}

func (r *arrayReader) level(dst []byte) (out []byte, ok bool) {
	if !r.take('{') {
		return dst, false
	}
	dst = append(dst, '[')
	if r.take('}') {
		return append(dst, ']'), true
	}
	for {
		if len(r.rest) > 0 && r.rest[0] == '{' {
			dst, ok = r.level(dst)
		} else {
			dst, ok = r.element(dst)
		}
		if !ok {
			return dst, false
		}
		if r.take('}') {
			return append(dst, ']'), true
		}
		if !r.take(r.delim) {
			return dst, false
		}
		dst = append(dst, ',', ' ')
	}
}

func (r *arrayReader) element(dst []byte) (out []byte, ok bool) {
	if r.take('"') {
		return r.quoted(dst)
	}
	end := 0
	for end < len(r.rest) && r.rest[end] != r.delim && r.rest[end] != '}' {
		end++
	}
	text := r.rest[:end]
	r.rest = r.rest[end:]
	if string(text) == "NULL" {
		return append(dst, "null"...), true
	}
	return r.elem.AppendJSON(dst, text), true
}

func (r *arrayReader) quoted(dst []byte) (out []byte, ok bool) {
	r.scratch = r.scratch[:0]
	for i := 0; i < len(r.rest); i++ {
		switch c := r.rest[i]; {
		case c == '"':
			r.rest = r.rest[i+1:]
			return r.elem.AppendJSON(dst, r.scratch), true
		case c == '\\' && i+1 < len(r.rest):
			i++
			r.scratch = append(r.scratch, r.rest[i])
		default:
			r.scratch = append(r.scratch, c)
		}
	}
	return dst, false
}
