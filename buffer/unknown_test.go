package buffer_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// The driver must not repeat calls by itself; and if it did, as it does by
// default and always does in a cluster, nothing may be applied twice.
var drivers = map[string]func(*redis.Options){
	"ours":                 func(*redis.Options) {},
	"with its own repeats": func(o *redis.Options) { o.MaxRetries = 3 },
	"impatient and repeats": func(o *redis.Options) {
		o.MaxRetries, o.ReadTimeout, o.ContextTimeoutEnabled = 3, 100*time.Millisecond, false
	},
}

// setupDriver is setup with a driver of its own, and patience for tries of 300 ms.
func setupDriver(t *testing.T, url string, change func(*redis.Options)) *bundle {
	t.Helper()
	opened, err := buffer.Open(url)
	require.NoError(t, err)
	o := *opened.(*redis.Client).Options() //nolint:forcetypeassert // it is not a cluster
	require.Zero(t, o.MaxRetries)
	o.MaxRetries = -1 // what is 0 in an open client is 3 in the options of a new one
	require.NoError(t, opened.Close())
	change(&o)
	o.Dialer = nil
	rdb := redis.NewClient(&o)
	wms := &watermarks{ids: make(map[buffer.Place]buffer.Held)}
	b, err := buffer.New(buffer.Config{Budget: time.Minute, CallTimeout: 300 * time.Millisecond}, rdb, wms, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
		require.NoError(t, rdb.Close())
	})
	return &bundle{Buffer: b, t: t, rdb: rdb, wms: wms, table: fmt.Sprintf("unknown%d", tables.Add(1))}
}

// keysOf reads the log straight from Redis: every row, in order.
func keysOf(t *testing.T, b *bundle, url string) []string {
	t.Helper()
	straight := setupOn(t, url)
	frames, err := straight.Frames(context.Background(), b.place(0), table.ID{Epoch: 1}, 1<<20, 1<<30)
	require.NoError(t, err)
	var keys []string
	for _, f := range frames {
		for i := range f.Len() {
			cells := table.ParseLine(f.Line(i))
			keys = append(keys, string(cells[0].Text))
		}
	}
	return keys
}

// TestReplyLost: Redis has applied a write, and its answer never comes. The
// write is accepted when it does, under the number that it got the first time,
// and is there once.
func TestReplyLost(t *testing.T) {
	t.Parallel()
	for name, driver := range drivers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := uptest.SharedRedis(t)
			w, through := newWire(t, r.URL())
			b := setupDriver(t, through, driver)
			target := b.target(1)
			b.append(chunk(target, 0, buffer.ExpectAbsent, "before"))
			w.set(func() { w.losing = true })
			c := chunk(target, 0, buffer.ExpectNew, "a", "b")
			appended := make(chan struct{})
			go func() {
				defer close(appended)
				b.append(c)
			}()
			straight := setupOn(t, r.URL())
			require.Eventually(t, func() bool {
				tails, err := straight.Tails(context.Background(), []buffer.Place{b.place(0)})
				return err == nil && tails[0].Last.Seq == 3
			}, 20*time.Second, time.Millisecond)
			require.Eventually(t, func() bool { return b.Counters().Retries.Load() > 0 }, 20*time.Second, time.Millisecond)
			select {
			case <-appended:
				t.Fatal("it was accepted before it was answered")
			default:
			}
			w.set(func() { w.losing = false })
			<-appended
			require.NoError(t, c.Result().Err)
			require.Equal(t, table.ID{Epoch: 1, Seq: 2}, c.Result().First)
			require.Positive(t, b.Counters().Repeats.Load())
			require.Equal(t, []string{"before", "a", "b"}, keysOf(t, b, r.URL()))
		})
	}
}

// TestRedisStops for longer than a try: what was sent meanwhile lies in its
// sockets, and is done when it goes on. All are accepted, each once.
func TestRedisStops(t *testing.T) {
	t.Parallel()
	for name, driver := range drivers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := uptest.Redis(t)
			b := setupDriver(t, r.URL(), driver)
			target := b.target(1)
			b.append(chunk(target, 0, buffer.ExpectAbsent, "before"))
			require.NoError(t, syscall.Kill(r.PID(), syscall.SIGSTOP))
			resume := sync.OnceFunc(func() { _ = syscall.Kill(r.PID(), syscall.SIGCONT) })
			t.Cleanup(resume) // a stopped process cannot be ended politely
			var writers sync.WaitGroup
			want := []string{"before"}
			for i := range 8 {
				key := fmt.Sprintf("k%d", i)
				want = append(want, key)
				writers.Go(func() {
					c := chunk(target, 0, buffer.ExpectNew, key)
					if err := b.Append(context.Background(), c); err != nil || c.Result().Err != nil {
						t.Error(err, c.Result().Err)
					}
				})
			}
			require.Eventually(t, func() bool { return b.Counters().Retries.Load() >= 3 }, 40*time.Second, time.Millisecond)
			resume()
			writers.Wait()
			require.ElementsMatch(t, want, keysOf(t, b, r.URL()))
			require.Zero(t, b.Counters().Unknown.Load())
		})
	}
}

// TestConnectionsBreak again and again, in the middle of answers, under load.
func TestConnectionsBreak(t *testing.T) {
	t.Parallel()
	r := uptest.SharedRedis(t)
	w, through := newWire(t, r.URL())
	b := setupDriver(t, through, drivers["with its own repeats"])
	target := b.target(1)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w.set(func() { w.dice = rand.New(rand.NewPCG(seed, 1)) })
	var writers sync.WaitGroup
	var want []string
	for i := range 8 {
		for n := range 40 {
			want = append(want, fmt.Sprintf("k%d-%d", i, n))
		}
		writers.Go(func() {
			for n := range 40 {
				c := chunk(target, 0, buffer.ExpectNew, fmt.Sprintf("k%d-%d", i, n))
				if err := b.Append(context.Background(), c); err != nil || c.Result().Err != nil {
					t.Error(err, c.Result().Err)
				}
			}
		})
	}
	writers.Wait()
	require.ElementsMatch(t, want, keysOf(t, b, r.URL()))
	w.set(func() { require.Positive(t, w.lost) })
	require.Positive(t, b.Counters().Repeats.Load(), "no answer was lost: nothing was tested")
}
