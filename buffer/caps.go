package buffer

import (
	"fmt"
	"time"
)

// BacklogLimit and BacklogResume are the two thresholds of each cap, as parts
// of it: writes are refused from the first on, and taken again below the second.
// With one threshold alone every flushed batch would let a few writes in, and
// clients would learn nothing from a refusal.
const (
	BacklogLimit  = 1.0
	BacklogResume = 0.85
)

// MemoryLimit and MemoryResume are the same for the memory of Redis, as parts of
// what it may use. A tenth is left to what Redis needs besides: buffers of
// clients and of its log, and the call that is on its way.
const (
	MemoryLimit  = 0.90
	MemoryResume = 0.85
)

// RowBytes is about what Redis takes for a row besides its line, with the index:
// rows of 150 bytes were measured to take 255.
const RowBytes = 105

// Cap names what was reached when a write is refused.
type Cap string

// The caps.
const (
	CapRows       Cap = "rows"        // of a table
	CapBytes      Cap = "bytes"       // of a table
	CapLag        Cap = "lag"         // time that a table takes to drain
	CapTotalRows  Cap = "total_rows"  // of all tables
	CapTotalBytes Cap = "total_bytes" // of all tables
	CapMemory     Cap = "memory"      // of Redis
	CapPartition  Cap = "partition"   // what the script allows to one partition
	CapHeld       Cap = "held"        // what this process keeps until it is committed
)

// EveryCap lists the caps.
var EveryCap = [...]Cap{CapRows, CapBytes, CapLag, CapTotalRows, CapTotalBytes, CapMemory, CapPartition, CapHeld}

// Caps bound what may wait for Postgres. Zero means no cap.
type Caps struct {
	Rows, Bytes           int64         // of one table
	TotalRows, TotalBytes int64         // of all tables together
	Lag                   time.Duration // how long a table may take to drain
}

// PartitionShare is the cap of a partition that the script holds: its share of
// the table's, and a quarter of that more, so that a table is refused as a
// whole before one of its partitions is.
func PartitionShare(ofTable int64, partitions int) int64 {
	share := max(ofTable/int64(partitions), 1)
	return share + share/4
}

// BacklogFull refuses a write because a cap was reached. Nothing of it was
// applied.
type BacklogFull struct {
	Cap   Cap
	Place Place         // Partition is -1 when it is the whole table's cap, and Table is empty when it is that of all
	Rows  int64         // that wait there
	Bytes int64         // the same in bytes; for CapMemory what Redis holds and cannot let go
	Limit int64         // of the cap: rows, bytes, or milliseconds
	Lag   time.Duration // for CapLag: how long the backlog takes to drain, or its oldest row has waited
	Drain float64       // rows per second that leave that backlog lately; 0 when none do, or it is not known
	Retry time.Duration // until it is worth to try again, by what is known; 0 when nothing is
}

func (e *BacklogFull) Error() string {
	where := e.Place.Table
	switch {
	case where == "":
		where = "all tables"
	case e.Place.Partition >= 0:
		where = e.Place.String()
	}
	return fmt.Sprintf("the backlog of %s is full (%s): %d rows, %d bytes wait for Postgres", where, e.Cap, e.Rows, e.Bytes)
}

// gate is one cap of one backlog.
type gate struct {
	cap   Cap
	shut  bool
	value float64 // when it was looked at last
	limit float64
}

// look moves the gate: value against its limit. A limit of 0 is none.
func (g *gate) look(value, limit float64) {
	g.lookAt(value, limit*BacklogLimit, limit*BacklogResume)
}

func (g *gate) lookAt(value, limit, resume float64) {
	g.value, g.limit = value, limit
	switch {
	case limit <= 0:
		g.shut = false
	case value >= limit:
		g.shut = true
	case value <= resume:
		g.shut = false
	}
}
