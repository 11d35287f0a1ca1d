package main_test

import (
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestFilesRunOut: a process that may open 64 files, and more clients than that.
// They are refused, the process lives and keeps its word, and serves again when
// they have gone.
func TestFilesRunOut(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := startServers(t, program)
	execute(t, s.postgres.URL(), `create table t (id int primary key)`)
	h := s.serve(t, "--config", writeConfig(t, "limits: { connections: 1000 }")) // so that the files run out first
	h.serves(t, "t")
	limit := unix.Rlimit{Cur: 64, Max: 64}
	require.NoError(t, unix.Prlimit(h.pid(), unix.RLIMIT_NOFILE, &limit, nil))
	var crowd []net.Conn
	leave := func() {
		for _, c := range crowd {
			_ = c.Close()
		}
		crowd = nil
	}
	t.Cleanup(leave)
	for range 100 {
		c, err := net.Dial("tcp", strings.TrimPrefix(h.api, "http://"))
		require.NoError(t, err)
		crowd = append(crowd, c)
	}
	files := func() int {
		names, err := os.ReadDir("/proc/" + strconv.Itoa(h.pid()) + "/fd")
		require.NoError(t, err)
		return len(names)
	}
	await(t, "files to run out", func() bool { return files() >= 64 })
	a, err := h.post("t", typeJSON, `{"id":1}`) // over a connection of before
	if err == nil {
		require.Contains(t, []int{http.StatusAccepted, http.StatusServiceUnavailable}, a.code, "%s", a.body)
	}
	require.False(t, h.ended())
	leave()
	await(t, "a write", func() bool {
		a, err := h.post("t", typeJSON, `{"id":2}`)
		return err == nil && a.code == http.StatusAccepted
	})
	h.settled(t)
	require.Contains(t, column[int](t, h.database, `select id from t`), 2)
}

// TestConnectionsRunOut: by default clients leave the files that the process
// needs for itself.
func TestConnectionsRunOut(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := startServers(t, program)
	execute(t, s.postgres.URL(), `create table t (id int primary key)`)
	h := s.serve(t, "--config", writeConfig(t, "limits: { connections: 20 }"))
	h.serves(t, "t")
	var crowd []net.Conn
	t.Cleanup(func() {
		for _, c := range crowd {
			_ = c.Close()
		}
	})
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	code := func(path string) int {
		r, err := fresh.Get(h.api + path) //nolint:noctx // the client has a timeout
		if err != nil {
			return 0
		}
		defer func() { _ = r.Body.Close() }()
		return r.StatusCode
	}
	for len(crowd) < 25 {
		c, err := net.Dial("tcp", strings.TrimPrefix(h.api, "http://"))
		require.NoError(t, err)
		crowd = append(crowd, c)
	}
	await(t, "503", func() bool { return code("/v1/t/1") == http.StatusServiceUnavailable })
	await(t, "/livez", func() bool { return code("/livez") == http.StatusOK })
	for _, c := range crowd {
		_ = c.Close()
	}
	await(t, "a row", func() bool { return code("/v1/t/1") == http.StatusNotFound })
}
