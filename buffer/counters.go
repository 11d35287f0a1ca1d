package buffer

import (
	"slices"
	"sync/atomic"
)

// Counters are what this process has done, since its start. Safe for
// concurrent use.
type Counters struct {
	Calls         atomic.Int64 // script calls that appended
	Frames        atomic.Int64
	Rows          atomic.Int64 // accepted
	Bytes         atomic.Int64 // accepted, heads included
	Repeats       atomic.Int64 // calls that Redis recognised as sent before
	Retries       atomic.Int64 // calls that were not answered, and sent again
	Unknown       atomic.Int64 // rows whose outcome stayed unknown
	Broken        atomic.Int64 // calls answered with an error that no script of ours may have
	DirectRows    atomic.Int64 // written to Postgres before their answer
	DirectCommits atomic.Int64 // transactions of those
	Hits          atomic.Int64 // reads answered from the log or a clean row
	Misses        atomic.Int64
	Returned      atomic.Int64 // rows that Redis had lost and this process gave back
	Late          atomic.Int64 // rows held that Redis had lost and that nobody waited for
	FillLost      atomic.Int64 // fills refused because a write had taken the lease

	refused [len(EveryCap)]atomic.Int64 // rows, by their place in EveryCap
}

// Refused is how many rows were refused because of a cap.
func (c *Counters) Refused(by Cap) int64 { return c.refused[slices.Index(EveryCap[:], by)].Load() }

func (c *Counters) refuse(by Cap, rows int) {
	c.refused[slices.Index(EveryCap[:], by)].Add(int64(rows))
}

// Counters gives the live counters.
func (b *Buffer) Counters() *Counters { return &b.counters }
