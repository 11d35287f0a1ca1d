package main_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// Secrets that are planted, and must come out nowhere.
const (
	pgSecret    = "pgS3cr3t-9f27c1"
	redisSecret = "redisS3cr3t-41ab7e"
	secretMark  = "S3cr3t-" // in both, however the rest is written
)

// tellsNothing fails when a secret is in a text.
func tellsNothing(t *testing.T, where, text string) {
	t.Helper()
	if at := strings.Index(text, secretMark); at >= 0 {
		t.Errorf("%s tells a secret: …%s…", where, text[max(at-200, 0):min(at+100, len(text))])
	}
}

// guarded are servers that ask for passwords: roles keeper, whose password is
// pgSecret, and locked, whose password is another.
func guardedServers(t *testing.T, program string) *servers {
	t.Helper()
	s := startServers(t, program)
	execute(t, s.postgres.URL(), `create role keeper superuser login password '`+pgSecret+`'; create role locked login password 'of another'`)
	hba := value[string](t, s.postgres.URL(), `show hba_file`)
	execute(t, s.postgres.URL(), `copy (values ('host all keeper,locked 127.0.0.1/32 scram-sha-256'), ('local all all trust'), ('host all all 127.0.0.1/32 trust')) to '`+hba+`'`)
	execute(t, s.postgres.URL(), `select pg_reload_conf()`)
	o, err := redis.ParseURL(s.redis.URL())
	require.NoError(t, err)
	rdb := redis.NewClient(o)
	require.NoError(t, rdb.ConfigSet(t.Context(), "requirepass", redisSecret).Err())
	require.NoError(t, rdb.Close())
	return s
}

// withUser puts a user and a password into a URL.
func withUser(t *testing.T, raw, user, password string) string {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	u.User = url.UserPassword(user, password)
	return u.String()
}

// TestSecretsWhileAllIsWell: a password that is right is in no log, answer,
// metric or configuration, nor in what a crash leaves.
func TestSecretsWhileAllIsWell(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := guardedServers(t, program)
	execute(t, s.postgres.URL(), `create table t (id int primary key, v int check (v <> 13))`)
	env := cleanEnvironment("DATABASE_URL="+withUser(t, s.postgres.URL(), "keeper", pgSecret), "REDIS_URL="+withUser(t, s.redis.URL(), "", redisSecret))
	h := &headpond{process: start(t, program, env, "serve", "--listen", "127.0.0.1:0", "--log-level", "debug"), database: s.postgres.URL()}
	h.api, _ = h.logged("serving")["url"].(string)
	h.serves(t, "t")
	for kind, body := range map[string]string{typeJSON: `[{"id":1},{"id":2,"v":13}]`, typeNDJSON: `{"id":3}` + "\n{"} {
		a, err := h.post("t", kind, body)
		require.NoError(t, err)
		tellsNothing(t, "an answer", string(a.body)+fmt.Sprint(a.header))
	}
	await(t, "the dead letter", func() bool { return h.status(t).Ledger.Dead == 1 })
	for _, path := range []string{"/admin/v1/status", "/readyz?verbose", "/metrics", "/v1", "/v1/t/_schema", "/v1/t/9", "/openapi.json", "/v1/none/1", "/admin/v1/dead-letters"} {
		a := h.get(t, path)
		tellsNothing(t, path, string(a.body)+fmt.Sprint(a.header))
	}
	env = append(env, "HEADPOND_API="+h.api)
	for _, args := range commandsOfSecrets {
		r := briefly(t, program, env, args...)
		tellsNothing(t, strings.Join(args, " "), r)
		tellsNothing(t, strings.Join(args, " ")+" --help", briefly(t, program, env, append(args, "--help")...))
	}
	require.NoError(t, h.cmd.Process.Signal(syscall.SIGQUIT)) // as a crash: all goroutines are written
	h.killed = true
	await(t, "the end", h.ended)
	require.Contains(t, h.log.String(), "goroutine ")
	tellsNothing(t, "the log and the crash", h.log.String()+h.out.String())
}

// commandsOfSecrets are those that connect, or show settings.
var commandsOfSecrets = [][]string{
	{"config", "print"}, {"config", "check"}, {"migrate", "status"}, {"migrate", "up"}, {"watch", "status"}, {"watch", "install", "t"},
	{"warm", "t"}, {"doctor"}, {"verify"}, {"dead-letters", "ls"}, {"tail", "t"}, {"status"}, {"serve", "--role", "none"},
}

// briefly runs a command for a few seconds at most, and gives all that it wrote.
func briefly(t *testing.T, program string, env []string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.WaitDelay = env, time.Second
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, _ := cmd.CombinedOutput() // that it fails is what is looked at
	return string(out)
}

// TestSecretsInTrouble: neither is a password that is wrong, of a server that
// does not answer, or in a URL that cannot be read.
func TestSecretsInTrouble(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := guardedServers(t, program)
	database, buffer := withUser(t, s.postgres.URL(), "keeper", pgSecret), withUser(t, s.redis.URL(), "", redisSecret)
	for name, c := range map[string]struct {
		database, redis string
		words           string // in what is written, so that it is known to have got there
	}{
		"wrong database password":  {withUser(t, s.postgres.URL(), "locked", pgSecret), buffer, "password authentication failed"},
		"wrong redis password":     {database, withUser(t, s.redis.URL(), "", redisSecret+"-wrong"), "WRONGPASS"},
		"database does not answer": {"postgres://u:" + pgSecret + "@127.0.0.1:1/db", buffer, "refused"},
		"redis does not answer":    {database, "redis://:" + redisSecret + "@127.0.0.1:1/0", "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := cleanEnvironment("DATABASE_URL="+c.database, "REDIS_URL="+c.redis)
			p := start(t, program, env, "serve", "--listen", "127.0.0.1:0", "--log-level", "debug")
			await(t, c.words, func() bool { return strings.Contains(p.log.String(), c.words) })
			if strings.Contains(p.log.String(), `"msg":"serving"`) {
				api, _ := p.logged("serving")["url"].(string)
				for _, path := range []string{"/admin/v1/status", "/readyz?verbose", "/metrics", "/v1/t/1", "/v1"} {
					a, err := request(http.MethodGet, api+path, "", "")
					require.NoError(t, err)
					tellsNothing(t, path, string(a.body))
				}
			}
			env = append(env, "HEADPOND_API=http://127.0.0.1:1")
			for _, args := range commandsOfSecrets {
				tellsNothing(t, strings.Join(args, " "), briefly(t, program, env, args...))
			}
			tellsNothing(t, "the log", p.log.String()+p.out.String())
		})
	}
}

// TestSecretsInBadURLs: what cannot be read is not shown either.
func TestSecretsInBadURLs(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	good := map[string]string{"DATABASE_URL": "postgres://127.0.0.1:1/db", "REDIS_URL": "redis://127.0.0.1:1/0"}
	for variable, urls := range map[string][]string{
		"DATABASE_URL": {
			"postgres://u:" + pgSecret + "@h:port/db", "postgres://u:" + pgSecret + "%zz@h/db", "mysql://u:" + pgSecret + "@h/db", "postgres://u:" + pgSecret + "@h/db?sslmode=none",
			"postgres://u:" + pgSecret + "@[h/db", "host=h port=port password=" + pgSecret, "host=h password='" + pgSecret, "postgres://u: " + pgSecret + " @h/db", "u:" + pgSecret + "@h",
			"postgres://h:port/db?password=" + pgSecret, "postgres://u:\n" + pgSecret + "@h/db",
			"postgres://u:" + pgSecret + "/x@h/db", "postgres://u:" + pgSecret + "#x@h/db", "postgres://u:" + pgSecret + "?x@h/db", "postgres://u:x@" + pgSecret + "@h:port/db",
		},
		"REDIS_URL": {
			"redis://:" + redisSecret + "@h:port/0", "redis://:" + redisSecret + "%zz@h/0", "http://:" + redisSecret + "@h/0", "redis://:" + redisSecret + "@h/db",
			"redis://:" + redisSecret + "@h/0?none=1", "redis://:" + redisSecret + "@[h", redisSecret + "@h:6379", "redis://:\n" + redisSecret + "@h",
			"redis://h:1/0?addr=%zz&password=" + redisSecret, "redis://:" + redisSecret + "@h:port/0?addr=h2:1", "redis://:" + redisSecret + "/x@h", "redis://:" + redisSecret + "#x@h", "redis://:" + redisSecret + "?x@h",
		},
	} {
		for _, bad := range urls {
			var env []string
			for name, u := range good {
				if name == variable {
					u = bad
				}
				env = append(env, name+"="+u)
			}
			env = cleanEnvironment(env...)
			for _, args := range [][]string{{"serve", "--listen", "127.0.0.1:0"}, {"migrate", "status"}, {"watch", "status"}} {
				if variable == "REDIS_URL" && len(args) == 2 {
					continue // they speak to Postgres alone
				}
				tellsNothing(t, bad+": "+strings.Join(args, " "), briefly(t, program, env, args...))
			}
		}
	}
}
