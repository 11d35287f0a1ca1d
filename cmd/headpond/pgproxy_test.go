package main_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// pgProxy stands between a client and PostgreSQL, knows the messages of their
// protocol, and does something to the COMMITs of flushes.
// Source: PostgreSQL 15 documentation, chapter 55.
type pgProxy struct {
	url    string // for the client
	server string // host:port
	app    string
	fault  func(n int) commitFault // of the n-th COMMIT, from 1

	mu      sync.Mutex // guards the rest
	commits int
	faults  int
	held    chan struct{} // closed when a COMMIT is held for the first time
	release chan struct{} // closed to let those go
}

// commitFault is what becomes of a COMMIT.
type commitFault int

const (
	passCommit commitFault = iota
	loseCommit             // the server never gets it
	loseAnswer             // the server has committed, and nobody hears of it
	holdCommit             // the server gets it when release is closed, whatever has become of the client
)

// startProxy for connections of app to the server at a URL.
func startProxy(t *testing.T, database, app string, fault func(n int) commitFault) *pgProxy {
	t.Helper()
	u, err := url.Parse(database)
	require.NoError(t, err)
	p := &pgProxy{server: u.Host, app: app, fault: fault, held: make(chan struct{}), release: make(chan struct{})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	u.Host = l.Addr().String()
	p.url = u.String()
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	return p
}

// happened is how many COMMITs something was done to.
func (p *pgProxy) happened() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults
}

func (p *pgProxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	start, err := readMessage(client, false)
	if err != nil {
		return
	}
	if _, err := server.Write(start); err != nil {
		return
	}
	ours := bytes.Contains(start, []byte("application_name\x00"+p.app+"\x00"))
	var lose sync.Once
	losing := make(chan struct{}) // the answer to COMMIT
	var down sync.WaitGroup
	down.Go(func() { p.answers(server, client, losing) })
	moved := false // a watermark, in this transaction: so it is a flush
	for {
		m, err := readMessage(client, true)
		if err != nil {
			break
		}
		moved = moved || bytes.Contains(m, []byte("update headpond.watermarks"))
		if ours && moved && m[0] == 'Q' && bytes.EqualFold(m[5:], []byte("commit\x00")) {
			moved = false
			f := p.next()
			if f == loseCommit {
				reset(client)
				break
			}
			if f == loseAnswer {
				lose.Do(func() { close(losing) })
			}
			if f == holdCommit {
				<-p.release
			}
		}
		if _, err := server.Write(m); err != nil {
			break
		}
	}
	if c, ok := server.(*net.TCPConn); ok {
		_ = c.CloseWrite() // what was sent is still executed
	}
	down.Wait()
}

// answers goes on reading when the client is gone: the server must not notice.
func (p *pgProxy) answers(server, client net.Conn, losing chan struct{}) {
	gone := false
	for {
		m, err := readMessage(server, true)
		if err != nil {
			_ = client.Close()
			return
		}
		select {
		case <-losing:
			if m[0] == 'C' && bytes.HasPrefix(m[5:], []byte("COMMIT")) {
				reset(client)
				gone = true
			}
		default:
		}
		if !gone {
			_, err := client.Write(m)
			gone = err != nil
		}
	}
}

func (p *pgProxy) next() commitFault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commits++
	f := p.fault(p.commits)
	if f != passCommit {
		p.faults++
	}
	if f == holdCommit {
		select {
		case <-p.held:
		default:
			close(p.held)
		}
	}
	return f
}

// readMessage reads a whole message; the first of a connection has no type.
func readMessage(c net.Conn, typed bool) ([]byte, error) {
	at := 0
	if typed {
		at = 1
	}
	head := make([]byte, at+4)
	if _, err := io.ReadFull(c, head); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head[at:]))
	m := append(head, make([]byte, n-4)...)
	_, err := io.ReadFull(c, m[at+4:])
	return m, err
}

// reset ends a connection as a broken network does.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
