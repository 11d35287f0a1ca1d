//go:build linux

package main_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"
)

// Faults of Postgres.
var postgresFaults = []*fault{
	{
		id: "F4", what: "COMMIT late", mode: "S", soak: true, happen: commitsMeet(commitLate, 3),
		how: "a proxy keeps each of three COMMITs back for 5 s, with another flusher at work",
	},
	{
		id: "F5", what: "COMMIT applied, answer lost", mode: "S", soak: true, happen: commitsMeet(commitReplyLost, 8),
		how: "a proxy breaks the connection when Postgres answers a COMMIT, eight times",
	},
	{
		id: "F6", what: "COMMIT never arrives", mode: "S", soak: true, happen: commitsMeet(commitNeverSent, 8),
		how: "a proxy breaks the connection before a COMMIT gets through, eight times",
	},
	{
		id: "F7a", what: "Postgres restarted, fast", mode: "S", soak: true, happen: endPostgres(syscall.SIGINT),
		how: "fast shutdown (SIGINT) under load, then started again",
	},
	{
		id: "F7b", what: "Postgres restarted, immediate", mode: "S", soak: true, happen: endPostgres(syscall.SIGQUIT),
		how: "immediate shutdown (SIGQUIT) under load, then started again, which recovers",
	},
	{
		id: "F7c", what: "Postgres killed", mode: "S", soak: true, happen: endPostgres(syscall.SIGKILL),
		how: "SIGKILL to the postmaster under load, then started again",
	},
	{
		id: "F7d", what: "a backend killed", mode: "S", soak: true, happen: killBackend,
		how: "SIGKILL to a backend of a flusher: Postgres ends all others and recovers; three times",
	},
	{
		id: "F7e", what: "sessions ended", mode: "S", soak: true, happen: endSessions,
		how: "pg_terminate_backend to every session of Headpond, ten times",
	},
	{
		id: "F8", what: "Postgres away until the backlog is full", mode: "S", happen: fullBacklog,
		stack: stackOptions{config: "\nlimits: { backlog_rows: 2000 }"},
		how:   "Postgres killed; backlog_rows 2,000 reached (503 backlog_full); then started again",
	},
	{
		id: "F9", what: "Postgres hangs", mode: "S", soak: true, happen: hangPostgres,
		how: "SIGSTOP to all its processes for 8 s",
	},
	{
		id: "F10", what: "Postgres slow", mode: "S", soak: true, happen: slowPostgres,
		how: "a proxy delays everything between flushers and Postgres by 100 ms, for 6 s",
	},
	{
		id: "F11", what: "disk of Postgres full", mode: "S", happen: fullDisk, without: needsRoot,
		how: "the table lies in a tablespace on a tmpfs of 8 MB that is filled (53100); then it is emptied",
	},
	{
		id: "F12", what: "Postgres read-only", mode: "S", soak: true, happen: readOnly,
		how: "default_transaction_read_only on and all sessions ended, for 3 s (25006)",
	},
	{
		id: "F13", what: "failover to a standby that lags", mode: "S", rewinds: true, happen: lagging,
		how: "pg_basebackup, more load, Postgres killed, the copy started in its place: watermark and rows go back",
	},
	{
		id: "F14", what: "wait for a standby cancelled", mode: "S", happen: cancelledSync,
		how: "synchronous_standby_names names nobody; the COMMITs that wait are cancelled (a warning, and success); then it is mended",
	},
	{
		id: "F15", what: "deadlocks", mode: "S", soak: true, happen: deadlocks,
		how: "another writer changes the same rows in the other order until Postgres has broken a deadlock of both (40P01)",
	},
	{
		id: "F16", what: "table locked", mode: "S", soak: true, happen: lockTable,
		how: "LOCK TABLE … ACCESS EXCLUSIVE by another session until a flush gave up (55P03)",
	},
	{
		id: "F25", what: "power loss of Postgres", mode: "S", happen: postgresPower, without: needsRoot,
		stack: stackOptions{sync: true, postgresDir: onLoop},
		how:   "PGDATA on ext4 on a loop device, FS_IOC_SHUTDOWN without flushing the journal, SIGKILL, mounted again",
	},
}

// commitsMeet lets COMMITs of flushers meet a fate.
func commitsMeet(fate commitFate, n int) func(c *chaos) {
	return func(c *chaos) {
		c.flushPostgres.doom(fate, n)
		c.await("COMMITs to meet it", func() bool { return c.flushPostgres.doomedSoFar() >= n })
		c.commits(1)
	}
}

func endPostgres(s syscall.Signal) func(c *chaos) {
	return func(c *chaos) {
		c.step("signal %s", s)
		if s == syscall.SIGKILL {
			require.NoError(c, c.postgres.Kill())
		} else {
			require.NoError(c, syscall.Kill(c.postgres.PID(), s))
			c.await("the end of Postgres", func() bool { return c.postgres.PID() == 0 })
		}
		c.acks(leastRows) // without Postgres
		require.NoError(c, c.postgres.Restart(c.Context()))
	}
}

func killBackend(c *chaos) {
	for range 3 {
		c.await("a backend to kill", func() bool {
			pid, err := c.ask(`select coalesce(max(pid), 0) from pg_stat_activity where application_name = 'headpond flusher'`)
			return err == nil && pid > 0 && syscall.Kill(int(pid), syscall.SIGKILL) == nil
		})
		c.commits(100)
	}
}

func endSessions(c *chaos) {
	for range 10 {
		c.sql(`select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'headpond%'`)
		c.commits(c.r.Int64N(100))
	}
}

func fullBacklog(c *chaos) {
	require.NoError(c, c.postgres.Kill())
	c.answered("503 backlog_full", 30)
	require.NoError(c, c.postgres.Restart(c.Context()))
}

func hangPostgres(c *chaos) {
	frozen := freeze(c.T, c.postgres.PID())
	c.acks(leastRows)
	c.lasts(8 * time.Second)
	for _, pid := range frozen {
		_ = syscall.Kill(pid, syscall.SIGCONT) // one may have ended
	}
}

func slowPostgres(c *chaos) {
	slow := manner{latency: 100 * time.Millisecond}
	c.flushPostgres.set(func(w *wire) { w.up, w.down = slow, slow })
	c.acks(leastRows)
	c.lasts(6 * time.Second)
	c.flushPostgres.heal()
}

func fullDisk(c *chaos) {
	dir := c.mountTmpfs("tablespace", "8m", filepath.Dir(c.postgres.Dir()))
	c.own(dir, c.postgres.Dir())
	c.sql(`create tablespace small location '` + dir + `'`)
	c.sql(`alter table chaos_append set tablespace small`)
	filler := filepath.Join(dir, "filler")
	heard := c.listening()
	fill(c, filler)
	heard("SQLSTATE 53100")
	c.acks(leastRows)
	require.NoError(c, os.Remove(filler))
}

func readOnly(c *chaos) {
	c.sql(`alter database headpond set default_transaction_read_only = on`)
	c.sql(`select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'headpond%'`)
	c.acks(leastRows)
	c.lasts(3 * time.Second)
	c.sql(`begin read write; alter database headpond reset default_transaction_read_only; commit`)
}

func lagging(c *chaos) {
	data, copied := filepath.Join(c.postgres.Dir(), "data"), filepath.Join(c.postgres.Dir(), "copy")
	c.asOwner(c.postgres.Dir(), c.postgresProgram("pg_basebackup"), "-d", c.postgres.URL(), "-D", copied, "-c", "fast", "-X", "stream")
	c.acks(leastRows)
	c.commits(leastRows)
	require.NoError(c, c.postgres.Kill())
	require.NoError(c, os.Rename(data, data+".lost"))
	require.NoError(c, os.Rename(copied, data))
	require.NoError(c, c.postgres.Restart(c.Context()))
}

func cancelledSync(c *chaos) {
	c.sql(`alter system set synchronous_standby_names = 'nobody'`)
	c.sql(`select pg_reload_conf()`)
	waiting := `from pg_stat_activity where application_name = 'headpond flusher' and wait_event = 'SyncRep'`
	for range 3 {
		c.await("a COMMIT that waits", func() bool {
			n, err := c.ask(`select count(*) ` + waiting)
			return err == nil && n > 0
		})
		c.sql(`select pg_cancel_backend(pid) ` + waiting)
	}
	c.acks(leastRows)
	c.sql(`alter system reset synchronous_standby_names`)
	c.sql(`select pg_reload_conf()`)
}

func deadlocks(c *chaos) {
	count := func() int64 {
		return value[int64](c.T, c.postgres.URL(), `select deadlocks from pg_stat_database where datname = 'headpond'`)
	}
	before := count()
	conn := connect(c.T, c.postgres.URL())
	c.await("a deadlock", func() bool {
		tx, err := conn.Begin(c.Context())
		require.NoError(c, err)
		for key := chaosKeys; key >= 0; key -= 3 {
			if _, err = tx.Exec(c.Context(), `update chaos_rows set note = note where key between $1 and $1 + 2`, key); err != nil {
				break // we were the one to give way
			}
			<-time.After(30 * time.Millisecond)
		}
		_ = tx.Rollback(c.Context())
		return count() > before
	})
}

func lockTable(c *chaos) {
	conn := connect(c.T, c.postgres.URL())
	tx, err := conn.Begin(c.Context())
	require.NoError(c, err)
	heard := c.listening()
	_, err = tx.Exec(c.Context(), `lock table chaos_append in access exclusive mode`)
	require.NoError(c, err)
	c.acks(leastRows)
	heard("SQLSTATE 55P03")
	require.NoError(c, tx.Rollback(c.Context()))
}

func postgresPower(c *chaos) {
	c.commits(leastRows)
	c.powerLoss(c.postgres)
	require.NoError(c, c.postgres.Restart(c.Context()))
}

func lastNumber(text string) float64 {
	f := strings.Fields(text)
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.ParseFloat(f[len(f)-1], 64)
	return n
}
