package postgres

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/flusher"
)

// The flusher's classes, and one that it never hears of.
const (
	unreachable = flusher.Unreachable
	environment = flusher.Environment
	contention  = flusher.Contention
	schemaError = flusher.Schema
	corruption  = flusher.Corruption
	rowError    = flusher.Class("row") // one row's fault: dead letter
)

// classes maps SQLSTATEs to classes, the longest prefix wins. All of Postgres' own
// are here. What is not is environment: keep the data, unless the code was made up
// (madeUp). TestClassifyEverySQLState pins each.
// Source: PostgreSQL 15 documentation, appendix A.
var classes = map[string]flusher.Class{
	"01": environment, "02": environment, "03": environment, "08": environment, "0B": environment, "0F": environment,
	"0L": environment, "0P": environment, "0Z": environment, "24": environment, "25": environment, "26": environment,
	"28": environment, "2B": environment, "2D": environment, "34": environment, "3B": environment, "53": environment,
	"57": environment, "58": environment, "F0": environment, "HV": environment, "XX": environment,

	"09":    rowError,    // triggered action exception
	"0A":    schemaError, // feature not supported (RLS, views …)
	"20":    rowError,    // CASE without a match, in a trigger
	"21":    rowError,    // cardinality violation: batches never hold a key twice, so a trigger's
	"22":    rowError,    // data exception
	"2200H": schemaError, // a sequence has reached its end
	"22P03": schemaError, // invalid binary representation
	"22P04": schemaError, // bad COPY file format: the columns do not match
	"23":    rowError,    // integrity constraint violation
	"25006": unreachable, // read-only: a standby, or a primary that was demoted
	"27":    rowError,    // a trigger changed the row that is being changed
	"2F":    rowError,    // functions that triggers call
	"38":    rowError,
	"39":    rowError,
	"3D":    schemaError,
	"3F":    schemaError,
	"40":    contention,
	"42":    schemaError, // no such table or column, no privilege …
	"42P05": environment, // duplicate prepared statement: a pooler in between
	"44":    rowError,    // WITH CHECK OPTION violation
	"53300": unreachable, // too many connections
	"54":    schemaError, // too many columns, too many arguments
	"54000": rowError,    // a value too long for an index
	"54001": rowError,    // nested too deep
	"55":    schemaError, // a table that is published and has no replica identity …
	"55006": contention,  // object in use
	"55P02": environment,
	"55P03": contention,  // lock_timeout
	"55P04": environment, // a value of an enum that is not committed yet
	"57P":   unreachable, // shut down, crashed, starting
	"72":    contention,  // snapshot too old
	"P0":    rowError,    // raised by a trigger
	"XX001": corruption,
	"XX002": corruption,
}

func classOf(pg *pgconn.PgError) flusher.Class {
	if c, known := classOfState(pg.Code); known {
		return c
	}
	if madeUp(pg) {
		return rowError
	}
	return environment
}

func classOfState(sqlstate string) (c flusher.Class, known bool) {
	for n := len(sqlstate); n >= 2; n-- {
		if c, known = classes[sqlstate[:n]]; known {
			return c, true
		}
	}
	return environment, false
}

// madeUp reports whether a trigger or a function has raised an error with a SQLSTATE
// of its own (RAISE … USING ERRCODE = 'ZX001'). Whoever wrote that meant the row, as
// with P0001; taken for the environment's, one row would hold up its partition for
// ever. A code of Postgres' own that is raised means what it always means: a function
// may pass on what it was told. The routine is that of the server's source.
func madeUp(pg *pgconn.PgError) bool {
	_, known := classOfState(pg.Code)
	return !known && pg.Routine == "exec_stmt_raise" && pg.File == "pl_exec.c"
}

// classify says what err is about. 57014 is environment in both its meanings: a
// timeout, and a COPY that the client broke off. The client breaks off when the
// flush is cut off, never for a row: rows are sent as the text that they lie in.
func classify(err error) (flusher.Class, *pgconn.PgError) {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	switch known := errors.As(err, &pg); {
	case errors.As(err, &connect):
		return unreachable, pg // whatever the server said: nobody can connect
	case !known:
		return withoutState(err), nil
	case endsSession(pg):
		return unreachable, pg // but 08 and 28 without that are of a foreign server, in a trigger
	case pg.Code == "0A000" && pg.Routine == "RevalidateCachedQuery": // "cached plan must not change result type"
		return environment, pg // of a function or a pooler; the connection is not used again
	}
	return classOf(pg), pg
}

// withoutState: errors that the server did not send.
func withoutState(err error) flusher.Class {
	var network net.Error
	switch {
	case errors.Is(err, flusher.ErrKeyChanged):
		return schemaError
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, pgconn.ErrConnClosed), errors.As(err, &network):
		return unreachable
	}
	return environment
}

// FlushError is why a batch was not committed.
type FlushError struct {
	Table string
	class flusher.Class
	err   error
}

// Class implements what flusher.ClassOf asks for.
func (e *FlushError) Class() flusher.Class { return e.class }

// Halts reports whether somebody must do something before the table can go
// on. It goes on by itself then.
func (e *FlushError) Halts() bool { return e.class.Halts() }

func (e *FlushError) Unwrap() error { return e.err }

func (e *FlushError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "flush table=%s: ", e.Table)
	_, pg := classify(e.err)
	if pg != nil {
		fmt.Fprintf(&b, "%s (SQLSTATE %s)", pg.Message, pg.Code)
	} else {
		b.WriteString(e.err.Error())
	}
	switch e.class {
	case schemaError:
		b.WriteString("; the table is halted and goes on by itself when its schema is mended; nothing is lost meanwhile")
	case environment:
		if pg != nil {
			b.WriteString("; its rows stay in Redis and are tried again; if that goes on, look at what PostgreSQL says, " +
				"and at the table's triggers and functions where the SQLSTATE may be theirs")
		}
	case corruption:
		b.WriteString("; the database is damaged: stop writing to it, copy its files and look at its disk before anything else; " +
			"the table is halted, and its rows stay in Redis")
	}
	return b.String()
}

// flushError leaves alone what says its class itself, what Redis said while the
// batch was loaded, and what another table is waited for.
func flushError(tbl string, err error) error {
	var told interface{ Class() flusher.Class }
	if err == nil || errors.As(err, &told) || flusher.ClassOf(err) == flusher.PutOff || errors.Is(err, buffer.ErrUnavailable) {
		return err
	}
	c, _ := classify(err)
	if c == rowError {
		c = environment // not of a row: of the watermarks, the dead letters, COMMIT
	}
	return &FlushError{Table: tbl, class: c, err: err}
}
