package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// benchWire is a TCP connection to Postgres on which every answer takes longer,
// and which counts the statements that name a table. Safe for concurrent use.
type benchWire struct {
	listener net.Listener
	to       string
	about    string       // counted are executions of statements that hold this
	delay    atomic.Int64 // of each answer
	asked    atomic.Int64

	mu    sync.Mutex // guards conns
	conns []net.Conn
	all   sync.WaitGroup
}

// newBenchWire gives the URL that leads through it.
func newBenchWire(database, about string) (*benchWire, string, error) {
	u, err := url.Parse(database)
	if err != nil {
		return nil, "", fmt.Errorf("read database URL: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		return nil, "", fmt.Errorf("listen: %w", err)
	}
	w := &benchWire{listener: l, to: u.Host, about: about}
	u.Host = l.Addr().String()
	w.all.Go(w.accept)
	return w, u.String(), nil
}

func (w *benchWire) slow(delay time.Duration) { w.delay.Store(int64(delay)) }

func (w *benchWire) accept() {
	for {
		in, err := w.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", w.to) //nolint:noctx // loopback
		if err != nil {
			_ = in.Close()
			continue
		}
		w.mu.Lock()
		w.conns = append(w.conns, in, out)
		w.mu.Unlock()
		w.all.Go(func() {
			_, _ = io.Copy(out, io.TeeReader(in, &askedCounter{wire: w}))
			_ = out.Close()
		})
		w.all.Go(func() { w.answer(out, in) })
	}
}

// answer passes on what Postgres says, each piece as much later as it is slow.
// The pieces of one answer do not wait for each other.
func (w *benchWire) answer(from, to net.Conn) {
	type piece struct {
		due  time.Time
		data []byte
	}
	pieces := make(chan piece, 1024)
	w.all.Go(func() {
		for p := range pieces {
			time.Sleep(time.Until(p.due))
			_, _ = to.Write(p.data) // when it is gone, so is soon the other side
		}
		_ = to.Close()
	})
	defer close(pieces)
	for {
		data := make([]byte, 16<<10)
		n, err := from.Read(data)
		if n > 0 {
			pieces <- piece{time.Now().Add(time.Duration(w.delay.Load())), data[:n]}
		}
		if err != nil {
			return
		}
	}
}

func (w *benchWire) close() {
	_ = w.listener.Close()
	w.mu.Lock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.all.Wait()
}

// askedCounter reads what a client sends (PostgreSQL documentation, 55.7):
// Parse gives a statement a name, Bind is an execution of it.
type askedCounter struct {
	wire    *benchWire
	left    []byte // the beginning of a message
	started bool   // the messages before that have no type
	named   map[string]bool
}

func (a *askedCounter) Write(data []byte) (int, error) {
	a.left = append(a.left, data...)
	for {
		typed := 0
		if a.started {
			typed = 1
		}
		if len(a.left) < typed+4 {
			return len(data), nil
		}
		size := typed + int(binary.BigEndian.Uint32(a.left[typed:]))
		if len(a.left) < size {
			return len(data), nil
		}
		if a.started {
			a.message(a.left[0], string(a.left[5:size]))
		} else { // not so after a question for encryption, which the server denies
			a.started = size >= 8 && binary.BigEndian.Uint32(a.left[4:]) < 80877103
		}
		a.left = a.left[size:]
	}
}

func (a *askedCounter) message(kind byte, body string) {
	parts := strings.SplitN(body, "\x00", 3)
	switch {
	case kind == 'P' && len(parts) == 3: // name, text
		if a.named == nil {
			a.named = make(map[string]bool)
		}
		a.named[parts[0]] = strings.Contains(parts[1], a.wire.about)
	case kind == 'B' && len(parts) == 3 && a.named[parts[1]]: // portal, name
		a.wire.asked.Add(1)
	}
}
