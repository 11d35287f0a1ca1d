package buffer

import (
	"strconv"

	"github.com/headpond/headpond/buffer/table"
)

// Every key of Redis is built here.

// Channels. Their messages are "<table>.<partition>" and, for settled,
// "<table>.<partition> <watermark seq> <dead letters>".
const (
	channelWake    = "hp:wake"
	channelSettled = "hp:settled"
	channelOpened  = "hp:opened" // an epoch was opened, or is closed and waits for who takes part in it
)

// keyPaused is a hash: the tables that are not to be flushed, and since when.
const keyPaused = "hp:paused"

// Place names one partition of one table.
type Place struct {
	Table     string
	Partition int
}

func (p Place) String() string { return p.Table + "." + strconv.Itoa(p.Partition) }

// Receipt of a row of the place, as clients get it.
func (p Place) Receipt(id table.ID) string {
	return p.String() + "." + strconv.FormatUint(id.Epoch, 10) + "." + strconv.FormatUint(id.Seq, 10)
}

// prefix of all keys of the place, with the hash tag.
func (p Place) prefix() string { return "hp:{" + p.String() + "}:" }

// The lists of a table lie in a slot of their own: they are of all partitions.
func listsKey(table string) string       { return "hp:{" + table + "}:lists" }
func listKey(table, query string) string { return "hp:{" + table + "}:list:" + query }

func (p Place) log() string               { return p.prefix() + "log" }
func (p Place) meta() string              { return p.prefix() + "meta" }
func (p Place) joined() string            { return p.prefix() + "joined" }
func (p Place) returned() string          { return p.prefix() + "returned" }
func (p Place) moved() string             { return p.prefix() + "moved" }
func (p Place) torn() string              { return p.prefix() + "torn" }
func (p Place) commits() string           { return p.prefix() + "commits" }
func (p Place) refresh(key string) string { return p.prefix() + "refresh:" + key }
func (p Place) row(key string) string     { return p.prefix() + "row:" + key }
func (p Place) marks(gen int64) string    { return p.prefix() + "marks:" + strconv.FormatInt(gen, 10) }
func (p Place) dirty(gen int64) string    { return p.prefix() + "dirty:" + strconv.FormatInt(gen, 10) }
