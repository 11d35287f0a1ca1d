//go:build linux

package main_test

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// wire is a TCP proxy between a process of ours and a server, on which
// networks go wrong: it holds bytes back in either direction, slows them down,
// cuts connections, and does to a COMMIT what it is told. Safe for concurrent
// use. (toxiproxy does not know what a COMMIT is.)
type wire struct {
	listener net.Listener

	mu     sync.Mutex // guards the rest
	moved  *sync.Cond // something below changed
	target string     // host:port; empty: connections are cut at once
	links  map[*link]bool
	up     manner // from the client to the server
	down   manner
	commit commitFate
	doomed int // COMMITs that are still to meet it
	met    int // COMMITs that have
	closed bool
}

// manner of one direction.
type manner struct {
	held    bool          // bytes wait
	latency time.Duration // of each portion
	slice   int           // most bytes of a portion; 0: as they come
}

// commitFate is what becomes of a COMMIT.
type commitFate int

const (
	commitPasses    commitFate = iota
	commitNeverSent            // the connection breaks before it gets to the server
	commitReplyLost            // it is applied; the connection breaks before the client hears of it
	commitLate                 // it is on its way for five seconds
)

// link is one connection through the wire.
type link struct {
	client, server net.Conn
	mute           bool // the answer to a COMMIT that must not arrive is awaited
}

// cut breaks it off, as a crash does: RST, not FIN.
func (k *link) cut() {
	for _, c := range []net.Conn{k.client, k.server} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}

// newWire listens until the end of the test.
func newWire(t *testing.T, target string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := &wire{listener: l, target: target, links: make(map[*link]bool)}
	w.moved = sync.NewCond(&w.mu)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { w.connect(c) })
		}
	})
	t.Cleanup(func() {
		w.mu.Lock()
		w.closed = true
		w.mu.Unlock()
		_ = l.Close()
		w.cut()
		all.Wait()
	})
	return w
}

// through gives the URL with the wire's address in it.
func (w *wire) through(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	u.Host = w.listener.Addr().String()
	return u.String()
}

func (w *wire) connect(client net.Conn) {
	w.mu.Lock()
	target := w.target
	w.mu.Unlock()
	k := &link{client: client, server: client}
	if target != "" {
		if server, err := net.DialTimeout("tcp", target, 2*time.Second); err == nil {
			k.server = server
		}
	}
	w.mu.Lock()
	if k.server == client || w.closed || w.target != target {
		w.mu.Unlock()
		k.cut()
		return
	}
	w.links[k] = true
	w.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { w.pump(k, true) })
	both.Go(func() { w.pump(k, false) })
	both.Wait()
	w.mu.Lock()
	delete(w.links, k)
	w.mu.Unlock()
}

func (w *wire) pump(k *link, up bool) {
	defer w.moved.Broadcast()
	defer k.cut()
	from, to := k.client, k.server
	if !up {
		from, to = to, from
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			m, ok := w.turn(k, up, rest)
			if !ok {
				return
			}
			portion := rest
			if m.slice > 0 {
				portion = rest[:min(m.slice, len(rest))]
			}
			time.Sleep(m.latency)
			if _, err := to.Write(portion); err != nil {
				return
			}
			rest = rest[len(portion):]
		}
		if err != nil {
			return
		}
	}
}

// pgx sends a COMMIT as a simple query of its own.
var (
	commitSent   = []byte("Q\x00\x00\x00\x0bcommit\x00")
	commitAnswer = []byte("COMMIT\x00")
)

// turn waits until bytes may go on, and tells how; or that the connection ends.
func (w *wire) turn(k *link, up bool, portion []byte) (manner, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	late := false
	if up && w.doomed > 0 && bytes.Contains(portion, commitSent) {
		w.doomed--
		w.met++
		switch w.commit {
		case commitNeverSent:
			return manner{}, false
		case commitReplyLost:
			k.mute = true
		case commitLate:
			late = true
		}
	}
	if !up && k.mute && bytes.Contains(portion, commitAnswer) {
		return manner{}, false
	}
	for {
		m := w.down
		if up {
			m = w.up
		}
		if w.closed || !w.links[k] {
			return m, false
		}
		if !m.held {
			if late {
				m.latency += 5 * time.Second
			}
			return m, true
		}
		w.moved.Wait()
	}
}

// set changes what the wire does.
func (w *wire) set(change func(w *wire)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
	w.moved.Broadcast()
}

// hold keeps bytes back in the given directions until heal.
func (w *wire) hold(up, down bool) {
	w.set(func(w *wire) { w.up.held, w.down.held = up, down })
}

// heal lets everything pass again; what was held goes on its way.
func (w *wire) heal() { w.set(func(w *wire) { w.up, w.down, w.doomed = manner{}, manner{}, 0 }) }

// cut breaks all connections off.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k := range w.links {
		k.cut()
		delete(w.links, k)
	}
	w.moved.Broadcast()
}

// point leads to another server from now on; an empty target to none.
func (w *wire) point(target string) {
	w.set(func(w *wire) { w.target = target })
	w.cut()
}

// doom sets what the next COMMITs meet.
func (w *wire) doom(fate commitFate, commits int) {
	w.set(func(w *wire) { w.commit, w.doomed, w.met = fate, commits, 0 })
}

// doomedSoFar is how many COMMITs have met their fate.
func (w *wire) doomedSoFar() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.met
}
