package api_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/flusher/postgres"
)

// BenchmarkGetHit: GETs of clean rows by 64 connections, of one and of 1,000 in
// turn; of a constant row from an Echo handler that does nothing else; and the
// same rows by SELECT through a pool of 64 connections.
func BenchmarkGetHit(b *testing.B) {
	const rows, clients = 1000, 64
	s := setup(b, `create table c (id int primary key, name text not null default 'none', n bigint not null default 0, doc jsonb)`)
	s.exec(`insert into c select i, 'name of ' || i, i * 1000, jsonb_build_object('page', '/a/b/c', 'n', i, 'tags', jsonb_build_array('a', 'b')) from generate_series(0, $1) i`, rows-1)
	for i := range rows {
		s.get(s.path("c", strconv.Itoa(i)))
	}
	constant := s.get(s.path("c", "42")).body
	e := echo.New()
	e.GET("/v1/:table/:key", func(c echo.Context) error { return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, constant) })
	plain := httptest.NewServer(e)
	defer plain.Close()
	load := func(b *testing.B, each func() func(n int64)) {
		b.Helper()
		var next atomic.Int64
		b.SetParallelism(clients / 2)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			one := each()
			for pb.Next() {
				one(next.Add(1) % rows)
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
	}
	get := func(url string, row func(n int64) int64) func() func(int64) {
		return func() func(int64) {
			c := newGetter(b, strings.TrimPrefix(url, "http://"))
			return func(n int64) { c.get(s.path("c", strconv.FormatInt(row(n), 10))) }
		}
	}
	same := func(int64) int64 { return 42 }
	other := func(n int64) int64 { return n }
	b.Run("echo", func(b *testing.B) { load(b, get(plain.URL, same)) })
	b.Run("one", func(b *testing.B) { load(b, get(s.url, same)) })
	b.Run("many", func(b *testing.B) { load(b, get(s.url, other)) })
	b.Run("select", func(b *testing.B) {
		pool, err := postgres.NewPool(context.Background(), s.pool.Config().ConnString(), postgres.PoolOptions{MaxConns: clients})
		require.NoError(b, err)
		defer pool.Close()
		load(b, func() func(int64) {
			return func(n int64) {
				var row string
				if err := pool.QueryRow(context.Background(), `select to_jsonb(c)::text from c where id = $1`, n).Scan(&row); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// getter is a connection that knows as little of HTTP as it can, so that what
// is measured is the server.
type getter struct {
	b    *testing.B
	conn net.Conn
	buf  []byte
}

func newGetter(b *testing.B, addr string) *getter {
	b.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	return &getter{b: b, conn: conn, buf: make([]byte, 4096)}
}

func (g *getter) get(path string) {
	if _, err := io.WriteString(g.conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		g.b.Error(err)
		return
	}
	have, end := 0, -1
	for end < 0 || have < end {
		n, err := g.conn.Read(g.buf[have:])
		if err != nil {
			g.b.Error(err)
			return
		}
		have += n
		if at := bytes.Index(g.buf[:have], []byte("\r\n\r\n")); at >= 0 && end < 0 {
			head := g.buf[:at]
			_, length, _ := bytes.Cut(head, []byte("Content-Length: "))
			length, _, _ = bytes.Cut(length, []byte("\r\n"))
			size, err := strconv.Atoi(string(length))
			if err != nil || !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
				g.b.Error(fmt.Sprintf("%s", g.buf[:have]))
				return
			}
			end = at + 4 + size
		}
	}
}
