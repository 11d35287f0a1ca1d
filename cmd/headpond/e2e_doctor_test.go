package main_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
)

// examined is what `headpond doctor --output json` prints.
type examined struct {
	OK     bool
	Checks []buffer.Check
}

func (e *examined) find(severity buffer.Severity, name string) *buffer.Check {
	for i := range e.Checks {
		if c := &e.Checks[i]; c.Severity == severity && c.Name == name {
			return c
		}
	}
	return nil
}

func examine(t *testing.T, program string, code int, env ...string) *examined {
	t.Helper()
	got := command(t, program, cleanEnvironment(env...), "doctor", "--output", "json")
	require.Equal(t, code, got.code, "%s%s", got.out, got.err)
	var e examined
	require.NoError(t, json.Unmarshal([]byte(got.out), &e), got.out)
	require.Equal(t, code == 0, e.OK)
	for _, c := range e.Checks {
		require.NotEmpty(t, c.Text)
		require.Contains(t, []string{"redis", "postgres", "tables", "headpond"}, c.Group)
	}
	return &e
}

// TestDoctorOfASoundStack: nothing is wrong with what `headpond up` starts.
func TestDoctorOfASoundStack(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	h := startUp(t, program, "--ephemeral")
	env := []string{"DATABASE_URL=" + h.database, "REDIS_URL=" + h.redis, "HEADPOND_API=" + h.api}
	e := examine(t, program, 0, env...)
	require.NotNil(t, e.find(buffer.CheckOK, "api"))
	require.NotNil(t, e.find(buffer.CheckOK, "fsync"))
	got := command(t, program, cleanEnvironment(env...), "doctor")
	require.Zero(t, got.code, got.err)
	for _, says := range []string{"Redis\n", "PostgreSQL\n", "Tables\n", "Headpond\n", "3 tables need nothing.", "Postgres may be down"} {
		require.Contains(t, got.out, says)
	}
	require.NotContains(t, got.out, "\x1b", "no colour where no terminal is")

	await(t, "the program's own look at Postgres", func() bool {
		return strings.Contains(string(h.get(t, "/readyz?verbose").body), `"name":"full_page_writes","severity":"ok"`)
	})

	options, err := redis.ParseURL(h.redis)
	require.NoError(t, err)
	c := redis.NewClient(options)
	defer func() { _ = c.Close() }()
	require.NoError(t, c.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lfu").Err())
	require.True(t, examine(t, program, 1, env...).find(buffer.CheckError, "maxmemory-policy").Unsafe)
}

// TestDoctorExplains: a server that cannot be asked is told in plain words, what
// can be looked at is looked at, and no password is shown.
func TestDoctorExplains(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := startServers(t, program)
	const secret = "pl4nted-secret"
	with := func(raw, user, password, path string) string {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		u.User = url.UserPassword(user, password)
		if path != "" {
			u.Path = path
		}
		return u.String()
	}
	options, err := redis.ParseURL(s.redis.URL())
	require.NoError(t, err)
	c := redis.NewClient(options)
	defer func() { _ = c.Close() }()
	require.NoError(t, c.Do(t.Context(), "acl", "setuser", "default", ">"+secret).Err())
	database, good := with(s.postgres.URL(), "postgres", secret, ""), with(s.redis.URL(), "default", secret, "")
	for name, x := range map[string]struct {
		database, redis, group, says string
		code                         int
	}{
		"fsync is off":             {database, good, "postgres", "ALTER SYSTEM SET fsync = on", 1},
		"no Redis":                 {database, "redis://:" + secret + "@127.0.0.1:1", "redis", "Nothing listens", 2},
		"no password":              {database, s.redis.URL(), "redis", "wants a password", 2},
		"a wrong password":         {database, with(s.redis.URL(), "default", "wrong-"+secret, ""), "redis", "does not take the user or the password", 2},
		"no URL":                   {database, "redis://:" + secret + "@127.0.0.1:x", "redis", "not one such as redis://", 2},
		"a Redis that is Postgres": {database, "redis://:" + secret + "@" + hostOf(t, s.postgres.URL()), "redis", "Redis", 2},
		"no Postgres":              {"postgres://me:" + secret + "@127.0.0.1:1/x", good, "postgres", "Nothing listens", 2},
		"no database":              {with(s.postgres.URL(), "postgres", secret, "/nowhere"), good, "postgres", "does not exist", 2},
		"no role":                  {with(s.postgres.URL(), "nobody-"+secret, secret, ""), good, "postgres", "PostgreSQL", 2},
		"no TLS":                   {database + "&sslmode=require", good, "postgres", "TLS", 2},
		"no database URL":          {"postgres://me:" + secret + "@127.0.0.1:x/y", good, "postgres", "not a URL", 2},
	} {
		t.Run(name, func(t *testing.T) {
			env := []string{"DATABASE_URL=" + x.database, "REDIS_URL=" + x.redis, "HEADPOND_API=http://127.0.0.1:1"}
			e := examine(t, program, x.code, env...)
			var said string
			for _, c := range e.Checks {
				if c.Group == x.group && c.Severity == buffer.CheckError {
					said += c.Sentence() + "\n"
				}
			}
			require.Contains(t, said, x.says)
			if x.group == "redis" {
				require.NotNil(t, e.find(buffer.CheckOK, "writable"), "Postgres was looked at")
			}
			got := command(t, program, cleanEnvironment(env...), "doctor")
			require.Equal(t, x.code, got.code)
			text, err := json.Marshal(e)
			require.NoError(t, err)
			require.NotContains(t, got.out+got.err+string(text), secret)
		})
	}
}

func hostOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u.Host
}
