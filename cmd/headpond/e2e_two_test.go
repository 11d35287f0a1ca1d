package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTwoAPIProcesses: two APIs on one buffer are one API. A key that is
// written to both at once is accepted by one of them, and what one has
// accepted the other one reads at once.
func TestTwoAPIProcesses(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := startServers(t, program)
	execute(t, s.postgres.URL(), `create table raced (id int primary key, by int not null, note text)`)
	apis := [2]*headpond{s.serve(t, "--role", "api"), s.serve(t, "--role", "api")}
	for _, h := range apis {
		h.serves(t, "raced")
	}
	const keys = 2000
	winners := make([]int, keys)
	var workers sync.WaitGroup
	next := make(chan int)
	for range 8 {
		workers.Go(func() {
			for key := range next {
				winners[key] = race(t, apis, key)
			}
		})
	}
	for key := range keys {
		next <- key
	}
	close(next)
	workers.Wait()
	require.False(t, t.Failed())
	won := 0
	for _, w := range winners {
		won += w
	}
	require.NotContains(t, []int{0, keys}, won, "one of the two was always faster: that is no race")

	flusher(t, program, s.postgres.URL(), s.redis.URL())
	apis[0].settled(t)
	apis[1].settled(t)
	by := column[int64](t, s.postgres.URL(), `select by from raced order by id`)
	require.Len(t, by, keys)
	for key, w := range winners {
		require.EqualValues(t, w, by[key], "the row that was accepted is the one that is there")
	}
	require.Zero(t, value[int64](t, s.postgres.URL(), `select count(*) from headpond.dead_letters`))
}

// race posts one key to both, and gives which of them took it. There is no
// flusher yet: the key is in the buffer and nowhere else.
func race(t *testing.T, apis [2]*headpond, key int) (winner int) {
	var answers [2]answer
	var errs [2]error
	start := make(chan struct{})
	var both sync.WaitGroup
	for i := range apis {
		both.Go(func() {
			<-start
			answers[i], errs[i] = apis[i].post("raced", typeJSON, fmt.Sprintf(`{"id":%d,"by":%d,"note":"key %d"}`, key, i, key))
		})
	}
	close(start)
	both.Wait()
	if errs[0] != nil || errs[1] != nil {
		t.Errorf("key %d: %v", key, errs)
		return 0
	}
	if answers[0].code != http.StatusAccepted {
		winner = 1
	}
	loser := answers[1-winner]
	if answers[winner].code != http.StatusAccepted || loser.code != http.StatusConflict || loser.field("code") != "row_exists" {
		t.Errorf("key %d: %d %s and %d %s", key, answers[0].code, answers[0].body, answers[1].code, answers[1].body)
		return winner
	}
	want := fmt.Sprintf(`{"id":%d,"by":%d,"note":"key %d"}`, key, winner, key)
	for _, h := range apis {
		a, err := request(http.MethodGet, fmt.Sprintf("%s/v1/raced/%d", h.api, key), "", "")
		var same bool
		if err == nil {
			same = equalJSON(want, string(a.body))
		}
		if !same || a.code != http.StatusOK || a.header.Get("Headpond-Durability") != "pending" ||
			a.header.Get("ETag") != answers[winner].header.Get("ETag") {
			t.Errorf("key %d is read as %d %s %v (%v), not %s", key, a.code, a.body, a.header, err, want)
		}
	}
	return winner
}

func equalJSON(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return false
	}
	xs, _ := json.Marshal(x) // what was read can be written
	ys, _ := json.Marshal(y)
	return string(xs) == string(ys)
}
