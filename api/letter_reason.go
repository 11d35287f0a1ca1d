package api

import (
	"strings"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// reason says in plain words why Postgres refused a row, and what to do.
type reason struct{ why, advice string }

const (
	mendOrCorrect = "Correct the row and replay it, or mend the database and replay it as it is."
	mendRule      = "Replay it with a corrected row; or, if the rule is wrong, change it in the database and replay the row as it is."
)

// reasons by SQLSTATE. {column} and {constraint} stand for what refused the row.
var reasons = map[string]reason{
	"23505": {
		"A row with the same value is there already, and {constraint} allows only one.",
		"Look at that row. Discard this one if it is the same write; else replay it with another key, or remove that row and replay.",
	},
	"23503": {
		"It refers to a row that is not there, or others refer to the value that it changes ({constraint}).",
		"Add the row that it refers to (or change those that refer to it), and replay it.",
	},
	"23502": {"{column} must not be null, and this row has no value there.", "Replay it with a value for that column."},
	"23514": {"The row breaks {constraint}.", mendRule},
	"23P01": {
		"The row excludes, or is excluded by, one that is there ({constraint}).",
		"Look at the rows that it meets. Replay it corrected, or when they are gone.",
	},
	"23000": {"The row breaks a rule of the database ({constraint}).", mendRule},
	"22001": {
		"A text is longer than {column} takes.",
		"Replay it with a shorter text, or make the column longer and replay the row as it is.",
	},
	"22003": {
		"A number is beyond what {column} holds.",
		"Replay it with a smaller number, or widen the column and replay the row as it is. Of an increment it is the sum that is too large.",
	},
	"22P02": {
		"A value is not one of the type of {column}.",
		"The type was changed after the row was accepted, or something in the database casts the value. " + mendOrCorrect,
	},
	"22007": {"A value is not a date or time.", mendOrCorrect},
	"22008": {"A date or time is beyond the range of its type.", mendOrCorrect},
	"22012": {
		"Something in the database divided by zero for this row: a generated column, a rule or a trigger.",
		mendOrCorrect,
	},
	"22021": {"A text holds bytes that the database's encoding does not have.", mendOrCorrect},
	"22023": {"Something in the database was given a value that it does not take.", mendOrCorrect},
	"22P05": {"A text holds a character that the database's encoding does not have.", mendOrCorrect},
	"42804": {
		"The type of {column} was changed while the row waited, and its value cannot be taken over.",
		"Replay it with a value of the new type.",
	},
	"21000": {"Something in the database expected one row and found several.", mendOrCorrect},
	"44000": {"The row is outside of the view that it is written through.", mendOrCorrect},
	"P0001": {
		"A trigger or a function of the database refused the row.",
		"Its own words are in message. " + mendOrCorrect,
	},
	"HP001": {
		"Somebody else changed the row in Postgres while this change waited, and on_external_change is database-wins.",
		"Look at the row. Replay the change if it shall count, else discard it.",
	},
	"HP002": {
		"The change was computed on a row that Postgres refused, so it waits for that one.",
		"Replay or discard the dead letter that it is parked behind. " +
			"When that one is replayed, this one follows it; when it is discarded, this one can be replayed by itself.",
	},
}

// foreignKeyReasons are for 23503 where the operation tells which end of the
// foreign key the row is.
var foreignKeyReasons = map[table.Op]reason{
	table.OpInsert: missingParent,
	table.OpIgnore: missingParent,
	table.OpDelete: {
		"Others refer to the row that it removes ({constraint}).",
		"Remove or change the rows that refer to it, and replay it; or discard it.",
	},
}

var missingParent = reason{
	"It refers to a row that is not there ({constraint}).",
	"Add the row that it refers to, and replay it; or replay it corrected.",
}

// classReasons are for what reasons does not have, by the class of the SQLSTATE.
var classReasons = map[string]reason{
	"22": {"A value is not one that the database can work with.", mendOrCorrect},
	"23": {"The row breaks a rule of the database ({constraint}).", mendRule},
	"P0": {"A trigger or a function of the database refused the row.", mendOrCorrect},
}

func reasonOf(l *buffer.Letter) reason {
	r, known := reasons[l.SQLState]
	if of, tells := foreignKeyReasons[l.Op]; tells && l.SQLState == "23503" {
		r = of
	}
	if !known && len(l.SQLState) == 5 {
		r, known = classReasons[l.SQLState[:2]]
	}
	if !known {
		r = reason{"Postgres refused the row.", mendOrCorrect}
	}
	column, constraint := "a column", "a constraint"
	if l.Column != "" {
		column = "the column " + l.Column
	}
	if l.Constraint != "" {
		constraint = "the constraint " + l.Constraint
	}
	why := strings.NewReplacer("{column}", column, "{constraint}", constraint).Replace(r.why)
	return reason{strings.ToUpper(why[:1]) + why[1:], r.advice}
}
