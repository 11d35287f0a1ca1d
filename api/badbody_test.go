package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
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
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it does not end")
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

// TestDigitsLimit: a few bytes such as 1e131071 are many once they are written
// out, and all of them together are bounded.
func TestDigitsLimit(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, n numeric)`)
	body := array(600, func(i int) string { return row(`{"id":%d,"n":1e131071}`, i) })
	s.do("POST", s.path("t"), body).problem(t, 413, "body_too_large")
	require.Zero(t, s.accepted("t"))
}

// TestEveryBadRowIsTold: an answer that cannot list all that is wrong lists
// every bad row.
func TestEveryBadRowIsTold(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, n int)`)
	line := func(i int) string { return row(`{"id":"%d","n":"x"}`, i) }
	bulk := func(i int) string {
		return row(`{"op":"put","table":"%s.t","row":{"id":"%d","n":"x"}}`, s.schema, i)
	}
	nd := []string{"Content-Type", "application/x-ndjson"}
	for _, errors := range [][]item{
		s.do("POST", s.path("t"), `{"id":0}`+"\n"+lines(999, line), nd...).accept(t, 207).Errors,
		s.do("POST", s.path("t"), array(999, line)).problem(t, 422, "invalid_rows").Errors,
		s.do("POST", "/v1/_bulk", lines(999, bulk), nd...).problem(t, 422, "invalid_rows").Errors,
	} {
		rows := make(map[int]bool)
		for _, e := range errors {
			rows[*e.Index] = true
		}
		require.Len(t, rows, 999)
	}
}

// TestManyNames: a body of nothing but names costs what its length costs, and
// the answer does not list them all.
func TestManyNames(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key)`)
	names := array(200_000, func(i int) string { return row(`"n%d":1`, i) })
	a := s.do("POST", s.path("t"), "{"+names[1:len(names)-1]+"}")
	require.LessOrEqual(t, len(a.problem(t, 422, "unknown_column").Errors), 1000)
	s.do("POST", s.path("t"), "{"+names[1:len(names)-1]+`,"n7":1}`).problem(t, 400, "duplicate_field")
	require.Zero(t, s.accepted("t"))
}

// TestExpectContinue: a client that asks first whether it may send its body is
// told no before it does, and yes when it may.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key)`, options{limits: api.Limits{Body: 4096}})
	ask := func(kind string, length int) (net.Conn, string) {
		c := s.dial(t)
		_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", s.path("t"), kind, length)
		require.NoError(t, err)
		line := make([]byte, len("HTTP/1.1 100"))
		_, err = io.ReadFull(c, line)
		require.NoError(t, err)
		return c, string(line)
	}
	_, line := ask("application/json", 4097)
	require.Equal(t, "HTTP/1.1 413", line)
	_, line = ask("text/plain", 8)
	require.Equal(t, "HTTP/1.1 415", line)
	require.Zero(t, s.accepted("t"))
	c, line := ask("application/json", 8)
	require.Equal(t, "HTTP/1.1 100", line)
	_, err := io.WriteString(c, `{"id":1}`)
	require.NoError(t, err)
	text := make([]byte, len(" Continue\r\n\r\nHTTP/1.1 202"))
	_, err = io.ReadFull(c, text)
	require.NoError(t, err)
	require.Equal(t, " Continue\r\n\r\nHTTP/1.1 202", string(text))
	require.EqualValues(t, 1, s.accepted("t"))
}

// TestRefusedBodyIsNoRequest: what a refused request carried is never read as
// the next one, though a proxy keeps the connection for other clients.
func TestRefusedBodyIsNoRequest(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key); create view looks as select 1 as x`, options{limits: api.Limits{Body: 4096}})
	inner := "POST " + s.path("t") + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{\"id\":1}"
	chunked := fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(inner), inner)
	plain := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(inner), inner)
	for _, c := range []struct {
		head   string
		status int
	}{
		{"POST " + s.path("t") + " HTTP/1.1\r\nContent-Type: text/plain\r\n", 415}, {"POST " + s.path("looks") + " HTTP/1.1\r\nContent-Type: application/json\r\n", 409},
		{"POST /v1/nothing HTTP/1.1\r\n", 404}, {"DELETE " + s.path("t") + " HTTP/1.1\r\n", 405}, {"DELETE " + s.path("t", "1") + " HTTP/1.1\r\n", 404},
		{"GET " + s.path("t", "1") + " HTTP/1.1\r\n", 404}, {"POST " + s.path("t") + " HTTP/1.1\r\nContent-Type: application/json\r\nContent-Encoding: br\r\n", 415},
	} {
		for _, body := range []string{plain, chunked} {
			conn := s.dial(t)
			_, err := io.WriteString(conn, c.head+"Host: x\r\n"+body+"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
			require.NoError(t, err)
			r := bufio.NewReader(conn)
			for _, want := range []int{c.status, 200} {
				res, err := http.ReadResponse(r, nil)
				require.NoError(t, err, c.head)
				_, err = io.Copy(io.Discard, res.Body)
				require.NoError(t, err)
				require.Equal(t, want, res.StatusCode, c.head)
				if res.Close {
					break
				}
			}
			require.NoError(t, conn.Close())
		}
	}
	require.Zero(t, s.accepted("t"))
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
			// net/http takes the chunks and drops the length before any handler could see it, as
			// RFC 9112 section 6.3 allows; that it leaves the connection open then is not for us to change.
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
		t.Run("101 headers", func(t *testing.T) {
			t.Parallel()
			a, closed := s.raw(t, post+lines(101, func(i int) string { return row("X-%d: %s\r", i, strings.Repeat("x", 10<<10)) })+"\r\n")
			require.Equal(t, 431, a.status)
			require.True(t, closed)
		})
		t.Run("chunks that end early", func(t *testing.T) {
			t.Parallel()
			c := s.dial(t)
			_, err := io.WriteString(c, post+"Transfer-Encoding: chunked\r\n\r\n8\r\n{\"id\":1}\r\n")
			require.NoError(t, err)
			require.NoError(t, c.(*net.TCPConn).CloseWrite())
			a, _ := readAnswer(t, c)
			require.Equal(t, "no", a.problem(t, 400, "invalid_json").Applied)
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
	s := setupWith(t, `create table t (id int primary key)`, options{
		limits: api.Limits{BodyGrace: 300 * time.Millisecond},
		serve:  func(h *http.Server) { h.ReadHeaderTimeout = 200 * time.Millisecond },
	})
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
