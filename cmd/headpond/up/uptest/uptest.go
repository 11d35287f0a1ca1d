// Package uptest gives tests real servers.
//
// Job: a private Redis or PostgreSQL for one test, or one of each for all tests
// of a package with a database of its own for each test.
//
// Takes / gives: a testing.TB in; a running server out, gone when the test ends.
//
// Never: is imported by anything but tests.
package uptest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/headpond/headpond/cmd/headpond/up"
)

// Redis starts a Redis for this test alone: to be killed, filled or configured
// at will. It takes about 50 ms; SharedRedis is cheaper for a test that only
// needs some Redis.
func Redis(t testing.TB) *up.Redis {
	t.Helper()
	r, err := up.StartRedis(t.Context(), up.RedisOptions{Dir: filepath.Join(Dir(t), "redis"), Log: logTo(t)})
	if err != nil {
		t.Fatalf("start redis: %v", err)
	}
	t.Cleanup(func() { stop(t, r) })
	return r
}

// Postgres starts a PostgreSQL for this test alone, without fsync. It takes
// about a second; Database is far cheaper for a test that only needs tables.
func Postgres(t testing.TB) *up.Postgres {
	t.Helper()
	p, err := up.StartPostgres(t.Context(), up.PostgresOptions{Dir: filepath.Join(Dir(t), "postgres"), NoSync: true, Log: logTo(t)})
	if err != nil {
		t.Fatalf("start postgres: %v", err)
	}
	t.Cleanup(func() { stop(t, p) })
	return p
}

// Dir is a temporary directory that the children of root can enter. That of
// testing.T lies in one that they cannot.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := openDir()
	if err != nil {
		t.Fatalf("make directory: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove directory: %v", err)
		}
	})
	return dir
}

func openDir() (string, error) {
	dir, err := os.MkdirTemp("", "headpond-test-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

func stop(t testing.TB, s interface{ Stop() error }) {
	if err := s.Stop(); err != nil {
		t.Errorf("stop server: %v", err)
	}
}
