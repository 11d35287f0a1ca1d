package up_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

func owner(t *testing.T, path string) (uid uint32, mode os.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Sys().(*syscall.Stat_t).Uid, info.Mode().Perm()
}

func TestMissingParentsAreMadeSearchable(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(uptest.Dir(t), "a", "b", "redis")
	r, err := up.StartRedis(t.Context(), up.RedisOptions{Dir: dir})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Stop()) }()
	_, parent := owner(t, filepath.Dir(dir))
	_, own := owner(t, dir)
	require.Equal(t, os.FileMode(0o755), parent)
	require.Equal(t, os.FileMode(0o700), own)
}

func TestRootsChildrenAreNotRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root's children run as somebody else")
	}
	r := uptest.Redis(t)
	uid, _ := owner(t, filepath.Join(r.Dir(), "appendonlydir"))
	require.NotZero(t, uid)
}

func TestRootKeepsADirectoryWithItsOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	const nobody = 65534
	dir := filepath.Join(uptest.Dir(t), "redis")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Chown(dir, nobody, nobody))
	r, err := up.StartRedis(t.Context(), up.RedisOptions{Dir: dir})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Stop()) }()
	uid, _ := owner(t, filepath.Join(dir, "appendonlydir"))
	require.Equal(t, uint32(nobody), uid)
}

func TestRootIsToldOfABarredWay(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root's children run as somebody else")
	}
	barred := filepath.Join(uptest.Dir(t), "barred")
	require.NoError(t, os.Mkdir(barred, 0o700))
	_, err := up.StartRedis(t.Context(), up.RedisOptions{Dir: filepath.Join(barred, "redis")})
	var unreachable *up.UnreachableError
	require.ErrorAs(t, err, &unreachable)
	require.Equal(t, barred, unreachable.Parent)
	require.ErrorContains(t, err, "chmod o+x "+barred)
}

func TestForeignFilesAreNotTaken(t *testing.T) {
	t.Parallel()
	dir := uptest.Dir(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o600))
	_, err := up.StartRedis(t.Context(), up.RedisOptions{Dir: dir})
	require.ErrorContains(t, err, "holds other files (thesis.tex)")
}

func TestDefaultDataDir(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", "/xdg")
	if os.Geteuid() == 0 {
		require.Equal(t, "/var/lib/headpond", up.DefaultDataDir())
		return
	}
	require.Equal(t, "/xdg/headpond", up.DefaultDataDir())
	t.Setenv("XDG_DATA_HOME", "")
	t.Setenv("HOME", "/home/me")
	require.Equal(t, "/home/me/.local/share/headpond", up.DefaultDataDir())
}
