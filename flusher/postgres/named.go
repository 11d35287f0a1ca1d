package postgres

import (
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer/table"
)

// Errors of statements that are no COPY name no line, but most of them a key:
// DETAIL: Key (parent)=(9999) is not present in table "parents".
// DETAIL: Failing row contains (1500, 100, x).
// It is only a guess where to look first: languages, quoting and long values
// differ, and the row that is found is judged alone like any other.
var (
	detailKey = regexp.MustCompile(`(?s)\(([^()]+)\)=\((.*)\)`)
	detailRow = regexp.MustCompile(`^[^(]*\(([^,()]+)[,)]`)
)

// named finds the operation, from up to and without to, that an error may be about.
func (g *group) named(pg *pgconn.PgError, from, to int) (int, bool) {
	var names, values []string
	if m := detailKey.FindStringSubmatch(pg.Detail); m != nil {
		names, values = strings.Split(m[1], ", "), strings.Split(m[2], ", ")
	} else if m := detailRow.FindStringSubmatch(pg.Detail); m != nil && len(g.b.table.Key) == 1 && g.b.table.Key[0] == 0 {
		names, values = []string{g.b.table.Columns[0].Name}, m[1:]
	}
	if len(names) == 0 || len(names) != len(values) {
		return 0, false
	}
	for n := from; n < to; n++ {
		if holds(g.nets[n].Columns.Names, g.nets[n].Row, names, values) {
			return n, true
		}
	}
	return 0, false
}

// holds reports whether a row has these values in these columns.
func holds(columns []string, row table.Row, names, values []string) bool {
	for i, name := range names {
		same := false
		for at := range columns {
			same = same || columns[at] == name && row[at].State == table.Set && string(row[at].Text) == values[i]
		}
		if !same {
			return false
		}
	}
	return true
}
