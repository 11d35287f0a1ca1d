package flusher

// Failpoint names a step of the flush at which a test can make the process die
// or stumble. It costs nothing in a program that was built without the tag
// failpoints: Reach is empty there.
//
// With the tag, HEADPOND_FAILPOINT=name=action says what happens where, several
// of them with ; in between. Actions: kill (SIGKILL to the process itself),
// kill-soon (a moment later, while the next step is on its way), error, panic,
// sleep(100ms). After it may come :n for the n-th time alone, and :random for
// any of the first eight times.
type Failpoint string

// The steps, in their order.
const (
	FailLooked    Failpoint = "looked"    // what waits is known, nothing is begun
	FailClaimed   Failpoint = "claimed"   // BEGIN, and the watermarks are locked
	FailRead      Failpoint = "read"      // the frames are here
	FailWriting   Failpoint = "writing"   // before each COPY or statement of a merge
	FailWave      Failpoint = "wave"      // after each wave of a merge
	FailWritten   Failpoint = "written"   // rows are written, the watermark has not moved
	FailAdvanced  Failpoint = "advanced"  // the watermark has moved, before COMMIT
	FailCommitted Failpoint = "committed" // COMMIT was answered, Redis does not know
	FailSettled   Failpoint = "settled"   // Redis knows and has trimmed
)

// The steps of a direct write that are its own; it writes as a flush does.
const (
	FailDirectHeld      Failpoint = "direct-held"      // rows are written and markers stand, before COMMIT
	FailDirectCommitted Failpoint = "direct-committed" // COMMIT was answered, the markers still stand
)

// Failpoints is all of the flush, DirectFailpoints those of a direct write.
var (
	Failpoints = []Failpoint{
		FailLooked, FailClaimed, FailRead, FailWriting, FailWave, FailWritten, FailAdvanced, FailCommitted, FailSettled,
	}
	DirectFailpoints = []Failpoint{FailDirectHeld, FailDirectCommitted}
)
