package flusher

import (
	"context"
	"errors"

	"github.com/headpond/headpond/buffer"
)

// Class of an error: what becomes of a batch that was not committed. Whatever
// the class, its rows stay in the log.
type Class string

// The classes. What nobody knows is Environment.
const (
	Unreachable Class = "unreachable" // Postgres is away or takes no writes: the same for every table
	BufferAway  Class = "buffer"      // Redis did not answer: the same for every table
	Environment Class = "environment" // the server is there and could not do this now: disk, memory, timeouts
	Contention  Class = "contention"  // another transaction was in the way: soon again
	Schema      Class = "schema"      // somebody must mend the schema: halted
	Corruption  Class = "corruption"  // the database is damaged: halted
	Poison      Class = "poison"      // too many rows are refused: halted
	DataGap     Class = "gap"         // accepted rows are missing in the log
	PutOff      Class = "waiting"     // for rows of another table, or the table is paused
)

// Classes is all of them.
var Classes = []Class{Unreachable, BufferAway, Environment, Contention, Schema, Corruption, Poison, DataGap, PutOff}

// ClassOf an error. Those of a Store say it themselves.
func ClassOf(err error) Class {
	var told interface{ Class() Class }
	switch gap := new(Gap); {
	case isWaiting(err), isPaused(err):
		return PutOff
	case errors.As(err, &told):
		return told.Class()
	case errors.As(err, &gap):
		return DataGap
	case errors.Is(err, buffer.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return BufferAway
	}
	return Environment
}

// Halts reports whether somebody must do something before the table can go on.
func (c Class) Halts() bool { return c == Schema || c == Corruption || c == Poison }

// shared reports that the cause is the same for all tables.
func (c Class) shared() bool { return c == Unreachable || c == BufferAway }
