package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Listener has at most so many connections. One more is answered 503 and closed,
// instead of left waiting: a client learns what is the matter, and a balancer
// goes elsewhere. /livez is answered as ever, because a restart would mend
// nothing. Safe for concurrent use.
type Listener struct {
	net.Listener

	most     int64
	open     atomic.Int64
	refused  atomic.Int64
	refusing chan struct{} // a place for each connection that is being answered
	answers  sync.WaitGroup
}

// Refusals take a goroutine and a file each; beyond so many at a time a
// connection is only closed.
const (
	mostRefusals = 8
	refusalTime  = 500 * time.Millisecond
)

// Limit puts a bound on the connections of a listener.
func Limit(l net.Listener, most int) *Listener {
	return &Listener{Listener: l, most: int64(most), refusing: make(chan struct{}, mostRefusals)}
}

// Open is how many connections there are, Refused how many were refused.
func (l *Listener) Open() int64 { return l.open.Load() }

// Refused is how many connections were one too many.
func (l *Listener) Refused() int64 { return l.refused.Load() }

// Accept waits for a connection that may stay.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.most {
			return &counted{Conn: c, open: &l.open}, nil
		}
		l.open.Add(-1)
		l.refused.Add(1)
		select {
		case l.refusing <- struct{}{}:
			l.answers.Go(func() {
				refuse(c)
				<-l.refusing
			})
		default:
			_ = c.Close()
		}
	}
}

// Close stops listening. Connections that are being refused are answered yet.
func (l *Listener) Close() error {
	err := l.Listener.Close()
	l.answers.Wait()
	return err
}

// refuse reads a request before it answers: a connection that is closed with
// something unread takes its answer with it.
func refuse(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(refusalTime))
	r, err := http.ReadRequest(bufio.NewReader(io.LimitReader(c, 64<<10)))
	if err != nil {
		return
	}
	status, kind, extra, body := http.StatusServiceUnavailable, "application/problem+json", "Retry-After: 1\r\n", []byte(nil)
	if r.URL.Path == "/livez" {
		status, kind, extra, body = http.StatusOK, "text/plain; charset=UTF-8", "", []byte("ok\n")
	} else {
		body = fault(codeTooManyConnections, "The server has as many connections as it may have. Nothing was applied.").
			hint("Use a connection for many requests.").body(traceID(r))
	}
	_, _ = fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n%s",
		status, http.StatusText(status), kind, len(body), extra, body)
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
		_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<20))
	}
}

// counted is a connection that has a place.
type counted struct {
	net.Conn

	open *atomic.Int64
	once sync.Once
}

// Close gives the place back.
func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}
