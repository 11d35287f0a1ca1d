package up_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

func client(t testing.TB, r *up.Redis) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(r.URL())
	require.NoError(t, err)
	c := redis.NewClient(options)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestRedisIsDurableAndLocal(t *testing.T) {
	t.Parallel()
	c := client(t, uptest.SharedRedis(t))
	for name, want := range map[string]string{
		"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no",
		"maxmemory-policy": "volatile-lru", "save": "", "bind": "127.0.0.1",
	} {
		got, err := c.ConfigGet(t.Context(), name).Result()
		require.NoError(t, err)
		require.Equal(t, want, got[name], name)
	}
}

func TestRedisKillAndRestart(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	url, pid := r.URL(), r.PID()
	require.NoError(t, client(t, r).Set(t.Context(), "k", "v", 0).Err())

	require.NoError(t, r.Kill())
	require.Zero(t, r.PID())
	require.NoError(t, r.Restart(t.Context()))
	require.Equal(t, url, r.URL())
	require.NotEqual(t, pid, r.PID())
	require.Equal(t, "v", client(t, r).Get(t.Context(), "k").Val())
}

// A terminal sends Ctrl-C to the whole group in the foreground. The servers must
// outlive the flusher, which is stopped first.
func TestChildIsInAGroupOfItsOwn(t *testing.T) {
	t.Parallel()
	pid := uptest.SharedRedis(t).PID()
	group, err := syscall.Getpgid(pid)
	require.NoError(t, err)
	require.Equal(t, pid, group)
}

func TestRedisStopAndRestart(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	url := r.URL()
	require.NoError(t, client(t, r).Set(t.Context(), "k", "v", 0).Err())
	require.NoError(t, r.Stop())
	require.NoError(t, r.Stop(), "a second Stop does nothing")
	require.NoError(t, r.Restart(t.Context()))
	require.Equal(t, url, r.URL())
	require.Equal(t, "v", client(t, r).Get(t.Context(), "k").Val())
}

func TestRedisStartsWithTruncatedTail(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	c := client(t, r)
	require.NoError(t, c.Set(t.Context(), "first", "v", 0).Err())
	require.NoError(t, c.Set(t.Context(), "second", "v", 0).Err())
	require.NoError(t, r.Kill())
	truncate(t, r.Dir(), 5)

	require.NoError(t, r.Restart(t.Context()))
	require.Equal(t, "v", c.Get(t.Context(), "first").Val())
	require.ErrorIs(t, c.Get(t.Context(), "second").Err(), redis.Nil)
}

// truncate cuts bytes off the end of the append-only file: one file before
// Redis 7, the incremental one of several since.
func truncate(t *testing.T, dir string, bytes int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "appendonlydir", "*.incr.aof"))
	require.NoError(t, err)
	if len(files) == 0 {
		files = []string{filepath.Join(dir, "appendonly.aof")}
	}
	info, err := os.Stat(files[0])
	require.NoError(t, err)
	require.NoError(t, os.Truncate(files[0], info.Size()-bytes))
}

// An append-only file that is broken in its midst is for a person to judge: the
// error says what Redis said.
func TestStartErrorQuotesTheLog(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	require.NoError(t, client(t, r).Set(t.Context(), "k", "v", 0).Err())
	require.NoError(t, r.Stop())
	files, err := filepath.Glob(filepath.Join(r.Dir(), "appendonlydir", "*.incr.aof"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	require.NoError(t, os.WriteFile(files[0], []byte("nonsense that is no command\r\n"), 0o600))

	err = r.Restart(t.Context())
	var died *up.DiedError
	require.ErrorAs(t, err, &died)
	require.Contains(t, err.Error(), "exit status 1")
	require.Contains(t, err.Error(), "Bad file format reading the append only file")
	require.Equal(t, r.LogFile(), died.LogFile)
}

func TestEphemeralIsForgotten(t *testing.T) {
	t.Parallel()
	r, err := up.StartRedis(t.Context(), up.RedisOptions{Ephemeral: true})
	require.NoError(t, err)
	require.DirExists(t, r.Dir())
	require.NoError(t, r.Stop())
	require.NoDirExists(t, r.Dir())
	require.ErrorIs(t, r.Restart(t.Context()), up.ErrForgotten)
}

func TestStartIsCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := filepath.Join(uptest.Dir(t), "redis")
	_, err := up.StartRedis(ctx, up.RedisOptions{Dir: dir})
	require.ErrorIs(t, err, context.Canceled)

	r, err := up.StartRedis(t.Context(), up.RedisOptions{Dir: dir})
	require.NoError(t, err, "a cancelled start gives the directory back")
	require.NoError(t, r.Stop())
}

func TestOptionsNameOneDirectory(t *testing.T) {
	t.Parallel()
	_, err := up.StartRedis(t.Context(), up.RedisOptions{})
	require.ErrorContains(t, err, "either Dir or Ephemeral")
	_, err = up.StartRedis(t.Context(), up.RedisOptions{Dir: "x", Ephemeral: true})
	require.ErrorContains(t, err, "only one of Dir and Ephemeral")
}
