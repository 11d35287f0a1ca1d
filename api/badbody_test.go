package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
)

// dial opens a bare connection: for requests that no HTTP client would send.
func (s *stack) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	return c
}

// raw sends text and reads the answer, if there is one, and whether the server
// closed the connection after it.
func (s *stack) raw(t testing.TB, text string) (a *answer, closed bool) {
	t.Helper()
	c := s.dial(t)
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
	return readAnswer(t, c)
}

func readAnswer(t testing.TB, c net.Conn) (a *answer, closed bool) {
	t.Helper()
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	if res.Close {
		_, err = r.ReadByte()
		require.Error(t, err)
	}
	return &answer{res.StatusCode, res.Header, body}, res.Close
}

// TestBodyLimit: to the byte, announced or not; and the connection ends, so
// that the rest of a giant body is not read.
func TestBodyLimit(t *testing.T) {
	t.Parallel()
	const limit = 4096
	s := setupWith(t, `create table t (id int primary key, v text)`, options{limits: api.Limits{Body: limit}})
	body := func(id, size int) string {
		head := row(`{"id":%d,"v":"`, id)
		return head + strings.Repeat("x", size-len(head)-2) + `"}`
	}
	chunked := func(text string) (*answer, error) {
		return s.try("POST", s.path("t"), io.MultiReader(strings.NewReader(text))) // no length: chunked
	}
	require.Equal(t, 202, s.do("POST", s.path("t"), body(1, limit)).status)
	s.do("POST", s.path("t"), body(2, limit+1)).problem(t, 413, "body_too_large")
	a, err := chunked(body(3, limit))
	require.NoError(t, err)
	require.Equal(t, 202, a.status)
	a, err = chunked(body(4, limit+1))
	require.NoError(t, err)
	require.Equal(t, "no", a.problem(t, 413, "body_too_large").Applied)

	a, closed := s.raw(t, "POST "+s.path("t")+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n")
	a.problem(t, 413, "body_too_large")
	require.True(t, closed)
	require.EqualValues(t, 2, s.accepted("t"))
}

// TestBrokenRequests: what no HTTP client sends.
func TestBrokenRequests(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v text)`)
	post := "POST " + s.path("t") + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	t.Run("case", func(t *testing.T) {
		t.Run("bad percent-encoding", func(t *testing.T) {
			t.Parallel()
			a, _ := s.raw(t, "GET "+s.path("t", "%zz")+" HTTP/1.1\r\nHost: x\r\n\r\n")
			require.Equal(t, 400, a.status) // net/http's own: the request never gets here
		})
		t.Run("length and chunks", func(t *testing.T) {
			t.Parallel()
			// net/http takes the chunks and drops the length, as RFC 9112 section 6.3 allows.
			a, _ := s.raw(t, post+"Content-Length: 8\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"x\r\n0\r\n\r\n")
			a.problem(t, 400, "invalid_json")
		})
		t.Run("two lengths", func(t *testing.T) {
			t.Parallel()
			a, _ := s.raw(t, post+"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{\"id\"")
			require.Equal(t, 400, a.status)
		})
		t.Run("bad chunk", func(t *testing.T) {
			t.Parallel()
			a, closed := s.raw(t, post+"Transfer-Encoding: chunked\r\n\r\nzz\r\n{\"id\":1}\r\n0\r\n\r\n")
			a.problem(t, 400, "invalid_json")
			require.True(t, closed)
		})
		t.Run("huge header", func(t *testing.T) {
			t.Parallel()
			a, closed := s.raw(t, post+"X: "+strings.Repeat("x", 80<<10)+"\r\n\r\n")
			require.Equal(t, 431, a.status)
			require.True(t, closed)
		})
		t.Run("body shorter than announced", func(t *testing.T) {
			t.Parallel()
			c := s.dial(t)
			_, err := io.WriteString(c, post+"Content-Length: 100\r\n\r\n{\"id\":1}")
			require.NoError(t, err)
			require.NoError(t, c.(*net.TCPConn).CloseWrite())
			a, _ := readAnswer(t, c)
			a.problem(t, 400, "invalid_json")
		})
		t.Run("client goes away", func(t *testing.T) {
			t.Parallel()
			c := s.dial(t)
			_, err := io.WriteString(c, post+"Content-Length: 100\r\n\r\n{\"id\":1}")
			require.NoError(t, err)
			require.NoError(t, c.Close()) // goleak, at the end, finds what was left behind
		})
	})
	require.Zero(t, s.accepted("t"))
}

// TestSlowBody: a body that trickles is cut off, and nothing of it applied. A
// header that trickles gets no answer at all.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key)`, options{serve: func(h *http.Server) {
		h.ReadTimeout, h.ReadHeaderTimeout = 300*time.Millisecond, 200*time.Millisecond
	}})
	a, closed := s.raw(t, "POST "+s.path("t")+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{\"id\":1")
	require.Equal(t, "no", a.problem(t, 408, "request_timeout").Applied)
	require.True(t, closed)

	c := s.dial(t)
	_, err := io.WriteString(c, "POST "+s.path("t")+" HTTP/1.1\r\nHost:")
	require.NoError(t, err)
	text, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Empty(t, text)
	require.Zero(t, s.accepted("t"))
}

// TestClientGoesAway after its write was sent: the write is finished all the
// same, once, and reads that nobody waits for end.
func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key)`)
	release, loading := make(chan struct{}), make(chan struct{}, 1)
	s.edge.beforeLoad = func() { loading <- struct{}{}; <-release }
	c := s.dial(t)
	body := `{"id":1}`
	_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nPrefer: wait=30\r\nContent-Length: %d\r\n\r\n%s", s.path("t"), len(body), body)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.accepted("t") == 1 }, 10*time.Second, time.Millisecond)
	require.NoError(t, c.Close())

	c = s.dial(t)
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", s.path("t", "2"))
	require.NoError(t, err)
	<-loading
	require.NoError(t, c.Close())
	close(release)
	require.Equal(t, 200, s.get(s.path("t", "1")).status)
	s.startFlusher()
	s.flushed()
	require.Equal(t, 1, s.count("t"))
}
