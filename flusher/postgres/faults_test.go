package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
	"github.com/headpond/headpond/flusher"
)

// The numbers F are those of the list of faults that Headpond is tested against.

const longEnough = time.Minute

// faultBundle is a whole flusher over a log in memory.
type faultBundle struct {
	*flushBundle
	flusher *flusher.Flusher
	admin   *pgxpool.Pool // a session that is not the flusher's, and may always write

	mu      sync.Mutex // guards the rest
	frames  []*table.Frame
	settled uint64
	added   uint64
}

func (b *faultBundle) tail(p buffer.Place) buffer.Tail {
	return buffer.Tail{Place: p, Open: true, Last: table.ID{Epoch: 1, Seq: b.added}, Settled: b.settled}
}

func (b *faultBundle) Tails(_ context.Context, places []buffer.Place) (out []buffer.Tail, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range places {
		out = append(out, b.tail(p))
	}
	return out, nil
}

func (b *faultBundle) Frames(_ context.Context, _ buffer.Place, after table.ID, _, _ int) (out []*table.Frame, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.frames {
		if f.Last.Seq > after.Seq {
			out = append(out, f)
		}
	}
	return out, nil
}

func (b *faultBundle) Settle(_ context.Context, all []buffer.Settlement) (out []buffer.Tail, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range all {
		b.settled = max(b.settled, s.Watermark.Seq)
		out = append(out, b.tail(s.Place))
	}
	return out, nil
}

func (b *faultBundle) Lag(string, time.Duration, int64)           {}
func (b *faultBundle) Sampled(string, time.Duration, table.Span)  {}
func (b *faultBundle) Flushed(string, string, int, time.Duration) {}

// add puts an operation on so many new keys into the log; value says what v is.
func (b *faultBundle) add(op table.Op, rows int, value func(id uint64) string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := &table.Frame{Columns: []byte("id\tv\tw")}
	for range rows {
		b.added++
		f.Add(op, time.Now().UnixMicro(), fmt.Appendf(nil, "%d\t%s\tw\n", b.added, value(b.added)))
	}
	f.Last = table.ID{Epoch: 1, Seq: b.added}
	b.frames = append(b.frames, f)
}

func one(uint64) string { return "1" }

// setupFaults runs a flusher on a server, with the table t.
func setupFaults(t *testing.T, url, ddl string) *faultBundle {
	t.Helper()
	b := &faultBundle{flushBundle: setupFlushAt(t, url, ddl, 1)}
	b.admin = openURL(t, url+"&default_transaction_read_only=off&application_name=admin", "")
	known := loadTables(t, b.pool)["t"]
	b.Store = NewStore(b.pool, func(string) *table.Table { return known })
	var err error
	b.flusher, err = flusher.New(flusher.Config{Workers: 2, Sweep: 50 * time.Millisecond, Drain: time.Millisecond},
		b, b.Store, nil, b, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	b.flusher.Set(flusher.Table{Name: "t", Partitions: 1, Linger: time.Millisecond, TargetLag: time.Second, PoisonLimit: 100})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.flusher.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
	})
	return b
}

// retried waits until batches were tried again because of an error of this class.
func (b *faultBundle) retried(class flusher.Class, more int64) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return b.flusher.Stats().Tables["t"].Retries[string(class)] >= more },
		longEnough, time.Millisecond, "%+v", b.flusher.Stats())
}

func (b *faultBundle) retries(class flusher.Class) int64 {
	return b.flusher.Stats().Tables["t"].Retries[string(class)]
}

// arrives waits until all is settled: every row once, no dead letter.
func (b *faultBundle) arrives() {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.settled == b.added
	}, longEnough, time.Millisecond, "%+v", b.flusher.Stats())
	require.Eventually(b.t, func() bool {
		s := b.flusher.Stats()
		return s.Tables["t"].Error == "" && s.Breaker.State == buffer.BreakerClosed
	}, longEnough, time.Millisecond)
	p := b.progress()
	require.Equal(b.t, buffer.Progress{Place: p.Place, Watermark: table.ID{Epoch: 1, Seq: b.added}, Committed: int64(b.added)}, p)
	require.EqualValues(b.t, b.added, b.count(`select count(*) from t`))
	require.Zero(b.t, b.count(`select count(*) from headpond.dead_letters`))
}

// TestPostgresEnds in every way there is, and is read-only for a while: nothing is
// lost, nothing is a dead letter, nobody has to do anything (F7, F12).
func TestPostgresEnds(t *testing.T) {
	t.Parallel()
	server := uptest.Postgres(t)
	b := setupFaults(t, server.URL(), intTable)
	gone := func(pid int) {
		require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, longEnough, time.Millisecond)
	}
	for _, fault := range []struct {
		name string
		do   func() (heal func())
	}{
		{"kill -9 of one backend", func() func() {
			pid, err := strconv.Atoi(value(t, b.admin, `select min(pid) from pg_stat_activity where application_name = 'headpond' and pid <> pg_backend_pid()`))
			require.NoError(t, err)
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			return func() {}
		}},
		{"pg_terminate_backend", func() func() {
			execute(t, b.admin, `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'headpond' and pid <> pg_backend_pid()`)
			return func() {}
		}},
		{"immediate stop", func() func() {
			pid := server.PID()
			require.NoError(t, syscall.Kill(pid, syscall.SIGQUIT))
			gone(pid)
			return func() { require.NoError(t, server.Restart(t.Context())) }
		}},
		{"kill -9 of the postmaster", func() func() {
			require.NoError(t, server.Kill())
			return func() { require.NoError(t, server.Restart(t.Context())) }
		}},
		{"fast restart", func() func() {
			require.NoError(t, server.Restart(t.Context()))
			return func() {}
		}},
		{"read-only", func() func() {
			execute(t, b.admin, `alter system set default_transaction_read_only = on`)
			execute(t, b.admin, `select pg_reload_conf()`)
			return func() {
				execute(t, b.admin, `alter system reset default_transaction_read_only`)
				execute(t, b.admin, `select pg_reload_conf()`)
			}
		}},
	} {
		b.add(table.OpInsert, 100, one)
		b.arrives()
		before := b.retries(flusher.Unreachable)
		heal := fault.do()
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					b.add(table.OpInsert, 1, one)
					time.Sleep(time.Millisecond) // the load's pace
				}
			}
		}()
		b.retried(flusher.Unreachable, before+1)
		heal()
		close(stop)
		<-stopped
		b.admin.Reset()
		t.Log(fault.name, b.retries(flusher.Unreachable)-before)
		b.arrives()
	}
}

// TestBreakerOpensWhilePostgresIsAway and tells why.
func TestBreakerOpensWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	server := uptest.Postgres(t)
	b := setupFaults(t, server.URL(), intTable)
	require.NoError(t, server.Kill())
	b.add(table.OpInsert, 10, one)
	require.Eventually(t, func() bool { return b.flusher.Stats().Breaker.State == buffer.BreakerOpen }, longEnough, time.Millisecond)
	s := b.flusher.Stats().Breaker
	require.Contains(t, s.Why, "connection refused")
	require.False(t, s.Since.IsZero())
	require.NoError(t, server.Restart(t.Context()))
	b.arrives()
}

// TestDeadlockWithAnotherWriter: the flush is the one that Postgres picks. It is
// tried again at once (F15).
func TestDeadlockWithAnotherWriter(t *testing.T) {
	t.Parallel()
	b := setupFaults(t, uptest.Database(t), intTable+`; insert into t select i, 0, 'before' from generate_series(1, 100) i`)
	tx, err := b.admin.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = tx.Exec(t.Context(), `set local deadlock_timeout = '1h'`) // never picked itself
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `update t set w = 'other' where id = 100`)
	require.NoError(t, err)
	b.add(table.OpPut, 100, one) // in the order of keys: locks the first and waits for the last
	require.Eventually(t, func() bool {
		return b.count(`select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`) > 0
	}, longEnough, time.Millisecond)
	_, err = tx.Exec(t.Context(), `update t set w = 'other' where id = 1`)
	require.NoError(t, err, "the other writer goes on")
	b.retried(flusher.Contention, 1)
	require.NoError(t, tx.Commit(t.Context()))
	b.arrives()
	require.Equal(t, 100, b.count(`select count(*) from t where w = 'w'`))
}

// TestTableLockedForLong: lock_timeout passes, the batch is tried again, and no row
// is to blame (F16).
func TestTableLockedForLong(t *testing.T) {
	t.Parallel()
	b := setupFaults(t, uptest.Database(t), intTable)
	tx, err := b.admin.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = tx.Exec(t.Context(), `lock table t in access exclusive mode`)
	require.NoError(t, err)
	b.add(table.OpInsert, 10, one)
	b.retried(flusher.Contention, 1)
	require.Contains(t, b.flusher.Stats().Tables["t"].Error, "55P03")
	require.False(t, b.flusher.Stats().Tables["t"].Halted)
	require.Equal(t, buffer.BreakerClosed, b.flusher.Stats().Breaker.State)
	require.NoError(t, tx.Rollback(t.Context()))
	b.arrives()
}

// TestNotNullUnderTheLog: the rows that wait have no value for a column that must
// have one now. The table is halted, and goes on when that is taken back (F20).
func TestNotNullUnderTheLog(t *testing.T) {
	t.Parallel()
	b := setupFaults(t, uptest.Database(t), intTable)
	execute(t, b.admin, `alter table t alter v set not null`)
	b.add(table.OpInsert, 2000, func(uint64) string { return `\N` })
	b.retried(flusher.Poison, 2)
	require.True(t, b.flusher.Stats().Tables["t"].Halted)
	require.Contains(t, b.flusher.Stats().Tables["t"].Error, "23502")
	require.Zero(t, b.count(`select count(*) from headpond.dead_letters`))
	execute(t, b.admin, `alter table t alter v drop not null`)
	b.arrives()
}

// TestTableIsDroppedAndComesBack, a privilege is taken and given: halted meanwhile
// (F20).
func TestTableIsDroppedAndComesBack(t *testing.T) {
	t.Parallel()
	b := setupFaults(t, uptest.Database(t), intTable)
	for _, c := range []struct{ away, back, state string }{
		{`alter table t rename to moved`, `alter table moved rename to t`, "42P01"},
		{`alter schema public rename to hidden`, `alter schema hidden rename to public`, "3F000"},
	} {
		execute(t, b.admin, c.away)
		before := b.retries(flusher.Schema)
		b.add(table.OpInsert, 10, one)
		b.retried(flusher.Schema, before+2)
		require.True(t, b.flusher.Stats().Tables["t"].Halted)
		require.Contains(t, b.flusher.Stats().Tables["t"].Error, c.state)
		execute(t, b.admin, c.back)
		b.arrives()
	}
}

// TestDiskFull: a table's disk is full. Its rows wait, other tables are not held
// up by a breaker, and it goes on when there is room (F11).
func TestDiskFull(t *testing.T) {
	t.Parallel()
	server := uptest.Postgres(t)
	disk := smallDisk(t, server, "8m")
	admin := openURL(t, server.URL(), "")
	execute(t, admin, `create tablespace small location '`+disk+`'`)
	b := setupFaults(t, server.URL(), strings.TrimSuffix(intTable, ")")+`) tablespace small;
		create table filler (v text) tablespace small`)
	for full := false; !full; {
		_, err := b.admin.Exec(t.Context(), `insert into filler select repeat('x', 1000) from generate_series(1, 200)`)
		full = err != nil
		if full {
			require.ErrorContains(t, err, "53100")
		}
	}
	b.add(table.OpInsert, 5000, one)
	b.retried(flusher.Environment, 3)
	s := b.flusher.Stats()
	require.Contains(t, s.Tables["t"].Error, "53100")
	require.False(t, s.Tables["t"].Halted)
	require.Equal(t, buffer.BreakerClosed, s.Breaker.State, "other tables may have room")
	execute(t, b.admin, `drop table filler`)
	b.arrives()
	execute(t, b.admin, `drop table t`) // before its disk goes
}

// smallDisk mounts a disk of a size that belongs to whom the server belongs to.
func smallDisk(t *testing.T, server *up.Postgres, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small disk")
	}
	dir := filepath.Join(server.Dir(), "small")
	require.NoError(t, os.Mkdir(dir, 0o700))
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("no small disk can be mounted here: %s", out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() }) //nolint:noctx // the test's context has ended
	owner, err := os.Stat(filepath.Join(server.Dir(), "data"))
	require.NoError(t, err)
	if who, ok := owner.Sys().(*syscall.Stat_t); ok {
		require.NoError(t, os.Chown(dir, int(who.Uid), int(who.Gid)))
	}
	return dir
}

// Reopen implements flusher.Log: its log is whole.
func (b *faultBundle) Reopen(context.Context, buffer.Place, uint64) error { return nil }

// Paused implements flusher.Log: it never is.
func (b *faultBundle) Paused(context.Context, string) (bool, error) { return false, nil }
