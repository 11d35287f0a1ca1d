package uptest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/headpond/headpond/cmd/headpond/up"
)

// shared are the servers of this test binary, each started when first asked for.
var shared struct {
	inMain    atomic.Bool
	databases atomic.Int64
	migrated  sync.Once

	mu       sync.Mutex // guards the rest; held while a server starts
	dir      string
	redis    *up.Redis
	postgres *up.Postgres
}

// Main runs the tests, stops the shared servers, and then looks for goroutines
// that were left behind, so that those of the servers are none. Call it from
// TestMain; it does not return.
func Main(m *testing.M, leaks ...goleak.Option) {
	shared.inMain.Store(true)
	code := m.Run()
	err := stopShared()
	if err == nil && code == 0 {
		err = goleak.Find(leaks...)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "uptest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// SharedRedis is one Redis for all tests of the binary: use a prefix of your
// own, and neither stop nor configure it.
func SharedRedis(t testing.TB) *up.Redis {
	t.Helper()
	dir := sharedDir(t)
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.redis == nil {
		r, err := up.StartRedis(context.Background(), up.RedisOptions{Dir: filepath.Join(dir, "redis"), Log: silent()})
		if err != nil {
			t.Fatalf("start shared redis: %v", err)
		}
		shared.redis = r
	}
	return shared.redis
}

// SharedPostgres is one PostgreSQL for all tests of the binary: see Database.
func SharedPostgres(t testing.TB) *up.Postgres {
	t.Helper()
	dir := sharedDir(t)
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.postgres == nil {
		p, err := up.StartPostgres(context.Background(), up.PostgresOptions{Dir: filepath.Join(dir, "postgres"), NoSync: true, Log: silent()})
		if err != nil {
			t.Fatalf("start shared postgres: %v", err)
		}
		shared.postgres = p
	}
	return shared.postgres
}

// Database makes an empty database on the shared server and returns its URL.
// It is dropped at the end of the test, whoever is still connected.
func Database(t testing.TB) string {
	t.Helper()
	return database(t, SharedPostgres(t).URL(), "template1")
}

// Migrated is Database with what migrate makes in it, the same for all tests of
// the binary: it runs once.
func Migrated(t testing.TB, migrate func(ctx context.Context, url string) error) string {
	t.Helper()
	const template = "migrated"
	server := SharedPostgres(t).URL()
	shared.migrated.Do(func() {
		if err := run(server, "CREATE DATABASE "+template); err != nil {
			t.Fatalf("create database: %v", err)
		}
		if err := migrate(context.Background(), on(t, server, template)); err != nil {
			t.Fatalf("migrate: %v", err)
		}
	})
	return database(t, server, template)
}

func database(t testing.TB, server, template string) string {
	t.Helper()
	name := fmt.Sprintf("t%d_%s", shared.databases.Add(1), plain(t.Name()))
	if err := run(server, "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		t.Fatalf("create database: %v", err)
	}
	t.Cleanup(func() {
		if err := run(server, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop database: %v", err)
		}
	})
	return on(t, server, name)
}

// on is the URL of a database of the server.
func on(t testing.TB, server, name string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("read URL: %v", err)
	}
	u.Path = "/" + name
	return u.String()
}

// run uses the background context: in a cleanup, the test's has ended.
func run(server, sql string) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// plain makes a test's name fit for an unquoted identifier of at most 63 bytes.
func plain(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(name))
	return name[:min(len(name), 48)]
}

func sharedDir(t testing.TB) string {
	t.Helper()
	if !shared.inMain.Load() {
		t.Fatal("shared servers need a TestMain that calls uptest.Main, or nobody would stop them")
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.dir == "" {
		dir, err := openDir()
		if err != nil {
			t.Fatalf("make directory: %v", err)
		}
		shared.dir = dir
	}
	return shared.dir
}

func stopShared() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	var errs []error
	if shared.redis != nil {
		errs = append(errs, shared.redis.Stop())
	}
	if shared.postgres != nil {
		errs = append(errs, shared.postgres.Stop())
	}
	if shared.dir != "" {
		errs = append(errs, os.RemoveAll(shared.dir))
	}
	return errors.Join(errs...)
}
