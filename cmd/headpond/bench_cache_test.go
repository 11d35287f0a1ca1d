package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up/uptest"
	"github.com/headpond/headpond/migrations"
)

func TestEffectiveLatency(t *testing.T) {
	t.Parallel()
	require.InDelta(t, 5.9, effective(0.9, 1, 50), 1e-9, "the example of the documents")
	require.InDelta(t, 50.0, effective(0, 1, 50), 1e-9)
	require.InDelta(t, 1.0, effective(1, 1, 50), 1e-9)
	for ratio, verdict := range map[float64]string{1: "aim reached", 1.04: "aim reached", 0.96: "aim reached", 1.1: "reached", 0.9: "reached", 1.2: "MISSED", 0.8: "MISSED"} {
		require.Equal(t, verdict, effectiveVerdict(ratio), "%v", ratio)
	}
}

// Hits are among the warm rows, no cold row comes twice, and a mixture has the
// hit rate that was asked for.
func TestCacheMixer(t *testing.T) {
	t.Parallel()
	keys := &keySet{warm: 100, rows: 10_000}
	seen := make(map[int64]bool)
	m := keys.mixer()
	for warm := false; ; warm = !warm {
		key, err := m.next(warm)
		if err != nil {
			break
		}
		require.True(t, key >= 1 && key <= keys.rows, "key %d", key)
		require.Equal(t, warm, key <= keys.warm)
		require.False(t, !warm && seen[key], "cold key %d came again", key)
		seen[key] = true
	}
	cold := 0
	for key := range seen {
		if key > keys.warm {
			cold++
		}
	}
	require.Equal(t, 9900, cold, "all cold rows")
	hits := 0
	for _, warm := range mixture(0.95, 200) {
		if warm {
			hits++
		}
	}
	require.Equal(t, 190, hits)
}

func TestStaleWatch(t *testing.T) {
	t.Parallel()
	w, start := newStaleWatch(), time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	w.wrote(at(10)) // n = 1
	w.wrote(at(20)) // n = 2
	w.read(at(9), 0)
	w.read(at(15), 1)
	w.read(at(30), 2)
	w.read(at(30), 3) // not answered yet, and seen
	require.Zero(t, w.window)
	w.read(at(15), 0)
	require.Equal(t, 5*time.Millisecond, w.window)
	w.read(at(22), 0)
	require.Equal(t, 12*time.Millisecond, w.window, "since the oldest write that is not seen")
	w.read(at(27), 1)
	require.Equal(t, 12*time.Millisecond, w.window)
}

// Executions are counted however the bytes arrive.
func TestAskedCounter(t *testing.T) {
	t.Parallel()
	message := func(kind string, body string) string {
		return kind + string(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))) + body //nolint:gosec // short
	}
	encryption := message("", string(binary.BigEndian.AppendUint32(nil, 80877103)))
	startup := message("", string(binary.BigEndian.AppendUint32(nil, 196608))+"user\x00u\x00\x00")
	text := encryption + startup +
		message("P", "s1\x00select from mine where id = $1\x00\x00\x00") + message("B", "\x00s1\x00\x00\x00\x00") + message("E", "\x00\x00\x00\x00\x00") + message("S", "") +
		message("P", "\x00select 1\x00\x00\x00") + message("B", "\x00\x00\x00\x00\x00") + message("B", "\x00s1\x00\x00\x00\x00") +
		message("P", "\x00update mine set n = 1\x00\x00\x00") + message("B", "\x00\x00\x00\x00\x00")
	for _, size := range []int{1, 3, 7, len(text)} {
		w := &benchWire{about: "mine"}
		c := &askedCounter{wire: w}
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			_, err := c.Write([]byte(rest[:n]))
			require.NoError(t, err)
			rest = rest[n:]
		}
		require.EqualValues(t, 3, w.asked.Load(), "in pieces of %d", size)
	}
}

func figure(v float64) *float64 { return &v }

func exampleReport() *cacheReport {
	r := &cacheReport{SlowMS: 50}
	for i, p := range cachePatterns {
		v := float64(i + 1)
		f := cacheFigure{
			Key: p.key, Name: p.name, Write1: &cacheLatency{v * 1.11, v, v * 3}, Write64: &cacheLatency{v * 10, v * 9, v * 40},
			Miss: figure(v * 0.77), Stale: figure(v * 100), Lost: figure(v), LostOf: figure(1000), RowsPerS: figure(v * 1234),
		}
		if p.cached {
			f.Hit = figure(v * 0.13)
			f.Effective = []cacheReading{{Wanted: 0.5, Seen: 0.48, Measured: v * 0.4, Predicted: v * 0.45, Ratio: 0.9, Verdict: "reached"}}
		}
		r.Patterns = append(r.Patterns, f)
	}
	r.Patterns[1] = cacheFigure{Key: "client", Name: cachePatterns[1].name, Fault: "<it> & that"}
	return r
}

// The picture is XML, and holds each pattern's name and figures.
func TestCachePicture(t *testing.T) {
	t.Parallel()
	for _, r := range []*cacheReport{exampleReport(), {}} {
		svg := drawCache(r)
		var text strings.Builder
		d := xml.NewDecoder(bytes.NewReader(svg))
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if chars, ok := token.(xml.CharData); ok {
				text.Write(chars)
				text.WriteByte('\n')
			}
		}
		require.NotContains(t, string(svg), "NaN")
		require.NotContains(t, string(svg), "Inf")
		for _, f := range r.Patterns {
			require.Contains(t, text.String(), f.Name)
			for _, b := range f.bars() {
				if b.ms != nil {
					require.Contains(t, text.String(), millis(b.ms), "%s of %s", b.name, f.Name)
				}
			}
			if f.Fault == "" {
				require.Contains(t, text.String(), f.lossText())
			}
		}
	}
}

func TestCacheReportPrints(t *testing.T) {
	t.Parallel()
	r := exampleReport()
	var out strings.Builder
	require.NoError(t, r.print(&out))
	for _, f := range r.Patterns {
		require.Contains(t, out.String(), f.Name)
	}
	require.Contains(t, out.String(), "was not measured: <it> & that")
	require.Contains(t, out.String(), "0.9 × 1 ms + 0.1 × 50 ms = 5.90 ms")
}

// TestSlowPostgresHits is the documents' example: a database that takes 50 ms
// for an answer, and 90 % hits. No hit waits for it, and of the reads exactly a
// tenth reach it.
func TestSlowPostgresHits(t *testing.T) {
	t.Parallel()
	b, p := slowCacheBench(t, 50*time.Millisecond)
	clients, end, err := b.lab.clients(t.Context(), p, 2)
	require.NoError(t, err)
	defer end()
	require.NoError(t, readEach(t.Context(), clients, 1, b.hot))
	asked := b.lab.wire.asked.Load
	require.Equal(t, b.hot, asked(), "each row was loaded once")
	seen, next := newReadTimings(), b.hot
	for i := range int64(100) {
		key, cold, before := 1+i%b.hot, i%10 == 9, asked()
		if cold {
			next++
			key = next
		}
		began := time.Now()
		_, hit, err := clients[i%2].read(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, !cold, hit, "read %d", i)
		if cold {
			seen.misses.add(time.Since(began))
		} else {
			seen.hits.add(time.Since(began))
			require.Equal(t, before, asked(), "a hit asked Postgres")
		}
	}
	require.EqualValues(t, b.hot+10, asked(), "a tenth of the reads")
	require.InDelta(t, 0.9, seen.hitRate(), 1e-9)
	require.GreaterOrEqual(t, seen.misses.mean(), 50.0)
	require.InDelta(t, effective(0.9, seen.hits.mean(), seen.misses.mean()), seen.all().mean(), 1e-6)
	t.Logf("0.9 × %.2f ms + 0.1 × %.2f ms = %.2f ms; the documents: 0.9 × 1 ms + 0.1 × 50 ms = 5.9 ms", seen.hits.mean(), seen.misses.mean(), seen.all().mean())
}

// TestCacheBenchSteps runs what a round is made of, but for the death of Redis,
// and checks the report's arithmetic.
func TestCacheBenchSteps(t *testing.T) {
	t.Parallel()
	b, p := slowCacheBench(t, 5*time.Millisecond)
	ctx := t.Context()
	require.NoError(t, b.reads(ctx, p))
	b.lab.wire.slow(0)
	require.NoError(t, b.writes(ctx, p))
	require.NoError(t, b.staleness(ctx, []*cachePattern{p}))
	require.Empty(t, b.failed)
	f := cacheFigure{Key: p.key, Name: p.name}
	b.fill(&f)
	require.NotNil(t, f.Write1)
	require.NotNil(t, f.Write64)
	require.Len(t, f.Effective, len(b.rates))
	for _, e := range f.Effective {
		require.InDelta(t, effective(e.Seen, *f.Hit, *f.Miss), e.Predicted, 1e-9)
		require.InDelta(t, e.Measured/e.Predicted, e.Ratio, 1e-9)
	}
	require.NotNil(t, f.Example)
	require.InDelta(t, effective(exampleRate, f.Example.HitMS, 5+f.Example.OverheadMS), f.Example.PredictedMS, 1e-9)
	require.Zero(t, *f.Stale, "a row is invalidated before its write is answered")
}

// slowCacheBench is a run of one pattern on a Headpond in this process.
func slowCacheBench(t *testing.T, delay time.Duration) (*cacheBench, *cachePattern) {
	t.Helper()
	b := newCacheBench(true, delay)
	b.rows, b.hot, b.slices, b.misses, b.clients = 4000, 20, 1, 4, 1
	b.warm, b.write, b.stale = 20*time.Millisecond, 50*time.Millisecond, 200*time.Millisecond
	p := &cachePattern{key: "test", name: "cache-aside", settings: "strategy: cache-aside", reads: readCached, writes: writePut, cached: true}
	b.keys = map[*cachePattern]*keySet{p: {warm: b.hot, rows: b.rows}}
	redis, postgres := uptest.Redis(t), uptest.Postgres(t)
	require.NoError(t, migrations.Up(t.Context(), postgres.URL()))
	wire, url, err := newBenchWire(postgres.URL(), p.table())
	require.NoError(t, err)
	t.Cleanup(wire.close)
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	_, err = pool.Exec(t.Context(), seedCacheTable(p.table(), int(b.rows)))
	require.NoError(t, err)
	b.lab = &cacheLab{wire: wire, pool: pool}
	c := defaultConfig()
	c.Expose, c.Tables = nil, map[string]tableConfig{p.table(): {Strategy: "cache-aside"}}
	b.lab.addr = serveHere(t, settings{
		role: roleAPI, listen: "127.0.0.1:0", databaseURL: url, redisURL: redis.URL(), config: c, log: slog.New(slog.DiscardHandler),
	})
	wire.slow(delay)
	return b, p
}

// serveHere runs Headpond in this process until the test ends.
func serveHere(t *testing.T, s settings) (addr string) {
	t.Helper()
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, done := make(chan string, 1), make(chan error, 1)
	s.ready = func(addr string) error {
		ready <- addr
		return nil
	}
	a, err := newApp(ctx, s)
	require.NoError(t, err)
	go func() { done <- a.run(ctx) }()
	t.Cleanup(func() {
		end()
		require.NoError(t, <-done)
	})
	select {
	case addr = <-ready:
	case err := <-done:
		done <- nil
		require.FailNow(t, "it ended", "%v", err)
	}
	return addr
}
