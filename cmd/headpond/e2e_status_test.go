package main_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// page is what TestKillFromThePage reads of the status.
type page struct {
	Verdict string
	Stack   struct {
		PID  int  `json:"flusher_pid"`
		Kill bool `json:"can_kill_flusher"`
	} `json:"local_stack"`
	Events   []struct{ Kind, Detail string }
	Flushers []struct {
		PID        int
		LastCommit *string `json:"last_commit_at"`
	}
	Storage []struct{ Name, Level, Message string }
	Pools   struct {
		Redis    struct{ Total int }
		Postgres struct{ Total, Max int }
	}
}

func (h *headpond) page(t *testing.T) (p page) {
	t.Helper()
	a := h.get(t, "/admin/v1/status")
	require.NoError(t, json.Unmarshal(a.body, &p), "%s", a.body)
	return p
}

func (p *page) happened(kind string) bool {
	for _, e := range p.Events {
		if e.Kind == kind {
			return true
		}
	}
	return false
}

// TestKillFromThePage: the flusher is killed through the API, its supervisor starts
// it again, what was accepted meanwhile is committed, and all of it can be seen. The
// catalog is read again when it is asked for.
func TestKillFromThePage(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	h := startUp(t, program, "--split", "--ephemeral")
	await(t, "the flusher's report", func() bool { return len(h.page(t).Flushers) == 1 })
	before := h.page(t)
	require.True(t, before.Stack.Kill)
	require.Equal(t, before.Stack.PID, before.Flushers[0].PID)
	require.Positive(t, before.Pools.Redis.Total)
	require.Equal(t, 8, before.Pools.Postgres.Max)
	await(t, "the checks", func() bool { return len(h.page(t).Storage) > 10 })

	execute(t, h.database, "create table later (id int primary key)")
	a, err := request(http.MethodPost, h.api+"/admin/v1/tables/later/reload", "", "")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, a.code, "%s", a.body)

	a, err = request(http.MethodPost, h.api+"/admin/v1/local-stack/flusher/kill?down=8s", "", "")
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, a.code, "%s", a.body)
	a, err = h.post("later", typeJSON, `{"id":1}`)
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, a.code, "%s", a.body)
	await(t, "a verdict", func() bool {
		p := h.page(t)
		return p.happened("flusher_killed") && p.Verdict == "stalled"
	})
	await(t, "another flusher that commits", func() bool {
		p := h.page(t)
		return p.Events[0].Kind == "flusher_started" && len(p.Flushers) == 1 && p.Flushers[0].PID != before.Stack.PID && p.Flushers[0].LastCommit != nil
	})
	h.settled(t)
	require.Equal(t, "ok", h.page(t).Verdict)
	require.EqualValues(t, 1, value[int64](t, h.database, "select count(*) from later"))
}
