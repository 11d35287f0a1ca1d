package up_test

import (
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// machine is a pretended one: its PATH has the few real tools that setup.sh
// uses and stand-ins that note how they were called.
type machine struct{ root, bin, calls string }

func newMachine(t *testing.T, standIns map[string]string) machine {
	t.Helper()
	root := uptest.Dir(t)
	m := machine{root: root, bin: filepath.Join(root, "bin"), calls: filepath.Join(root, "calls")}
	require.NoError(t, os.MkdirAll(filepath.Join(root, "usr/sbin"), 0o755))
	require.NoError(t, os.MkdirAll(m.bin, 0o755))
	for _, tool := range []string{"sh", "env", "chmod", "rm", "sed", "touch", "mkdir"} {
		real, err := osexec.LookPath(tool)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(real, filepath.Join(m.bin, tool)))
	}
	for name, body := range standIns {
		script := "#!/bin/sh\necho \"" + name + " $*\" >>'" + m.calls + "'\n" + strings.ReplaceAll(body, "ROOT", root) + "\n"
		require.NoError(t, os.WriteFile(filepath.Join(m.bin, name), []byte(script), 0o755))
	}
	return m
}

func (m machine) setup(t *testing.T, env ...string) (messages string, err error) {
	t.Helper()
	cmd := osexec.Command(filepath.Join(m.bin, "sh"), "setup.sh", "redis", "postgres", "cc")
	cmd.Env = append([]string{"PATH=" + m.bin, "SETUP_ROOT=" + m.root}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m machine) called(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(m.calls)
	if os.IsNotExist(err) {
		return ""
	}
	require.NoError(t, err)
	return string(text)
}

// debian pretends to install: afterwards the programs are there, and the policy
// that was in force meanwhile has been noted.
const debian = `case "$*" in *install*)
	[ -x ROOT/usr/sbin/policy-rc.d ] && echo "services may not start" >>ROOT/calls
	echo "front end: $DEBIAN_FRONTEND" >>ROOT/calls
	mkdir -p ROOT/usr/lib/postgresql/15/bin
	for f in ROOT/bin/redis-server ROOT/bin/cc ROOT/usr/lib/postgresql/15/bin/postgres ROOT/usr/lib/postgresql/15/bin/initdb; do
		touch $f; chmod 755 $f
	done
esac`

func TestSetupInstallsOnDebianAsRoot(t *testing.T) {
	t.Parallel()
	m := newMachine(t, map[string]string{"id": "echo 0", "apt-get": debian, "systemctl": ""})
	require.NoError(t, os.MkdirAll(filepath.Join(m.root, "run/systemd/system"), 0o755))
	out, err := m.setup(t)
	require.NoError(t, err, out)
	calls := m.called(t)
	require.Regexp(t, `(?s)apt-get .*update\n.*apt-get .*install --no-install-recommends redis-server postgresql gcc libc6-dev\n`, calls)
	require.Contains(t, calls, "services may not start")
	require.Contains(t, calls, "front end: noninteractive")
	require.Contains(t, calls, "systemctl disable --quiet redis-server")
	require.Contains(t, calls, "systemctl disable --quiet postgresql")
	require.NoFileExists(t, filepath.Join(m.root, "usr/sbin/policy-rc.d"), "the policy is taken away again")

	require.NoError(t, os.Remove(m.calls))
	out, err = m.setup(t)
	require.NoError(t, err)
	require.Empty(t, out)
	require.Empty(t, m.called(t), "nothing to do the second time")
}

func TestSetupUsesSudo(t *testing.T) {
	t.Parallel()
	m := newMachine(t, map[string]string{"id": "echo 1000", "apt-get": debian, "sudo": `"$@"`})
	out, err := m.setup(t)
	require.NoError(t, err, out)
	require.Contains(t, m.called(t), "sudo env DEBIAN_FRONTEND=noninteractive apt-get")
}

func TestSetupWithoutSudoNamesTheLine(t *testing.T) {
	t.Parallel()
	m := newMachine(t, map[string]string{"id": "echo 1000", "apt-get": debian})
	out, err := m.setup(t)
	require.Error(t, err)
	require.Contains(t, out, "su -c 'apt-get update && apt-get install -y redis-server postgresql gcc libc6-dev'")
	require.NotContains(t, m.called(t), "apt-get")
}

func TestSetupKeepsAPolicyThatIsThere(t *testing.T) {
	t.Parallel()
	m := newMachine(t, map[string]string{"id": "echo 0", "apt-get": debian})
	policy := filepath.Join(m.root, "usr/sbin/policy-rc.d")
	require.NoError(t, os.WriteFile(policy, []byte("#!/bin/sh\nexit 0\n"), 0o755))
	out, err := m.setup(t)
	require.NoError(t, err, out)
	text, err := os.ReadFile(policy)
	require.NoError(t, err)
	require.Equal(t, "#!/bin/sh\nexit 0\n", string(text))
}

func TestSetupUsesHomebrew(t *testing.T) {
	t.Parallel()
	m := newMachine(t, map[string]string{"id": "echo 501", "cc": "", "brew": `
		mkdir -p ROOT/opt/homebrew/opt/postgresql@17/bin
		for f in ROOT/bin/redis-server ROOT/opt/homebrew/opt/postgresql@17/bin/postgres ROOT/opt/homebrew/opt/postgresql@17/bin/initdb; do
			touch $f; chmod 755 $f
		done`})
	out, err := m.setup(t)
	require.NoError(t, err, out)
	require.Equal(t, "brew install redis postgresql@17\n", m.called(t))
}

func TestSetupElsewhereNamesTheLine(t *testing.T) {
	t.Parallel()
	for tool, want := range map[string]string{
		"dnf":    "sudo dnf install -y redis postgresql-server",
		"apk":    "sudo apk add redis postgresql postgresql-contrib",
		"pacman": "sudo pacman -S valkey postgresql",
		"pkg":    "the line by which this system installs: redis postgresql-server",
	} {
		m := newMachine(t, map[string]string{"id": "echo 1000", "cc": "", tool: ""})
		out, err := m.setup(t)
		require.Error(t, err, tool)
		require.Contains(t, out, want)
		require.Empty(t, m.called(t))
	}
}

func TestSetupSaysWhatAnInstallationDidNotBring(t *testing.T) {
	t.Parallel()
	m := newMachine(t, map[string]string{"id": "echo 0", "apt-get": ""})
	out, err := m.setup(t)
	require.Error(t, err)
	require.Contains(t, out, "redis is still missing after the installation")
}
