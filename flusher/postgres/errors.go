package postgres

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/flusher"
)

// class of an error: what the flusher does about it.
type class int

const (
	environment class = iota // passes with time: keep the data, try again
	rowError                 // one row's fault: dead letter
	schemaError              // somebody must mend the schema: halt the table
)

// classes maps SQLSTATEs to classes, the longest prefix wins. What is not
// listed is environment: keep the data. Source: PostgreSQL 15 documentation,
// appendix A.
var classes = map[string]class{
	"21000": rowError,    // cardinality violation
	"22":    rowError,    // data exception
	"22P03": schemaError, // invalid binary representation
	"22P04": schemaError, // bad COPY file format: the columns do not match
	"23":    rowError,    // integrity constraint violation
	"44":    rowError,    // WITH CHECK OPTION violation
	"P0":    rowError,    // raised by a trigger
	"P0002": rowError,
	"0A":    schemaError, // feature not supported (RLS, views …)
	"3D":    schemaError,
	"3F":    schemaError,
	"42":    schemaError, // no such table or column, no privilege …
	"42P05": environment, // duplicate prepared statement: a pooler in between
	"26":    environment,
}

func classOf(sqlstate string) class {
	for n := len(sqlstate); n >= 2; n-- {
		if c, ok := classes[sqlstate[:n]]; ok {
			return c
		}
	}
	return environment
}

// classify says what err is about. A COPY that the client itself broke off
// comes back as 57014 and is environment: rows are text that was checked long
// before.
func classify(err error) (class, *pgconn.PgError) {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return environment, nil
	}
	return classOf(pg.Code), pg
}

// FlushError is why a batch was not committed.
type FlushError struct {
	Table  string
	halted bool
	err    error
}

// Halts reports whether somebody must mend the schema before the table can go
// on. It goes on by itself then.
func (e *FlushError) Halts() bool { return e.halted }

func (e *FlushError) Unwrap() error { return e.err }

func (e *FlushError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "flush table=%s: ", e.Table)
	if _, pg := classify(e.err); pg != nil {
		fmt.Fprintf(&b, "%s (SQLSTATE %s)", pg.Message, pg.Code)
	} else {
		b.WriteString(e.err.Error())
	}
	if e.halted {
		b.WriteString("; the table is halted and goes on by itself when its schema is mended; nothing is lost meanwhile")
	}
	return b.String()
}

func flushError(tbl string, err error) error {
	var already *FlushError
	if err == nil || errors.As(err, &already) {
		return err
	}
	c, _ := classify(err)
	return &FlushError{Table: tbl, halted: c == schemaError || errors.Is(err, flusher.ErrKeyChanged), err: err}
}
