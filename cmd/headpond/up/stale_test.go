package up_test

import (
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// orphan makes a running server look as if its owner had died and left it: the
// next start gets a lock that nobody holds.
func orphan(t *testing.T, dir string) {
	t.Helper()
	lock := filepath.Join(dir, "lock")
	require.NoError(t, os.Remove(lock))
	require.NoError(t, os.WriteFile(lock, nil, 0o600))
}

func TestStaleServerIsEnded(t *testing.T) {
	t.Parallel()
	old := uptest.Redis(t)
	require.NoError(t, client(t, old).Set(t.Context(), "k", "v", 0).Err())
	orphan(t, old.Dir())

	r, err := up.StartRedis(t.Context(), up.RedisOptions{Dir: old.Dir()})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Stop()) }()
	require.Zero(t, old.PID())
	require.Equal(t, old.URL(), r.URL(), "its port was free again")
	require.Equal(t, "v", client(t, r).Get(t.Context(), "k").Val())
	log, err := os.ReadFile(r.LogFile())
	require.NoError(t, err)
	require.Contains(t, string(log), "Received SIGTERM", "it was asked first")
}

func TestStalePostgresIsEnded(t *testing.T) {
	t.Parallel()
	old := uptest.Postgres(t)
	exec(t, old.URL(), "CREATE TABLE kept AS SELECT 42 AS n")
	orphan(t, old.Dir())

	p, err := up.StartPostgres(t.Context(), up.PostgresOptions{Dir: old.Dir(), NoSync: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Stop()) }()
	require.Zero(t, old.PID())
	require.Equal(t, 42, query[int](t, p.URL(), "SELECT n FROM kept"))
}

// bystander is a process that has nothing to do with us, run by the owner of a
// directory.
func bystander(t *testing.T, owned string) *osexec.Cmd {
	t.Helper()
	cmd := osexec.Command("sleep", "600")
	cmd.Dir = "/"
	info, err := os.Stat(owned)
	require.NoError(t, err)
	st := info.Sys().(*syscall.Stat_t)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: st.Uid, Gid: st.Gid}}
	}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func TestRecycledPIDIsLeftAlone(t *testing.T) {
	t.Parallel()
	p := uptest.Postgres(t)
	require.NoError(t, p.Stop())
	by := bystander(t, p.Dir())
	pid := by.Process.Pid
	require.NoError(t, up.WritePID(p.Dir(), pid))
	data := filepath.Join(p.Dir(), "data")
	require.NoError(t, os.WriteFile(filepath.Join(data, "postmaster.pid"), []byte(strconv.Itoa(pid)+"\n"+data+"\n"), 0o600))

	require.NoError(t, p.Restart(t.Context()), "PostgreSQL alone would take the bystander for a postmaster")
	if runtime.GOOS == "linux" { // where a zombie, which can still be signalled, works nowhere
		require.Contains(t, up.Workers("/", []string{"sleep"}), pid, "the bystander lives")
	}
	require.Equal(t, 1, query[int](t, p.URL(), "SELECT 1"))
}

func TestSecondOwnerIsRefused(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	_, err := up.StartRedis(t.Context(), up.RedisOptions{Dir: r.Dir()})
	var inUse *up.InUseError
	require.ErrorAs(t, err, &inUse)
	require.Equal(t, os.Getpid(), inUse.PID)
	require.NotZero(t, r.PID(), "the first owner is not disturbed")
}
