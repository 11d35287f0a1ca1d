package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// answered is an error of Edge.Ping with which Postgres did answer.
type answered interface {
	error
	Answer() string // what it said, as a sentence
}

// postgresTrouble says in a sentence what is wrong with Postgres; empty for nothing.
func (s *Server) postgresTrouble(ctx context.Context) string {
	var a answered
	switch err := s.edge.Ping(ctx); {
	case err == nil:
		return ""
	case errors.As(err, &a):
		return a.Answer()
	}
	return "Postgres does not answer."
}

// mostNamed is how many tables a sentence names.
const mostNamed = 5

// fateOfWrites says what becomes of writes while nothing is flushed: the tables whose
// backlog is full refuse them.
func fateOfWrites(refused []string, tables int) string {
	switch n := len(refused); {
	case n == 0:
		return "Writes are accepted and wait in Redis"
	case n == tables:
		return "Writes are refused, because the backlog is full"
	case n > mostNamed:
		return fmt.Sprintf("Writes of %s and %d more tables are refused, because their backlog is full; others are accepted and wait in Redis",
			strings.Join(refused[:mostNamed], ", "), n-mostNamed)
	}
	return fmt.Sprintf("Writes of %s are refused, because the backlog is full; others are accepted and wait in Redis", strings.Join(refused, ", "))
}

// tellFate completes what stands in the way of the flush with what becomes of writes.
func (st *status) tellFate() {
	var refused []string
	for _, name := range sortedKeys(st.Tables) {
		if st.Tables[name].Refusing != nil {
			refused = append(refused, name)
		}
	}
	st.Breaker.fate = fateOfWrites(refused, len(st.Tables))
	if !st.Postgres.OK {
		st.Postgres.Detail += " " + st.Breaker.fate + "; reads come from the cache alone."
	}
}

// fateNow is the same for /readyz, which reads no status.
func (s *Server) fateNow() string {
	tables := s.tables.Load()
	if tables == nil {
		return fateOfWrites(nil, 0)
	}
	var refused []string
	for _, name := range tables.names() {
		if s.buffer.Refusing(name).Full != nil {
			refused = append(refused, name)
		}
	}
	return fateOfWrites(refused, len(*tables))
}

// SetUnread says, as a sentence, why the catalog was not read yet.
func (s *Server) SetUnread(why string) { s.unread.Store(&why) }

// whyUnread is a sentence; empty when the catalog was read.
func (s *Server) whyUnread() string {
	if s.tables.Load() != nil {
		return ""
	}
	if why := s.unread.Load(); why != nil {
		return *why
	}
	return "The catalog was not read yet: Postgres has not answered since the start."
}
