package buffer

import (
	"strings"
	"time"

	"github.com/headpond/headpond/buffer/table"
)

// Letter is a dead letter: a row that was accepted and that Postgres refused.
type Letter struct {
	Number int64 // its name for people
	Table  string
	Name   table.Letter // its name for ever; with the table it is the row's receipt
	Key    string       // as it is written in paths; empty when the table has none
	Op     table.Op

	SQLState   string
	Message    string
	Detail     string
	Constraint string
	Column     string

	Span table.Span // that put it into the log; zero when its request was not sampled

	Row      string // JSON, for people; empty when it is larger than was asked for
	RowBytes int    // of the JSON
	Columns  []string
	Values   []*string // canonical text, exact: what a replay writes

	Accepted, Died time.Time
	Replayed       time.Time // when a replay of it was accepted last, zero for never
	Replays        int       // how often it was replayed and refused again
	Behind         table.ID  // the dead letter of its partition that it is parked behind; zero for none
	BehindNumber   int64     // its number; 0 when it is gone, and this one can be replayed by itself
	Parked         int       // how many are parked behind this one
}

// Waits reports whether a letter waits for another one.
func (l *Letter) Waits() bool { return l.BehindNumber != 0 }

// LetterGroup is the dead letters of a table with one reason.
type LetterGroup struct {
	Table      string
	SQLState   string
	Constraint string
	Letters    int64
	First      time.Time // when the oldest of them was refused
	Last       time.Time // the newest
	Sample     Letter    // the newest, without its row
}

// Name of a group: "23514:orders_total_check", or "22003" where no constraint is named.
func (g *LetterGroup) Name() string { return GroupName(g.SQLState, g.Constraint) }

// GroupName is the name of the group of a SQLSTATE and a constraint.
func GroupName(sqlstate, constraint string) string {
	if constraint == "" {
		return sqlstate
	}
	return sqlstate + ":" + constraint
}

// LetterFilter chooses dead letters. The zero value is all of them.
type LetterFilter struct {
	Table string
	Group string // a group's name; a SQLSTATE alone means all of its constraints
	After int64  // only those that are older than this number; 0: from the newest
	Limit int
}

// State is what the group says; has is false when it names no
// constraint.
func (f *LetterFilter) State() (sqlstate, constraint string, has bool) {
	return strings.Cut(f.Group, ":")
}
