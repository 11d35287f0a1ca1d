package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
)

// Whoever listens is told once a second. What is told is made once, by the
// goroutine that samples, however many listen; each stream writes it by itself, so
// that a slow reader holds up nobody, and is dropped when it takes nothing for
// streamPatience.
const (
	mostStreams    = 200
	streamPatience = 5 * time.Second
	streamRetry    = "retry: 1000\n\n"
)

// beat is what is told in one second. text is set before ready closes, next too.
type beat struct {
	ready chan struct{}
	text  []byte
	next  *beat
}

// streams is safe for concurrent use.
type streams struct {
	mu     sync.Mutex // guards what follows
	open   int
	coming *beat
	end    chan struct{} // closed when all of them are to end
	ended  bool
}

func (s *streams) init() {
	s.coming, s.end = &beat{ready: make(chan struct{})}, make(chan struct{})
}

func (s *streams) listeners() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// close ends all streams, those that come later too.
func (s *streams) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.ended = true
		close(s.end)
	}
}

// enter gives the beat that comes next, nil when there are as many streams as there
// may be. leave must be called after it.
func (s *streams) enter() *beat {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open >= mostStreams {
		return nil
	}
	s.open++
	return s.coming
}

func (s *streams) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
}

// tell ends the coming beat with a text.
func (s *streams) tell(text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.coming
	now.text, now.next = text, &beat{ready: make(chan struct{})}
	s.coming = now.next
	close(now.ready)
}

// publish adds a point to the history and tells it, with the status if there is one.
// A stream that begins has either the point in its history or the beat to come: the
// history is held meanwhile.
func (s *Server) publish(total *point, tables map[string]point, st *status) {
	wall := time.Now()
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	at := s.history.clock.tick(wall, wall.Sub(s.history.told))
	s.history.told = wall
	s.history.add(at, total, tables)
	if s.streams.listeners() == 0 {
		s.streams.tell(nil)
		return
	}
	var text []byte
	if st != nil {
		if body, err := json.Marshal(st); err == nil {
			text = appendEvent(text, "status", 0, body)
		}
	}
	point := s.history.appendJSON(nil, s.history.points-1)
	s.streams.tell(appendEvent(text, "point", at, point))
}

// appendEvent appends one event. data is JSON, and so one line.
// Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
func appendEvent(dst []byte, name string, id int64, data []byte) []byte {
	if id > 0 {
		dst = append(strconv.AppendInt(append(dst, "id: "...), id, 10), '\n')
	}
	dst = append(append(append(dst, "event: "...), name...), "\ndata: "...)
	return append(append(dst, data...), "\n\n"...)
}

// getEvents is GET /admin/v1/events.
func (s *Server) getEvents(c echo.Context) error {
	after, _ := strconv.ParseInt(c.Request().Header.Get("Last-Event-ID"), 10, 64) // else it is all
	s.history.mu.Lock()
	now := s.streams.enter()
	if now == nil {
		s.history.mu.Unlock()
		return fault(codeTooManyStreams, "%d pages listen to this process already.", mostStreams).header("Retry-After", "5")
	}
	defer s.streams.leave()
	past, last := s.history.since(after), s.history.clock.last
	s.history.mu.Unlock()

	w := c.Response()
	control := http.NewResponseController(w)
	send := func(text []byte) error {
		_ = control.SetWriteDeadline(time.Now().Add(streamPatience))
		if _, err := w.Write(text); err != nil {
			return err
		}
		return control.Flush()
	}
	h := w.Header()
	h.Set(echo.HeaderContentType, "text/event-stream")
	h.Set(echo.HeaderCacheControl, "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would keep it
	w.WriteHeader(http.StatusOK)
	if send(appendEvent([]byte(streamRetry), "history", last, past)) != nil {
		return nil // the reader is gone, here and below
	}
	for {
		select {
		case <-now.ready:
		case <-c.Request().Context().Done():
			return nil
		case <-s.streams.end:
			return nil
		}
		if send(now.text) != nil {
			return nil
		}
		now = now.next
	}
}
