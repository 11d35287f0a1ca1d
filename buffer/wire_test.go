package buffer_test

import (
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// wire stands between a buffer and Redis. It can lose what Redis answers, while
// all that is sent arrives, and break connections in the middle of an answer.
type wire struct {
	listener net.Listener
	to       string
	all      sync.WaitGroup

	mu     sync.Mutex // guards the rest
	losing bool       // answers are lost, and their connection with them
	dice   *rand.Rand // when not nil, connections break after some bytes, and answers come in pieces
	lost   int        // connections that were broken
	conns  map[net.Conn]bool
}

// newWire gives a wire, and the URL of Redis through it.
func newWire(t *testing.T, redis string) (w *wire, through string) {
	t.Helper()
	u, err := url.Parse(redis)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w = &wire{listener: l, to: u.Host, conns: make(map[net.Conn]bool)}
	w.all.Go(w.accept)
	t.Cleanup(func() {
		_ = l.Close()
		w.mu.Lock()
		for c := range w.conns {
			_ = c.Close()
		}
		w.mu.Unlock()
		w.all.Wait()
	})
	u.Host = l.Addr().String()
	return w, u.String()
}

func (w *wire) accept() {
	for {
		in, err := w.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", w.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		w.mu.Lock()
		w.conns[in], w.conns[out] = true, true
		w.mu.Unlock()
		w.all.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
		w.all.Go(func() { w.answer(in, out) })
	}
}

// answer carries what Redis says to the client.
func (w *wire) answer(in, out net.Conn) {
	defer in.Close()
	defer out.Close()
	buf := make([]byte, 32<<10)
	for left := w.life(); ; {
		n, err := out.Read(buf[:min(len(buf), left)])
		if err != nil || w.loses() {
			return
		}
		if _, err := in.Write(buf[:n]); err != nil {
			return
		}
		if left -= n; left <= 0 {
			w.mu.Lock()
			w.lost++
			w.mu.Unlock()
			return
		}
	}
}

func (w *wire) loses() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.losing {
		w.lost++
	}
	return w.losing
}

// life of a connection, in bytes of answers.
func (w *wire) life() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dice == nil {
		return 1 << 40
	}
	return 300 + w.dice.IntN(1500) // a greeting takes 200
}

func (w *wire) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}
