package api

import (
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// patience is how slowly a body may come: after grace it must have come at rate
// bytes a second on the whole. So a large body has the time that it needs, and
// one that trickles holds its buffer for grace and no longer.
type patience struct {
	grace time.Duration
	rate  float64
}

// writeTime is what an answer has beyond the longest wait.
const writeTime = time.Minute

// bound gives a body that is never read an end too: net/http reads what is left
// of it, to keep the connection. readWire gives more time to one that is read.
func (s *Server) bound(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if c.Request().ContentLength != 0 {
			_ = http.NewResponseController(c.Response()).SetReadDeadline(time.Now().Add(s.patience.grace))
		}
		return next(c)
	}
}

// patient reads a body as long as it comes fast enough.
type patient struct {
	from     io.Reader
	control  *http.ResponseController
	patience patience
	began    time.Time
	read     int64
}

func (p *patient) Read(into []byte) (int, error) {
	due := p.began.Add(p.patience.grace + time.Duration(float64(p.read)/p.patience.rate*float64(time.Second)))
	_ = p.control.SetReadDeadline(due) // not supported by a test's recorder, which is never slow
	n, err := p.from.Read(into)
	p.read += int64(n)
	return n, err
}

// done lets the connection wait for its client again: a deadline that passes
// while the answer is made would end the request. Of a body that was not read to
// its end the deadline stays, for net/http reads on. The answer gets its time
// from now on.
func (p *patient) done(err error, write time.Duration) {
	if err == nil {
		_ = p.control.SetReadDeadline(time.Time{})
	}
	_ = p.control.SetWriteDeadline(time.Now().Add(write))
}
