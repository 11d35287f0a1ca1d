package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
)

// TestRateLimit: a client that is too fast is told when to come back; what is
// not data is not limited.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key)`, options{limits: api.Limits{Rate: 0.001, Burst: 3}})
	for i := range 3 {
		s.post("t", row(`{"id":%d}`, i))
	}
	for _, w := range []badCase{
		{method: "POST", path: s.path("t"), body: `{"id":9}`}, {method: "GET", path: s.path("t", "1")}, {method: "GET", path: "/v1"},
		{method: "POST", path: "/v1/_bulk", body: "{}", headers: ndjson}, {method: "DELETE", path: s.path("t", "1")},
	} {
		a := s.do(w.method, w.path, w.body, w.headers...)
		require.Equal(t, "no", a.problem(t, 429, "rate_limited").Applied)
		require.NotEmpty(t, a.header.Get("Retry-After"))
	}
	for _, path := range []string{"/livez", "/readyz", "/admin/v1/status", "/openapi.json"} {
		require.Equal(t, 200, s.get(path).status, path)
	}
	require.EqualValues(t, 3, s.accepted("t"))
	require.EqualValues(t, 5, s.RateLimited())
}

// TestRateLimitTrustsNobody: a client cannot make itself another one, unless a
// trusted proxy says so; and then what it sent itself does not count.
func TestRateLimitTrustsNobody(t *testing.T) {
	t.Parallel()
	limits := api.Limits{Rate: 0.001, Burst: 1}
	s := setupWith(t, `create table t (id int primary key)`, options{limits: limits})
	from := func(chain string) *answer {
		a, _ := s.raw(t, "GET /v1 HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: "+chain+"\r\nX-Real-IP: "+chain+"\r\nForwarded: for="+chain+"\r\n\r\n")
		return a
	}
	require.Equal(t, 200, from("192.0.2.1").status)
	for i := range 3 {
		from(fmt.Sprintf("192.0.2.%d", i+2)).problem(t, 429, "rate_limited")
	}
	limits.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	s = setupWith(t, `create table t (id int primary key)`, options{limits: limits})
	for i := range 3 {
		require.Equal(t, 200, from(fmt.Sprintf("192.0.2.%d", i)).status, "each is another client")
	}
	from("198.51.100.7, 192.0.2.1").problem(t, 429, "rate_limited")
}

// TestTooManyConnections: one too many is told so, and /livez answers as ever;
// when one goes, the next has its place.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key)`)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	limited := api.Limit(l, 2)
	server := s.HTTP()
	served := make(chan error, 1)
	go func() { served <- server.Serve(limited) }()
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	ask := func(c net.Conn, path string) *answer {
		_, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err)
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return &answer{res.StatusCode, res.Header, text}
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(30*time.Second)))
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	first, second := dial(), dial()
	require.Equal(t, 200, ask(first, "/v1").status)
	require.Equal(t, 200, ask(second, "/v1").status)
	a := ask(dial(), "/v1")
	require.Equal(t, "no", a.problem(t, 503, "too_many_connections").Applied)
	require.NotEmpty(t, a.header.Get("Retry-After"))
	require.Equal(t, 200, ask(dial(), "/livez").status)
	silent := dial() // is closed, and takes nobody's place
	_, err = io.Copy(io.Discard, silent)
	require.NoError(t, err)
	require.Equal(t, 200, ask(first, "/v1").status)
	require.EqualValues(t, 3, limited.Refused())
	require.NoError(t, first.Close())
	require.Eventually(t, func() bool { return limited.Open() == 1 }, 20*time.Second, time.Millisecond)
	require.Equal(t, 200, ask(dial(), "/v1").status)
}

// TestSlowBodyIsTaken: a body may take longer than the grace when it keeps
// coming, and one that nobody reads does not hold its connection.
func TestSlowBodyIsTaken(t *testing.T) {
	t.Parallel()
	const grace = time.Second
	s := setupWith(t, `create table t (id int primary key, v text)`, options{limits: api.Limits{BodyGrace: grace, BodyRate: 1}})
	head := "POST " + s.path("t") + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 112\r\n\r\n"
	c := s.dial(t)
	_, err := io.WriteString(c, head+`{"id":1,"v":"`+strings.Repeat("x", 90)) // worth 100 s
	require.NoError(t, err)
	time.AfterFunc(2*grace, func() { _, _ = io.WriteString(c, `xxxxxxx"}`) })
	a, _ := readAnswer(t, c)
	require.Equal(t, 202, a.status, string(a.body))

	c = s.dial(t)
	_, err = io.WriteString(c, "POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 112\r\n\r\n{")
	require.NoError(t, err)
	text, err := io.ReadAll(c)
	require.NoError(t, err, "the connection ends")
	require.Contains(t, string(text), "table_not_found")
}
