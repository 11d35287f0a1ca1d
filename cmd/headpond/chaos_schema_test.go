//go:build linux

package main_test

import (
	"net/http"

	"github.com/stretchr/testify/require"
)

// Faults of rows and of the schema.
var schemaFaults = []*fault{
	{
		id: "F17", what: "bad rows", mode: "S", poison: 5, happen: func(c *chaos) { c.acks(2 * leastRows) },
		how: "one row in five of a table violates a CHECK that only Postgres knows, anywhere in batches",
	},
	{
		id: "F18", what: "no place for dead letters", mode: "S", poison: 5, happen: noDeadLetters,
		how: "bad rows while headpond.dead_letters has another name (42P01); then it has its own again",
	},
	{
		id: "F19", what: "ALTER TYPE while flushing", mode: "S", happen: retype,
		how: "columns become numeric, bigint, varchar and back, and one comes and goes, under load, three times",
	},
	{
		id: "F20", what: "table and column renamed", mode: "S", happen: rename,
		how: "the table has another name for a while (42P01), then a column; then they have their own again",
	},
	{
		id: "F21", what: "enum label added", mode: "S", happen: newLabel,
		how: "ALTER TYPE … ADD VALUE under load; then the new label is written, without a restart",
	},
}

func noDeadLetters(c *chaos) {
	heard := c.listening()
	c.sql(`alter table headpond.dead_letters rename to away`)
	heard("SQLSTATE 42P01")
	c.acks(leastRows)
	c.sql(`alter table headpond.away rename to dead_letters`)
}

func retype(c *chaos) {
	for range 3 {
		for _, ddl := range []string{
			`alter table chaos_append alter n type numeric, alter note type varchar(80)`,
			`alter table chaos_append add extra timestamptz default now(), alter client type bigint`,
			`alter table chaos_append alter n type bigint, alter note type text`,
			`alter table chaos_append drop extra, alter client type int`,
			`alter table chaos_rows alter n type numeric`,
			`alter table chaos_rows alter n type bigint`,
		} {
			c.sql(ddl)
			c.commits(50)
		}
	}
}

func rename(c *chaos) {
	c.sql(`alter table chaos_append rename to elsewhere`)
	c.answered("404 table_not_found", 5)
	c.acks(100) // the other tables go on
	c.sql(`alter table elsewhere rename to chaos_append`)
	c.commits(100)
	c.sql(`alter table chaos_append rename note to remark`)
	c.answered("422 unknown_column", 5)
	c.sql(`alter table chaos_append rename remark to note`)
}

func newLabel(c *chaos) {
	c.sql(`alter type chaos_kind add value 'fresh'`)
	for i, h := range c.apis {
		o := &chaosOp{Client: chaosClients + i, From: c.load.probe(), Count: 1, Table: "chaos_keyed"}
		c.await("the new label", func() bool {
			path, body := o.request()
			a, err := request(http.MethodPost, h.api+path, typeJSON, body[:len(body)-2]+`,"kind":"fresh"}`)
			o.judge(a, err)
			return o.Outcome == acked
		})
		c.load.note(o)
	}
	c.commits(leastRows)
	require.EqualValues(c, len(c.apis), value[int64](c.T, c.postgres.URL(), `select count(*) from chaos_keyed where kind = 'fresh'`))
}
