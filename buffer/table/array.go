package table

import "bytes"

const maxDimensions = 6 // MAXDIM

// appendArray turns a JSON array into the text that array_out prints. Nested
// arrays are dimensions, and must be of equal size.
func (t *Type) appendArray(dst, raw []byte) ([]byte, error) {
	if raw[0] == '"' || t.Elem == nil {
		return dst, ErrJudge
	}
	if raw[0] != '[' {
		return dst, t.mismatch(raw, "an array")
	}
	w := arrayWriter{t: t}
	dst, err := w.level(dst, raw, 0)
	switch {
	case err != nil:
		return dst, err
	case w.judge:
		return dst, ErrJudge
	}
	return dst, nil
}

// arrayWriter walks an array as populate_array does: the first element that is
// not an array settles the number of dimensions.
type arrayWriter struct {
	t          *Type
	dims       [maxDimensions]int // size of each dimension plus one, 0 while unknown
	dimensions int                // 0 while unknown
	elements   int
	judge      bool // some element is for Postgres
}

// level writes the array raw, which lies depth levels deep.
func (w *arrayWriter) level(dst, raw []byte, depth int) ([]byte, error) {
	if depth == maxDimensions {
		return dst, refuse(codeInvalidValue, "An array has at most %d dimensions.", maxDimensions)
	}
	start := len(dst)
	dst = append(dst, '{')
	size := 0
	err := eachElement(raw, func(item []byte) error {
		if size > 0 {
			dst = append(dst, w.delim())
		}
		size++
		var err error
		dst, err = w.item(dst, item, depth)
		return err
	})
	if err != nil {
		return dst, err
	}
	if w.dimensions == 0 {
		w.dimensions = depth + 1
	}
	if w.dims[depth] == 0 {
		w.dims[depth] = size + 1
	}
	if w.dims[depth] != size+1 {
		return dst, errRagged
	}
	if depth == 0 && w.elements == 0 {
		return append(dst[:start], '{', '}'), nil
	}
	return append(dst, '}'), nil
}

var errRagged = refuse(codeInvalidValue, "The sub-arrays of an array must all have the same size and depth.")

func (w *arrayWriter) delim() byte {
	if w.t.Delim == 0 {
		return ','
	}
	return w.t.Delim
}

func (w *arrayWriter) item(dst, item []byte, depth int) ([]byte, error) {
	nested := item[0] == '['
	if !nested && w.dimensions == 0 {
		w.dimensions = depth + 1
	}
	switch {
	case nested && holdsDocuments(w.t.Elem):
		w.judge = true // a dimension or a document? Postgres decides
		return dst, nil
	case nested && (w.dimensions == 0 || depth+1 < w.dimensions):
		return w.level(dst, item, depth+1)
	case nested || depth+1 < w.dimensions:
		return dst, errRagged
	}
	w.elements++
	if item[0] == 'n' {
		return append(dst, "NULL"...), nil
	}
	start := len(dst)
	dst, err := w.t.Elem.appendValue(dst, item)
	if err == ErrJudge { //nolint:errorlint // never wrapped here
		w.judge = true
		return dst, nil
	}
	if err != nil {
		return dst, err
	}
	return quoteElement(dst, start, w.delim()), nil
}

// holdsDocuments reports whether a JSON array may be one element.
func holdsDocuments(t *Type) bool {
	for t.Kind == KindDomain && t.Base != nil {
		t = t.Base
	}
	return t.Kind == KindJSON || t.Kind == KindJSONB || t.Kind == KindArray
}

// quoteElement puts quotes around dst[start:] where array_out does: for
// nothing at all, the word NULL, and what has a meaning inside an array.
func quoteElement(dst []byte, start int, delim byte) []byte {
	s := dst[start:]
	quote := len(s) == 0 || equalFold(s, "null")
	for i := 0; i < len(s) && !quote; i++ {
		c := s[i]
		quote = c == '"' || c == '\\' || c == '{' || c == '}' || c == delim || isBlank(c)
	}
	if !quote {
		return dst
	}
	old := bytes.Clone(s)
	dst = append(dst[:start], '"')
	for _, c := range old {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}
