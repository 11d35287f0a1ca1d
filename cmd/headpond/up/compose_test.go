package up_test

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
)

// composeFile is the part of docker-compose.yml that this test judges. It is
// read as data: there is no Docker where the tests run.
type composeFile struct {
	Services map[string]composeService `yaml:"services"`
	Volumes  map[string]any            `yaml:"volumes"`
}

type composeService struct {
	Image       string            `yaml:"image"`
	Build       string            `yaml:"build"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Volumes     []string          `yaml:"volumes"`
	Ports       []string          `yaml:"ports"`
	Restart     string            `yaml:"restart"`
	StopGrace   string            `yaml:"stop_grace_period"`
	Profiles    []string          `yaml:"profiles"`
	Health      struct {
		Test []string `yaml:"test"`
	} `yaml:"healthcheck"`
	DependsOn map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
}

func compose(t *testing.T) composeFile {
	t.Helper()
	text, err := os.ReadFile("../../../docker-compose.yml")
	require.NoError(t, err)
	var c composeFile
	require.NoError(t, yaml.Unmarshal(text, &c))
	require.Len(t, c.Services, 5)
	return c
}

// flag is the value after a flag in a command.
func flag(t *testing.T, command []string, name string) string {
	t.Helper()
	i := slices.Index(command, name)
	require.GreaterOrEqual(t, i, 0, "%s in %v", name, command)
	require.Less(t, i+1, len(command))
	return command[i+1]
}

func TestComposeRedisIsDurable(t *testing.T) {
	t.Parallel()
	command := compose(t).Services["redis"].Command
	require.Equal(t, "redis-server", command[0])
	require.Equal(t, "yes", flag(t, command, "--appendonly"))
	require.Equal(t, "always", flag(t, command, "--appendfsync"))
	require.Equal(t, "volatile-lru", flag(t, command, "--maxmemory-policy"))
}

func TestComposeServicesAreHealthyAndKept(t *testing.T) {
	t.Parallel()
	c := compose(t)
	for name, s := range c.Services {
		if len(s.Profiles) == 0 { // an image of others has its own, or none
			require.NotEmpty(t, s.Health.Test, name)
		}
		require.Equal(t, "unless-stopped", s.Restart, name)
		for _, port := range s.Ports {
			host, _, err := net.SplitHostPort(port[:strings.LastIndex(port, ":")])
			require.NoError(t, err, port)
			require.True(t, net.ParseIP(host).IsLoopback(), "%s publishes %s", name, port)
		}
	}
	for _, name := range []string{"redis", "postgres"} {
		s := c.Services[name]
		require.Len(t, s.Volumes, 1, name)
		volume, _, _ := strings.Cut(s.Volumes[0], ":")
		require.Contains(t, c.Volumes, volume, "a named volume outlives the container")
		require.Empty(t, s.Ports, "%s is for headpond alone", name)
	}
	require.Contains(t, strings.Join(c.Services["postgres"].Health.Test, " "), "pg_isready")
}

func TestComposeHeadpondWaitsForBoth(t *testing.T) {
	t.Parallel()
	c := compose(t)
	h := c.Services["headpond"]
	require.Equal(t, ".", h.Build)
	require.Equal(t, "service_healthy", h.DependsOn["redis"].Condition)
	require.Equal(t, "service_healthy", h.DependsOn["postgres"].Condition)
	require.Equal(t, "serve", h.Command[0])
	require.Equal(t, "all", flag(t, h.Command, "--role"))
	require.Contains(t, h.Command, "--migrate")
	require.Equal(t, "redis://redis:6379/0", h.Environment["REDIS_URL"])
	require.Contains(t, h.Environment["DATABASE_URL"], "@postgres:5432/headpond")
	require.Equal(t, "0.0.0.0:8080", h.Environment["HEADPOND_LISTEN"])
	require.Equal(t, []string{"127.0.0.1:8080:8080"}, h.Ports)
	require.Equal(t, "30s", h.StopGrace)

	pg := c.Services["postgres"].Environment
	require.Contains(t, h.Environment["DATABASE_URL"], pg["POSTGRES_USER"]+":"+pg["POSTGRES_PASSWORD"]+"@", "the same name and password on both sides")
}

// What one looks with is started only when it is asked for, and finds its
// configuration.
func TestComposeObservability(t *testing.T) {
	t.Parallel()
	c := compose(t)
	for _, name := range []string{"lgtm", "collector"} {
		require.Equal(t, []string{"observability"}, c.Services[name].Profiles, name)
	}
	from, to, _ := strings.Cut(c.Services["collector"].Volumes[0], ":")
	require.FileExists(t, "../../../"+from)
	require.Equal(t, strings.TrimSuffix(to, ":ro"), flag(t, c.Services["collector"].Command, "--config"))
}

// The image is built from what .dockerignore lets through: every room.
func TestDockerIgnoreLetsEveryRoomThrough(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../.dockerignore")
	require.NoError(t, err)
	entries, err := os.ReadDir("../../..")
	require.NoError(t, err)
	for _, entry := range entries {
		if entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") && entry.Name() != "bin" {
			require.Contains(t, strings.Split(string(text), "\n"), "!"+entry.Name())
		}
	}
}
