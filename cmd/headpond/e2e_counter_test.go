package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCounter: increments of one counter over 64 connections and two API
// processes, each repeated at random under its Idempotency-Key, some after
// the client gave up waiting, while the flusher is killed. Each counts once:
// every value from 1 to the last was the answer to one of them.
func TestCounter(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	r, seed := seeded(t)
	total := int64(10_000)
	if os.Getenv("HEADPOND_LONG") != "" {
		total = 100_000
	}
	s := startServers(t, program)
	execute(t, s.postgres.URL(), `create table counters (name text primary key, n bigint not null default 0, amount numeric not null default 0)`)
	var apis [2]*headpond
	for i := range apis {
		apis[i] = s.serve(t, "--role", "api")
		apis[i].serves(t, "counters")
	}
	c := counter{t: t, apis: apis, total: total, seen: make([]atomic.Int32, total+1)}
	var clients sync.WaitGroup
	for n := range 64 {
		clients.Go(func() { c.increments(rand.New(rand.NewPCG(seed, uint64(n)))) })
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	f := flusher(t, program, s.postgres.URL(), s.redis.URL())
	for i := int64(1); i <= 5; i++ {
		at := i*total/6 + r.Int64N(total/10)
		await(t, "increments", func() bool { return c.done.Load() >= at || t.Failed() })
		f.kill()
		f = flusher(t, program, s.postgres.URL(), s.redis.URL())
	}
	<-done
	t.Logf("%d increments; %d repeats, %d of them after giving up; %d repeats were told so", total, c.repeats.Load(), c.given.Load(), c.replayed.Load())
	require.False(t, t.Failed())
	for n := int64(1); n <= total; n++ {
		require.EqualValues(t, 1, c.seen[n].Load(), "how many increments were answered with %d", n)
	}
	require.Greater(t, c.given.Load(), total/1000, "too few clients gave up for the test to mean anything")
	want := fmt.Sprintf(`{"name":"c","n":%d,"amount":%s}`, total, money(total*25))
	for _, h := range apis {
		require.JSONEq(t, want, string(h.get(t, "/v1/counters/c").body))
		h.settled(t)
		require.JSONEq(t, want, string(h.get(t, "/v1/counters/c").body))
	}
	require.Equal(t, fmt.Sprint(total, " ", money(total*25)), value[string](t, s.postgres.URL(), `select n || ' ' || amount from counters`))
	require.Zero(t, value[int64](t, s.postgres.URL(), `select count(*) from headpond.dead_letters`))
}

type counter struct {
	t     *testing.T
	apis  [2]*headpond
	total int64
	begun atomic.Int64
	done  atomic.Int64
	seen  []atomic.Int32 // how many increments were answered with a value

	repeats, given, replayed atomic.Int64
}

func (c *counter) increments(r *rand.Rand) {
	for {
		n := c.begun.Add(1)
		if n > c.total || c.t.Failed() {
			return
		}
		value := int64(0)
		for again := 0; value == 0 || r.IntN(8) == 0; again++ {
			// A client that waits for less than an increment takes has no answer.
			patience := time.Minute
			if r.IntN(10) == 0 {
				patience = time.Duration(r.IntN(5000)) * time.Microsecond
			}
			if again > 0 {
				c.repeats.Add(1)
			}
			got, err := c.increment(n, r.IntN(2), patience)
			switch {
			case errors.Is(err, context.DeadlineExceeded) && patience < time.Minute:
				c.given.Add(1)
			case err != nil, value != 0 && value != got, got < 1 || got > c.total:
				c.t.Errorf("increment %d: %v; it made %d, and before it made %d", n, err, got, value)
				return
			default:
				value = got
			}
		}
		c.seen[value].Add(1)
		c.done.Add(1)
	}
}

// increment once, and give the sum that the answer tells.
func (c *counter) increment(n int64, api int, patience time.Duration) (int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	q := sentRequest{
		method: http.MethodPost, path: "/v1/counters/c/increment", body: `{"n":1,"amount":0.25}`,
		header: map[string]string{"Content-Type": typeJSON, "Idempotency-Key": fmt.Sprint("increment-", n)},
	}
	a, err := q.within(ctx, c.apis[api])
	if err != nil {
		return 0, err
	}
	if a.header.Get("Idempotency-Replayed") != "" {
		c.replayed.Add(1)
	}
	var got struct {
		Row struct {
			N      int64
			Amount json.Number
		}
	}
	if err := json.Unmarshal(a.body, &got); err != nil || a.code != http.StatusAccepted || got.Row.Amount.String() != money(got.Row.N*25) {
		return 0, fmt.Errorf("%d %s (%w)", a.code, a.body, err)
	}
	return got.Row.N, nil
}
