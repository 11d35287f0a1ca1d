package table

// A scanner for JSON that was already found to be valid: it looks only for
// where values end. On other input it stops with errNotJSON.

// eachElement calls f with every element of the array raw.
func eachElement(raw []byte, f func(item []byte) error) error {
	n := normaliser{src: raw}
	if !n.take('[') {
		return errNotJSON
	}
	if n.take(']') {
		return nil
	}
	for {
		item, err := n.skip()
		if err != nil {
			return err
		}
		if err := f(item); err != nil {
			return err
		}
		if n.take(']') {
			return nil
		}
		if !n.take(',') {
			return errNotJSON
		}
	}
}

// eachMember calls f with every name, unquoted, and value of the object raw.
func eachMember(raw []byte, f func(name, value []byte) error) error {
	n := normaliser{src: raw}
	if !n.take('{') {
		return errNotJSON
	}
	if n.take('}') {
		return nil
	}
	for {
		quoted, err := n.skip()
		if err != nil {
			return err
		}
		name, err := unquote(quoted)
		if err != nil {
			return err
		}
		if !n.take(':') {
			return errNotJSON
		}
		value, err := n.skip()
		if err != nil {
			return err
		}
		if err := f(name, value); err != nil {
			return err
		}
		if n.take('}') {
			return nil
		}
		if !n.take(',') {
			return errNotJSON
		}
	}
}

// skip steps over one value and returns it.
func (n *normaliser) skip() ([]byte, error) {
	n.space()
	start, depth := n.at, 0
	for n.at < len(n.src) {
		switch c := n.src[n.at]; c {
		case '"':
			if !n.skipString() {
				return nil, errNotJSON
			}
		case '{', '[':
			depth++
			n.at++
		case '}', ']':
			if depth == 0 {
				return nil, errNotJSON
			}
			depth--
			n.at++
		case ',', ':', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return nil, errNotJSON
			}
			n.at++
			continue
		default:
			n.skipWord()
		}
		if depth == 0 {
			return n.src[start:n.at], nil
		}
	}
	return nil, errNotJSON
}

func (n *normaliser) skipString() bool {
	for n.at++; n.at < len(n.src); n.at++ {
		switch n.src[n.at] {
		case '\\':
			n.at++
		case '"':
			n.at++
			return true
		}
	}
	return false
}

// skipWord steps over a number, true, false or null.
func (n *normaliser) skipWord() {
	for n.at < len(n.src) {
		switch n.src[n.at] {
		case ',', ':', '}', ']', '{', '[', '"', ' ', '\n', '\r', '\t':
			return
		}
		n.at++
	}
}

// depthOf is how deep a value is nested: 0 for a scalar.
func depthOf(raw []byte) int {
	depth, deepest, inside := 0, 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inside && c == '\\':
			i++
		case c == '"':
			inside = !inside
		case inside:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}
