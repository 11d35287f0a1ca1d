package api_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// TestUnsafeWhileRunning: what somebody changes in Redis while the API runs
// shows: an API whose Redis may evict accepted rows is not ready, and no answer
// promises what Redis does not do.
func TestUnsafeWhileRunning(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	s := setupWith(t, "create table notes (id int primary key, body text)", options{
		redis: r.URL(), buffer: buffer.Config{CheckEvery: 20 * time.Millisecond},
	})
	set := func(name, value string) {
		t.Helper()
		require.NoError(t, s.rdb.ConfigSet(t.Context(), name, value).Err())
	}
	durability := func() string {
		return s.do("PUT", s.path("notes", "1"), `{"body":"x"}`).header.Get("Headpond-Durability")
	}
	becomes := func(what string, is func() bool) {
		t.Helper()
		require.Eventually(t, is, 30*time.Second, 10*time.Millisecond, what)
	}
	require.Equal(t, "fsync", durability())
	require.Equal(t, 200, s.get("/readyz").status)

	set("appendfsync", "no")
	becomes("memory", func() bool { return durability() == "memory" })
	require.Equal(t, 200, s.get("/readyz").status, "that is a weaker promise, and a promise")
	require.Contains(t, string(s.get("/admin/v1/status").body), "CONFIG SET appendfsync always")
	set("appendfsync", "always")
	becomes("fsync", func() bool { return durability() == "fsync" })

	set("maxmemory-policy", "allkeys-lru")
	becomes("not ready", func() bool { return s.get("/readyz").status == 503 })
	require.Equal(t, "memory", durability())
	var verbose struct {
		Ready  bool
		Checks map[string]string
		Safety []buffer.Check
	}
	require.NoError(t, json.Unmarshal(s.get("/readyz?verbose").body, &verbose))
	require.False(t, verbose.Ready)
	require.Contains(t, verbose.Checks["redis"], "may evict accepted rows")
	require.Contains(t, string(s.get("/admin/v1/status").body), "may evict accepted rows")
	found := 0
	for _, c := range verbose.Safety {
		if c.Unsafe {
			found++
			require.Equal(t, "maxmemory-policy", c.Name)
			require.Equal(t, buffer.CheckError, c.Severity)
			require.Contains(t, c.Mend, "CONFIG SET maxmemory-policy noeviction")
		}
	}
	require.Equal(t, 1, found)
	set("maxmemory-policy", "noeviction")
	becomes("ready again", func() bool { return s.get("/readyz").status == 200 })
}
