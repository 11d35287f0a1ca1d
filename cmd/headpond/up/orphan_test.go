package up_test

import (
	"bufio"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// other is a process of this test binary that runs both servers: see helper.
type other struct {
	cmd      *osexec.Cmd
	in       io.Closer
	out      *bufio.Reader
	redis    string // host:port
	postgres string // URL
}

func startOther(t *testing.T, dir string) *other {
	t.Helper()
	cmd := osexec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "UP_TEST_HELPER="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	o := &other{cmd: cmd, in: in, out: bufio.NewReader(out)}
	words := strings.Fields(o.line(t))
	require.Len(t, words, 5, "%v", words)
	require.Equal(t, "ready", words[0])
	o.redis, o.postgres = words[3], words[4]
	return o
}

func (o *other) line(t *testing.T) string {
	t.Helper()
	line, err := o.out.ReadString('\n')
	require.NoError(t, err)
	return line
}

func leftIn(dir string) []int {
	return up.Workers(dir, append(up.PostgresPrograms(), "redis-server", "valkey-server"))
}

func TestKillNineLeavesNoOrphan(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has a parent-death signal; TestStaleServerIsEnded is about the others")
	}
	dir := uptest.Dir(t)
	o := startOther(t, dir)
	c := redis.NewClient(&redis.Options{Addr: o.redis})
	defer c.Close()
	require.NoError(t, c.Set(t.Context(), "k", "v", 0).Err())
	exec(t, o.postgres, "CREATE TABLE kept AS SELECT 42 AS n")
	busy := keepBusy(t, o.postgres)
	require.GreaterOrEqual(t, len(leftIn(dir)), 3, "redis, the postmaster, and backends")

	require.NoError(t, o.cmd.Process.Kill())
	require.Eventually(t, func() bool { return len(leftIn(dir)) == 0 }, soon, tick)
	<-busy

	r, err := up.StartRedis(t.Context(), up.RedisOptions{Dir: filepath.Join(dir, "redis")})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Stop()) }()
	p, err := up.StartPostgres(t.Context(), up.PostgresOptions{Dir: filepath.Join(dir, "postgres")})
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Stop()) }()
	require.Equal(t, o.redis, r.Addr())
	require.Equal(t, o.postgres, p.URL())
	require.Equal(t, "v", c.Get(t.Context(), "k").Val())
	require.Equal(t, 42, query[int](t, p.URL(), "SELECT n FROM kept"))
}

func TestCleanEndLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := uptest.Dir(t)
	o := startOther(t, dir)
	require.NoError(t, o.in.Close())
	require.Equal(t, "stopped <nil> <nil>\n", o.line(t))
	require.NoError(t, o.cmd.Wait())
	require.Empty(t, leftIn(dir))
}
