package api

// StatusOfCode is the HTTP status of a code, for tests.
func StatusOfCode(c string) int { return code(c).status() }

// Reads is what the reads of a table came to, for tests.
type Reads struct {
	Hits, Misses, Pending, Negative, Stale, Bypassed, Collapsed, Refreshed int64
}

// ReadsOf a table.
func ReadsOf(s *Server, table string) Reads {
	c := s.reads.of(table)
	return Reads{
		c.hits.count.Load(), c.misses.count.Load(), c.pending.Load(), c.negative.Load(), c.stale.Load(),
		c.bypassed.Load(), c.collapsed.Load(), c.refreshed.Load(),
	}
}

// ListRiders is how many requests wait for loads of lists.
func (s *Server) ListRiders() (n int) {
	s.lists.mu.Lock()
	defer s.lists.mu.Unlock()
	for _, f := range s.lists.of {
		n += f.riders
	}
	return n
}

// ListReads is how many lists of a table came from Redis, and how many did not.
func ListReads(s *Server, table string) (hits, misses int64) {
	c := s.reads.of(table)
	return c.listHits.Load(), c.listMisses.Load()
}

// GlobMatches reports whether a glob is well-formed, and takes the text.
func GlobMatches(glob, text string) (takes, ok bool) {
	re := compileGlob(glob)
	return re != nil && re.MatchString(text), re != nil
}
