package up_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

func TestMissingProgramsAreNamed(t *testing.T) {
	t.Setenv("HEADPOND_REDIS_SERVER", "/nowhere/redis-server")
	t.Setenv("HEADPOND_PG_BIN", "/nowhere")
	var missing *up.NotInstalledError

	_, err := up.StartRedis(t.Context(), up.RedisOptions{Ephemeral: true})
	require.ErrorAs(t, err, &missing)
	require.Equal(t, "Redis", missing.Program)
	require.ErrorContains(t, err, "/nowhere/redis-server")

	_, err = up.StartPostgres(t.Context(), up.PostgresOptions{Ephemeral: true})
	require.ErrorAs(t, err, &missing)
	require.Equal(t, "PostgreSQL", missing.Program)
	require.ErrorContains(t, err, "to install it, type: "+missing.Install)
}

func TestDataOfAnotherVersionIsRefused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(uptest.Dir(t), "postgres")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "data"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "data", "PG_VERSION"), []byte("8\n"), 0o600))
	_, err := up.StartPostgres(t.Context(), up.PostgresOptions{Dir: dir})
	var other *up.VersionError
	require.ErrorAs(t, err, &other)
	require.Equal(t, "8", other.Want)
	require.NotEmpty(t, other.Have)
}

func TestPlacesToLook(t *testing.T) {
	t.Setenv("HEADPOND_PG_BIN", "")
	dirs, _ := up.PostgresInstall()
	require.NotEmpty(t, dirs)
	t.Setenv("HEADPOND_PG_BIN", "/mine")
	dirs, looked := up.PostgresInstall()
	require.Equal(t, []string{"/mine"}, dirs, "what is named is not second-guessed")
	require.Equal(t, []string{"$HEADPOND_PG_BIN = /mine"}, looked)
}

func TestVersionIn(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)": 15,
		"postgres (PostgreSQL) 18beta1":                        18,
		"/usr/lib/postgresql/9.6/bin":                          9,
		"/opt/homebrew/opt/postgresql/bin":                     0,
	} {
		require.Equal(t, want, up.VersionIn(text), text)
	}
}

func TestInstallLine(t *testing.T) {
	t.Parallel()
	only := func(name string) func(string) bool { return func(p string) bool { return p == name } }
	for _, c := range []struct {
		program, system, has string
		root                 bool
		want                 string
	}{
		{"Redis", "linux", "apt-get", true, "apt-get update && apt-get install -y redis-server"},
		{"PostgreSQL", "linux", "apt-get", false, "sudo apt-get update && sudo apt-get install -y postgresql"},
		{"PostgreSQL", "darwin", "brew", false, "brew install postgresql@17"},
		{"Redis", "linux", "dnf", false, "sudo dnf install -y redis"},
		{"Redis", "linux", "apk", true, "apk add redis"},
		{"PostgreSQL", "linux", "pacman", false, "sudo pacman -S postgresql"},
		{"Redis", "freebsd", "", false, "the package manager's line for redis-server 6.2 or newer, or valkey"},
	} {
		require.Equal(t, c.want, up.InstallLine(c.program, c.system, c.root, only(c.has)))
	}
}
