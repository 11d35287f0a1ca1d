package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"go.opentelemetry.io/otel/trace"

	"github.com/headpond/headpond/api/dashboard"
	"github.com/headpond/headpond/buffer"
)

// Server is the HTTP API. Safe for concurrent use.
type Server struct {
	limits   Limits
	buffer   *buffer.Buffer
	edge     Edge
	ledger   Ledger
	letters  Letters
	log      *slog.Logger
	local    func() any // the local stack's part of the status, or nil
	warnings func() []string
	checks   func() []buffer.Check
	tables   atomic.Pointer[catalog]
	unread   atomic.Pointer[string] // why they are not there yet
	draining atomic.Bool

	ids     *random // for keys and defaults
	books   books
	echo    *echo.Echo
	keyed   *keyed // writes that depend on what their key holds
	reads   statsByTable
	began   time.Time
	loads   loads
	renewer renewer
	lists   flights
	direct  sync.Map // *directQueue, by table

	rate     *rateLimit // nil: none
	patience patience

	readOnly bool
	pool     func() PostgresPool
	peers    func(context.Context) ([]string, error)
	reload   func(context.Context) error
	kill     func(time.Duration) (pid int, err error) // the flusher of the local stack; nil for none
	asked    time.Time                                // for the peers; of the goroutine that samples

	tracer trace.Tracer // nil: no spans
	heard  Heard        // nil: nobody listens

	history history
	moments moments
	diary   diary
	streams streams
	tally   letterTally
}

// Deps are what a Server stands on.
type Deps struct {
	Buffer  *buffer.Buffer
	Edge    Edge
	Ledger  Ledger
	Letters Letters
	Metrics http.Handler // /metrics; nil for none
	Local   func() any   // what the status page says of the local stack; nil for none
	// Warnings are sentences for an operator, shown in the status; nil for none.
	Warnings func() []string
	// Checks are what is checked of Postgres; nil for none. Those that are not ok
	// are shown in the status, all of them in /readyz?verbose.
	Checks func() []buffer.Check
	Log    *slog.Logger

	Tracer trace.Tracer // of the requests' spans; nil for none
	Heard  Heard        // nil: nobody listens

	ReadOnly bool                                    // what changes something under /admin/v1 is refused
	Pool     func() PostgresPool                     // for the status; nil: zeros
	Peers    func(context.Context) ([]string, error) // names of the processes of the API that live; nil: nobody tells
	Reload   func(context.Context) error             // reads the catalog again; nil: it cannot be asked for
	// KillFlusher ends the flusher of the local stack with SIGKILL; it is started again, when it
	// has been away for so long. Nil when it is no process of its own.
	KillFlusher func(down time.Duration) (pid int, err error)
}

// New makes a server that serves no tables yet: see SetTables.
func New(limits Limits, d Deps) (*Server, error) {
	if err := limits.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		ids: newRandom(), limits: limits.withDefaults(), buffer: d.Buffer, edge: d.Edge, ledger: d.Ledger, letters: d.Letters,
		log: d.Log, local: d.Local, warnings: d.Warnings, checks: d.Checks,
		tracer: d.Tracer, heard: d.Heard,
		readOnly: d.ReadOnly, pool: d.Pool, peers: d.Peers, reload: d.Reload, kill: d.KillFlusher,
	}
	s.streams.init()
	s.keyed, s.began = newKeyed(s), time.Now()
	s.patience = patience{s.limits.BodyGrace, s.limits.BodyRate}
	s.loads.init()
	s.renewer.init()
	e := echo.New()
	s.echo = e
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = s.onError
	e.IPExtractor = clientIP(limits.Proxies)
	e.Use(s.observed, middleware.RecoverWithConfig(middleware.RecoverConfig{DisableErrorHandler: true, DisablePrintStack: true, LogErrorFunc: s.panicked}), s.bound, wholePath)
	if limits.Rate > 0 {
		s.rate = newRateLimit(limits.Rate, limits.Burst)
		e.Use(s.limitRate)
	}
	e.GET("/livez", s.livez)
	e.GET("/readyz", s.readyz)
	if d.Metrics != nil {
		e.GET("/metrics", echo.WrapHandler(d.Metrics))
	}
	document := &openapi{tables: &s.tables}
	e.GET("/openapi.json", document.getJSON)
	e.GET("/openapi.yaml", document.getYAML)
	for _, path := range []string{"/docs", "/docs/docs.css", "/docs/docs.js"} {
		e.GET(path, getDocs)
	}
	page := echo.WrapHandler(dashboard.Handler())
	for _, path := range []string{"/dashboard", "/dashboard/:file"} {
		e.GET(path, page)
	}
	e.GET("/v1", s.listTables)
	e.GET("/v1/receipts/:receipt", s.getReceipt)
	e.GET("/v1/:table", s.list)
	e.HEAD("/v1/:table", s.list)
	e.POST("/v1/:table", s.post)
	e.POST("/v1/flush", s.flushAll)
	e.POST("/v1/:table/flush", s.flushTable)
	e.GET("/v1/:table/_schema", s.getSchema)
	e.HEAD("/v1/receipts/:receipt", s.getReceipt) // or the row's HEAD would take them
	e.HEAD("/v1/:table/_schema", s.getSchema)
	for _, path := range []string{"/v1/:table/:key", "/v1/:table/"} { // without a key they say so
		e.GET(path, s.getRow)
		e.HEAD(path, s.getRow)
		e.PUT(path, s.put)
		e.PATCH(path, s.patch)
		e.DELETE(path, s.delete)
	}
	e.POST("/v1/:table/:key/increment", s.addTo)
	e.POST("/v1/_bulk", s.bulk)
	for _, path := range []string{"/v1/receipts/:receipt", "/v1/:table/_schema"} { // not a row's
		e.Match([]string{http.MethodPut, http.MethodPatch, http.MethodDelete}, path, readOnly)
	}
	s.operationRoutes(e)
	s.cacheRoutes(e)
	s.letterRoutes(e)
	return s, nil
}

func readOnly(echo.Context) error {
	return fault(codeMethodNotAllowed, "This path does not take this method.").header("Allow", "GET, HEAD")
}

func (s *Server) panicked(_ echo.Context, err error, stack []byte) error {
	s.log.Error("handler panicked", "error", err, "stack", string(stack))
	return err
}

// Handler serves HTTP.
func (s *Server) Handler() http.Handler { return s.echo }

// HTTP makes the http.Server with limits against slow and hostile clients. It
// speaks HTTP/1.1 alone: HTTP/2 is what a proxy speaks, and brings limits of its
// own (streams, frames, header tables) to guard. A body has its time from patience,
// so there is no ReadTimeout, which would also end a client's long wait.
func (s *Server) HTTP() *http.Server {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	srv := &http.Server{
		Handler:           s.echo,
		Protocols:         &http1,
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      s.limits.Wait + writeTime,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	srv.RegisterOnShutdown(s.streams.close) // it waits for requests, and these end by themselves never
	return srv
}

// Drain makes every further write answer 503 draining, and /readyz 503. Reads
// go on.
func (s *Server) Drain() { s.draining.Store(true) }

// segment gives the n-th part of the path, decoded; parts are counted from 1.
// The router's own parameters are not used: it cannot tell %2F from a slash.
func segment(r *http.Request, n int) string {
	raw := rawSegment(r, n)
	if s, err := url.PathUnescape(raw); err == nil {
		return s
	}
	return raw
}

func rawSegment(r *http.Request, n int) string {
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	if n <= len(parts) {
		return parts[n-1]
	}
	return ""
}

// wholePath refuses a path that is longer than its route. The router lets the last
// parameter of a route stand for all that follows, slashes too, and segment reads one
// part: what was asked of a/b would be done to a.
func wholePath(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if strings.Count(c.Request().URL.EscapedPath(), "/") != strings.Count(c.Path(), "/") {
			return echo.ErrNotFound
		}
		return next(c)
	}
}

// pathSegment encodes a part of a path so that it is not taken for one of the
// words that have a meaning there.
func pathSegment(s string) string { return notReserved(url.PathEscape(s)) }

// notReserved takes a part that is encoded. The router compares parts as they
// were sent, so one escape more sets a table or a key apart.
func notReserved(part string) string {
	switch part {
	case "receipts", "_schema", "_bulk", "flush":
		return fmt.Sprintf("%%%02X%s", part[0], part[1:])
	}
	return part
}
