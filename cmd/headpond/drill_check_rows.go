package main

import (
	"cmp"
	"maps"
	"slices"
)

// checkRows: each row is what the writes to its key make of it in the order of
// their receipts.
func (v *drillVerdict) checkRows(writes []*drillWrite, f *drillFound) {
	keys := make(map[int64][]*drillWrite)
	known := make(map[drillToken]*drillWrite, len(writes))
	for _, w := range writes {
		keys[w.Key] = append(keys[w.Key], w)
		known[w.drillToken] = w
	}
	for key, row := range f.Rows {
		for _, t := range []drillToken{row.Put, row.Patch} {
			if w := known[t]; t != (drillToken{}) && (w == nil || w.Key != key || w.Outcome == drillNo) {
				v.Phantoms++
				v.problem("phantom: row %d is of the write %v, which was refused or never sent to it", key, t)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		v.checkRow(key, keys[key], f.Rows[key])
	}
}

func (v *drillVerdict) checkRow(key int64, writes []*drillWrite, found drillRow) {
	ordered, loose := inOrder(writes)
	var want drillRow
	for _, w := range ordered {
		want = want.after(w)
	}
	for _, w := range loose {
		if w.Outcome == drillUnknown {
			v.doubtful(w.drillToken == found.Put || w.drillToken == found.Patch)
		}
	}
	if !mustBeThere(ordered, loose, found) && (found == want || loosely(loose, want, found)) {
		return
	}
	v.Lost++
	v.problem("lost: row %d should be put %v, patch %v (or one of %d others) and is put %v, patch %v",
		key, want.Put, want.Patch, len(loose), found.Put, found.Patch)
}

// inOrder gives the acknowledged writes by their receipts, and beside them
// those whose place nobody knows: the unknown ones and those of a request of
// many rows.
func inOrder(writes []*drillWrite) (ordered, loose []*drillWrite) {
	for _, w := range writes {
		switch {
		case w.Outcome == drillNo:
		case w.Outcome == drillUnknown || w.Seq == 0:
			loose = append(loose, w)
		default:
			ordered = append(ordered, w)
		}
	}
	slices.SortFunc(ordered, func(a, b *drillWrite) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seq, b.Seq))
	})
	return ordered, loose
}

func (r drillRow) after(w *drillWrite) drillRow {
	switch w.Kind {
	case drillPut:
		return drillRow{Put: w.drillToken}
	case drillPatch:
		r.Patch = w.drillToken
		return r
	}
	return drillRow{} // deleted
}

// mustBeThere reports whether a row is missing that was put by a request of
// many rows, and that nobody can have deleted.
func mustBeThere(ordered, loose []*drillWrite, found drillRow) bool {
	put := false
	for _, w := range loose {
		if w.Kind == drillDelete {
			return false
		}
		put = put || w.Kind == drillPut && w.Outcome == drillOK
	}
	deleted := slices.ContainsFunc(ordered, func(w *drillWrite) bool { return w.Kind == drillDelete })
	return put && !deleted && found == drillRow{}
}

// loosely reports whether the row is as a write left it whose place in the
// order nobody knows.
func loosely(loose []*drillWrite, want, found drillRow) bool {
	base, patch := found.Put == want.Put, found.Patch == want.Patch
	for _, w := range loose {
		switch w.Kind {
		case drillPut:
			base = base || found.Put == w.drillToken
		case drillDelete:
			base = base || found == drillRow{}
		default:
			patch = patch || found.Patch == w.drillToken
		}
	}
	if found.Put != want.Put && found.Patch == (drillToken{}) {
		patch = true // it came after the patches
	}
	return base && patch
}
