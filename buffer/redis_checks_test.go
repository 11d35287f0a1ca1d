package buffer_test

import (
	"context"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// TestRedisChecks: what is wrong with a Redis is found, said, and gone when it
// is mended.
func TestRedisChecks(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	b := setupOn(t, r.URL())
	set := func(name, value string) {
		t.Helper()
		require.NoError(t, b.rdb.ConfigSet(t.Context(), name, value).Err())
	}
	found := func() map[string]buffer.Severity {
		t.Helper()
		_ = b.CheckDurability(t.Context()) // the policy's error is among the checks
		out := make(map[string]buffer.Severity)
		for _, c := range b.Durability().Checks {
			require.NotEmpty(t, c.Text)
			require.Equal(t, buffer.GroupRedis, c.Group)
			if c.Severity != buffer.CheckOK {
				out[c.Name] = c.Severity
			}
		}
		return out
	}
	set("maxmemory", "128mb")
	require.Empty(t, found(), "a sound Redis: %v", b.Durability().Warnings)
	for _, x := range []struct {
		setting, bad, good, name string
		severity                 buffer.Severity
	}{
		{"maxmemory", "0", "128mb", "maxmemory", buffer.CheckWarning},
		{"maxmemory", "16mb", "128mb", "maxmemory", buffer.CheckWarning},
		{"maxmemory", "900kb", "128mb", "maxmemory", buffer.CheckError},
		{"maxmemory-policy", "allkeys-random", "volatile-lru", "maxmemory-policy", buffer.CheckError},
		{"appendfsync", "no", "always", "appendfsync", buffer.CheckWarning},
		{"no-appendfsync-on-rewrite", "yes", "no", "no-appendfsync-on-rewrite", buffer.CheckWarning},
		{"min-replicas-to-write", "1", "0", "replicas", buffer.CheckError},
		{"lua-time-limit", "50", "5000", "lua-time-limit", buffer.CheckWarning},
		{"maxclients", "33", "10000", "maxclients", buffer.CheckWarning},
	} {
		set(x.setting, x.bad)
		require.Equal(t, map[string]buffer.Severity{x.name: x.severity}, found(), "%s %s", x.setting, x.bad)
		set(x.setting, x.good)
		require.Empty(t, found(), x.setting)
	}
	require.NoError(t, b.rdb.Set(t.Context(), "somebody", "else", 0).Err())
	require.Contains(t, found(), "sharing")
	require.NoError(t, b.rdb.Del(t.Context(), "somebody").Err())
	require.NoError(t, b.rdb.Do(t.Context(), "replicaof", "127.0.0.1", "1").Err())
	require.Equal(t, buffer.CheckError, found()["role"])
}

// TestRedisTellsNothing: without CONFIG and INFO nothing is promised.
func TestRedisTellsNothing(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	admin := setupOn(t, r.URL())
	require.NoError(t, admin.rdb.Do(t.Context(), "acl", "setuser", "pond", "on", ">secret", "~*", "&*", "+@all", "-config", "-info").Err())
	u, err := url.Parse(r.URL())
	require.NoError(t, err)
	u.User = url.UserPassword("pond", "secret")
	b := setupOn(t, u.String())
	require.NoError(t, b.CheckDurability(context.Background()))
	require.Equal(t, "memory", b.Durability().Level)
	require.Len(t, b.Durability().Warnings, 2)

	u.User = url.UserPassword("pond", "wrong")
	require.ErrorContains(t, setupOn(t, u.String()).CheckDurability(context.Background()), "WRONGPASS")
}
