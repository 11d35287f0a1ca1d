package buffer

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pressed is the caps of a process, with one table t of two partitions.
func pressed(c Caps, rows ...int64) *pressure {
	p := &pressure{}
	p.init(c)
	measureRows(p, 10, 0, rows...)
	return p
}

func measureRows(p *pressure, drain float64, oldest time.Duration, rows ...int64) {
	l := Load{Drain: drain, Oldest: oldest}
	for i, n := range rows {
		l.Places = append(l.Places, PlaceLoad{Partition: i, Last: 1000 + uint64(n), Watermark: 1000, Bytes: 100 * n}) //nolint:gosec // small
	}
	p.measure(map[string]Load{"t": l}, Memory{}, time.Now())
}

// offer is what becomes of a chunk of so many rows for partition 0 of t.
func (p *pressure) offer(rows int, marks map[int]mark) (c *Chunk, onward int) {
	c = &Chunk{Target: &Target{Table: "t", Partitions: 2}, ends: make([]uint32, rows), data: make([]byte, 100*rows), marks: marks}
	return c, len(p.admit([]*Chunk{c}))
}

func (p *pressure) takes(rows int) bool {
	_, onward := p.offer(rows, nil)
	return onward == 1
}

// TestCapsDoNotFlap: refused from the limit on, until the backlog is down to
// the second threshold.
func TestCapsDoNotFlap(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Caps{
		"rows": {Rows: 100}, "bytes": {Bytes: 10_000}, "total_rows": {TotalRows: 100}, "total_bytes": {TotalBytes: 10_000},
	} {
		p := pressed(c, 50, 40)
		require.True(t, p.takes(1), name)
		p.appended(Place{"t", 0}, 1060, 1000)
		full, _ := p.offer(1, nil)
		require.NotNil(t, full.full, name)
		require.EqualValues(t, name, full.full.Cap)
		require.EqualValues(t, 100, full.full.Rows)
		require.Equal(t, 1500*time.Millisecond, full.full.Retry.Round(time.Millisecond), "15 rows too many, 10 a second")
		p.settled(Place{"t", 0}, 1014)
		require.False(t, p.takes(1), "%s: 86 of 100 is still above the second threshold", name)
		p.settled(Place{"t", 0}, 1015)
		require.True(t, p.takes(1), name)
		measureRows(p, 10, 0, 50, 36)
		require.True(t, p.takes(1), name)
	}
}

// TestCapCountsBetweenMeasurements: what this process appends and what is
// settled is known at once, and a request that does not fit is refused alone.
func TestCapCountsBetweenMeasurements(t *testing.T) {
	t.Parallel()
	p := pressed(Caps{Rows: 100}, 0, 0)
	require.False(t, p.takes(101))
	require.True(t, p.takes(100))
	p.appended(Place{"t", 1}, 1070, 7000)
	require.False(t, p.takes(31))
	require.True(t, p.takes(30))
	p.settled(Place{"t", 1}, 1069)
	require.True(t, p.takes(99))
	p.appended(Place{"other", 1}, 1e6, 1e6) // never measured
	require.True(t, p.takes(99))
}

// TestRefusedAsOne: all chunks of a request go, or none of its table; other
// tables do not suffer.
func TestRefusedAsOne(t *testing.T) {
	t.Parallel()
	p := pressed(Caps{Rows: 100}, 60, 30)
	chunk := func(table string, partition, rows int) *Chunk {
		return &Chunk{Target: &Target{Table: table, Partitions: 2}, Partition: partition, ends: make([]uint32, rows)}
	}
	a, b, c := chunk("t", 0, 6), chunk("t", 1, 5), chunk("u", 0, 5)
	require.Equal(t, []*Chunk{c}, p.admit([]*Chunk{a, b, c}))
	require.NotNil(t, a.full)
	require.NotNil(t, b.full)
	require.Nil(t, c.full)
}

// TestMarkedGoOn: a request that may have been done before is asked about.
func TestMarkedGoOn(t *testing.T) {
	t.Parallel()
	p := pressed(Caps{Rows: 100}, 100, 0)
	c, onward := p.offer(1, map[int]mark{0: {}})
	require.Equal(t, 1, onward)
	require.NotNil(t, c.full)
}

// TestLagCap: the time to drain counts while rows drain, the oldest row's wait
// while they do not; and standing still does not open a gate that is shut.
func TestLagCap(t *testing.T) {
	t.Parallel()
	p := pressed(Caps{Lag: time.Minute}, 0, 0)
	measureRows(p, 100, 5*time.Second, 5900, 0)
	require.True(t, p.takes(1))
	measureRows(p, 100, time.Second, 1_000_000, 0)
	require.True(t, p.takes(1), "a burst that just came in: nobody knows yet how fast it goes")
	measureRows(p, 0, 50*time.Second, 1_000_000, 0)
	require.True(t, p.takes(1), "Postgres is away, and not for long")
	measureRows(p, 0, 61*time.Second, 1_000_000, 0)
	require.False(t, p.takes(1))
	measureRows(p, 100, 61*time.Second, 6100, 0)
	require.False(t, p.takes(1))
	measureRows(p, 0, 10*time.Second, 6100, 0)
	require.False(t, p.takes(1))
	measureRows(p, 100, 10*time.Second, 5500, 0)
	require.False(t, p.takes(1), "above the second threshold")
	full, _ := p.offer(1, nil)
	require.Equal(t, CapLag, full.full.Cap)
	require.EqualValues(t, 60_000, full.full.Limit)
	measureRows(p, 100, 10*time.Second, 5000, 0)
	require.True(t, p.takes(1))
	measureRows(p, 0, 0, 0, 0)
	require.True(t, p.takes(1))
}

// TestMemoryCap: what could be evicted does not count.
func TestMemoryCap(t *testing.T) {
	t.Parallel()
	p := pressed(Caps{}, 10, 0)
	use := func(pinned int64) {
		p.measure(map[string]Load{"t": {Drain: 5, Places: []PlaceLoad{{Last: 10}}}}, Memory{Used: 990, Pinned: pinned, Max: 1000}, time.Now())
	}
	use(899)
	require.True(t, p.takes(1))
	use(900)
	require.False(t, p.takes(1))
	use(851)
	require.False(t, p.takes(1))
	use(850)
	require.True(t, p.takes(1))
}

// TestOldMeasurementsDoNotCount: when nobody measures, the script alone refuses.
func TestOldMeasurementsDoNotCount(t *testing.T) {
	t.Parallel()
	p := pressed(Caps{Rows: 100}, 100, 0)
	require.False(t, p.takes(1))
	p.measured = time.Now().Add(-trusted - time.Second)
	require.True(t, p.takes(1))
}

// TestReadMemory reads what Redis 7.0 prints.
func TestReadMemory(t *testing.T) {
	t.Parallel()
	info := "# Memory\r\nused_memory:1000\r\nused_memory_rss:1500\r\nmem_not_counted_for_evict:100\r\ntotal_system_memory:9000\r\nmaxmemory:%\r\nmaxmemory_policy:volatile-lru\r\n"
	require.Equal(t, Memory{Used: 900, Max: 2000, Limited: true, Policy: "volatile-lru"}, readMemory(strings.Replace(info, "%", "2000", 1)))
	require.Equal(t, Memory{Used: 1500, Max: 9000, Policy: "volatile-lru"}, readMemory(strings.Replace(info, "%", "0", 1)))
}
