//go:build linux

package main_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// Faults of Redis and of what it has on its disk.
var redisFaults = []*fault{
	{
		id: "F22", what: "Redis killed", mode: "S", soak: true, happen: killRedis,
		how: "SIGKILL under load and started again, three times",
	},
	{
		id: "F23", what: "Redis killed while its disk is slow", mode: "E", rewinds: true, happen: slowFsync, without: needsStrace,
		how: "appendfsync everysec, strace delays every fdatasync by 4 s, SIGKILL to Redis; the APIs live on",
	},
	{
		id: "F23b", what: "the same, and the APIs killed", mode: "E", loses: true, happen: slowFsyncAlone, without: needsStrace,
		how: "as F23, and SIGKILL to both APIs at the same time: what nobody holds any more is counted",
	},
	{
		id: "F24", what: "power loss of Redis", mode: "S", happen: redisPower, without: needsRoot,
		stack: stackOptions{redisDir: onLoop},
		how:   "its directory on ext4 on a loop device, FS_IOC_SHUTDOWN without flushing the journal, SIGKILL, mounted again",
	},
	{
		id: "F26", what: "end of the AOF cut off", mode: "S", rewinds: true, happen: cutAOF,
		how: "SIGKILL, 20 kB cut off the AOF, started again; the APIs live on",
	},
	{
		id: "F27", what: "AOF corrupt in the middle", mode: "S", happen: corruptAOF,
		how: "SIGKILL, a byte in the middle of the AOF changed: Redis does not start, writes are 503; the byte is put right",
	},
	{
		id: "F28", what: "old AOF restored", mode: "S", rewinds: true, happen: oldAOF,
		how: "the AOF directory is copied, more load, SIGKILL, the copy put in its place, started; the APIs live on",
	},
	{
		id: "F28b", what: "old AOF restored, APIs killed", mode: "S", loses: true, happen: oldAOFAlone,
		how: "as F28, Postgres away meanwhile, and SIGKILL to both APIs: what nobody holds any more is counted",
	},
	{
		id: "F29a", what: "FLUSHALL", mode: "S", rewinds: true, happen: func(c *chaos) { c.command("FLUSHALL") },
		how: "FLUSHALL under load; the APIs live on",
	},
	{
		id: "F29b", what: "logs deleted", mode: "S", rewinds: true, happen: deleteLogs,
		how: "DEL of every log with rows that wait in it; the APIs live on",
	},
	{
		id: "F29c", what: "data of Redis deleted", mode: "S", rewinds: true, happen: deleteData,
		how: "SIGKILL, its directory removed, started empty; the APIs live on",
	},
	{
		id: "F29d", what: "data of Redis deleted, APIs killed", mode: "S", loses: true, happen: deleteDataAlone,
		how: "Postgres away, then as F29c with SIGKILL to both APIs: what nobody holds any more is counted",
	},
	{
		id: "F30", what: "fsync fails", mode: "S", happen: failingFsync, without: needsStrace,
		how: "strace makes fdatasync of Redis fail with EIO: Redis ends; started again",
	},
	{
		id: "F31", what: "disk of Redis full", mode: "S", happen: redisDiskFull, without: needsRoot,
		stack: stackOptions{redisDir: func(c *chaos) string { return filepath.Join(c.mountTmpfs("redis", "48m", c.dir), "data") }},
		how:   "its AOF on a tmpfs of 48 MB that is filled: Redis ends; then it is emptied and Redis started",
	},
	{
		id: "F35", what: "Redis hangs", mode: "S", soak: true, happen: hangRedis,
		how: "SIGSTOP until writes were given up (504), then SIGCONT, and what lay in its sockets is applied",
	},
	{
		id: "F45", what: "scripts forgotten", mode: "S", soak: true, happen: func(c *chaos) {
			c.times(20, func() { c.command("SCRIPT", "FLUSH") })
		},
		how: "SCRIPT FLUSH under load, 20 times",
	},
}

func killRedis(c *chaos) {
	c.times(3, func() {
		require.NoError(c, c.redis.Kill())
		require.NoError(c, c.redis.Restart(c.Context()))
	})
}

// awayFromPostgres keeps rows in the log while it does something to them.
func (c *chaos) awayFromPostgres(do func()) {
	c.flushPostgres.hold(true, true)
	c.flushPostgres.cut()
	c.acks(leastRows)
	do()
	c.flushPostgres.heal()
}

// killAll kills the APIs; startAll gives as many new ones.
func (c *chaos) killAll() (startAll func()) {
	dead := slices.Clone(c.apis)
	for _, h := range dead {
		h.kill()
	}
	return func() {
		for _, h := range dead {
			c.replaceAPI(h)
		}
	}
}

func everysec(c *chaos) (strace *process) {
	c.command("CONFIG", "SET", "appendfsync", "everysec")
	strace = c.strace(c.redis.PID(), "fdatasync:delay_enter=4000000")
	c.acks(leastRows)
	c.lasts(2 * time.Second) // until Redis puts write(2) off
	return strace
}

func slowFsync(c *chaos) {
	strace := everysec(c)
	require.NoError(c, c.redis.Kill())
	strace.wait()
	require.NoError(c, c.redis.Restart(c.Context()))
}

func slowFsyncAlone(c *chaos) {
	c.awayFromPostgres(func() {
		strace := everysec(c)
		startAll := c.killAll()
		require.NoError(c, c.redis.Kill())
		strace.wait()
		require.NoError(c, c.redis.Restart(c.Context()))
		startAll()
	})
}

func redisPower(c *chaos) {
	c.powerLoss(c.redis)
	require.NoError(c, c.redis.Restart(c.Context()))
}

// aof is the file that Redis appends to.
func (c *chaos) aof() string {
	c.Helper()
	files, err := filepath.Glob(filepath.Join(c.redis.Dir(), "appendonlydir", "*.incr.aof"))
	require.NoError(c, err)
	require.NotEmpty(c, files)
	slices.SortFunc(files, func(a, b string) int { return len(a) - len(b) })
	return files[len(files)-1]
}

func cutAOF(c *chaos) {
	c.awayFromPostgres(func() {
		require.NoError(c, c.redis.Kill())
		info, err := os.Stat(c.aof())
		require.NoError(c, err)
		require.NoError(c, os.Truncate(c.aof(), max(info.Size()-20_000, 0)))
		require.NoError(c, c.redis.Restart(c.Context()))
	})
}

func corruptAOF(c *chaos) {
	require.NoError(c, c.redis.Kill())
	text, err := os.ReadFile(c.aof())
	require.NoError(c, err)
	at := len(text)/2 + bytes.Index(text[len(text)/2:], []byte("\r\n$")) + 2
	change := func(b byte) {
		f, err := os.OpenFile(c.aof(), os.O_WRONLY, 0)
		require.NoError(c, err)
		_, err = f.WriteAt([]byte{b}, int64(at))
		require.NoError(c, err)
		require.NoError(c, f.Close())
	}
	change('!')
	require.Error(c, c.redis.Restart(c.Context()), "Redis started on a corrupt file")
	c.answered("503 buffer_unavailable", 1)
	change('$')
	require.NoError(c, c.redis.Restart(c.Context()))
}

// back puts Redis back to an earlier state of its files.
func (c *chaos) back(between func()) {
	dir := filepath.Join(c.redis.Dir(), "appendonlydir")
	old := dir + ".old"
	out, err := exec.CommandContext(c.Context(), "cp", "-a", dir, old).CombinedOutput() // an end that is cut off is what a backup has too
	require.NoError(c, err, "%s", out)
	between()
	require.NoError(c, c.redis.Kill())
	require.NoError(c, os.RemoveAll(dir))
	require.NoError(c, os.Rename(old, dir))
	require.NoError(c, c.redis.Restart(c.Context()))
}

func oldAOF(c *chaos) {
	c.back(func() {
		c.commits(leastRows)
		c.acks(leastRows)
	})
}

func oldAOFAlone(c *chaos) {
	c.awayFromPostgres(func() {
		var startAll func()
		c.back(func() {
			c.acks(leastRows)
			startAll = c.killAll()
		})
		startAll()
	})
}

func deleteLogs(c *chaos) {
	c.awayFromPostgres(func() {
		require.NoError(c, c.eachRedis(func(ctx context.Context, rdb *redis.Client) error {
			for keys := rdb.Scan(ctx, 0, "hp:*:log", 1000).Iterator(); keys.Next(ctx); {
				if err := rdb.Del(ctx, keys.Val()).Err(); err != nil {
					return err
				}
			}
			return nil
		}))
	})
}

func (c *chaos) emptyRedis() {
	require.NoError(c, c.redis.Kill())
	require.NoError(c, os.RemoveAll(filepath.Join(c.redis.Dir(), "appendonlydir")))
	require.NoError(c, c.redis.Restart(c.Context()))
}

func deleteData(c *chaos) { c.awayFromPostgres(c.emptyRedis) }

func deleteDataAlone(c *chaos) {
	c.awayFromPostgres(func() {
		startAll := c.killAll()
		c.emptyRedis()
		startAll()
	})
}

func failingFsync(c *chaos) {
	strace := c.strace(c.redis.PID(), "fdatasync:error=EIO")
	c.await("the end of Redis", func() bool { return c.redis.PID() == 0 })
	strace.wait()
	require.NoError(c, c.redis.Restart(c.Context()))
}

func redisDiskFull(c *chaos) {
	filler := filepath.Join(filepath.Dir(c.redis.Dir()), "filler")
	fill(c, filler)
	c.await("the end of Redis", func() bool { return c.redis.PID() == 0 })
	require.NoError(c, os.Remove(filler))
	require.NoError(c, c.redis.Restart(c.Context()))
}

func hangRedis(c *chaos) {
	pid := c.redis.PID()
	require.NoError(c, syscall.Kill(pid, syscall.SIGSTOP))
	c.answered("504 outcome_unknown", 1)
	require.NoError(c, syscall.Kill(pid, syscall.SIGCONT))
}
