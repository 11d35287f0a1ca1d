package api

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/time/rate"
)

// rateLimit bounds the requests of each client to /v1, by a token bucket. What it
// remembers is bounded too: clients lie in two generations, and the older goes
// when the newer is full. A client that went with it begins anew, which errs to
// its good. Safe for concurrent use.
type rateLimit struct {
	rate    rate.Limit
	burst   int
	refused atomic.Int64

	mu       sync.Mutex // guards the rest
	young    map[netip.Addr]*rate.Limiter
	old      map[netip.Addr]*rate.Limiter
	mostKept int
}

// mostClients of a generation: a bucket takes about 150 bytes.
const mostClients = 20_000

func newRateLimit(perSecond float64, burst int) *rateLimit {
	if burst == 0 {
		burst = int(math.Ceil(2 * perSecond))
	}
	return &rateLimit{rate: rate.Limit(perSecond), burst: max(burst, 1), young: make(map[netip.Addr]*rate.Limiter), mostKept: mostClients}
}

// wait is 0 when the client may go on, and else the time until it may.
func (l *rateLimit) wait(client string, now time.Time) time.Duration {
	r := l.of(clientKey(client)).ReserveN(now, 1)
	d := r.DelayFrom(now)
	if d > 0 {
		r.CancelAt(now)
	}
	return d
}

// clientKey: who has an IPv6 address has the 2^64 that share its first half.
func clientKey(ip string) netip.Addr {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return netip.Addr{} // all that have none share a bucket
	}
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr()
	}
	return a
}

func (l *rateLimit) of(client netip.Addr) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.young[client]; b != nil {
		return b
	}
	b := l.old[client]
	if b == nil {
		b = rate.NewLimiter(l.rate, l.burst)
	}
	if len(l.young) >= l.mostKept {
		l.old, l.young = l.young, make(map[netip.Addr]*rate.Limiter)
	}
	l.young[client] = b
	return b
}

// limitRate answers 429 to a client that is too fast. Health, metrics and the
// status are not limited: they are most wanted when a client is.
func (s *Server) limitRate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if path := c.Request().URL.Path; path != "/v1" && !strings.HasPrefix(path, "/v1/") {
			return next(c)
		}
		if d := s.rate.wait(c.RealIP(), time.Now()); d > 0 {
			s.rate.refused.Add(1)
			return fault(codeRateLimited, "This client may send %g requests a second, and %d at once. Nothing was applied.", s.limits.Rate, s.rate.burst).
				hint("Send many rows in one request: an array, NDJSON or CSV.").
				header("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
		}
		return next(c)
	}
}

// RateLimited is how many requests were refused because their client was too fast.
func (s *Server) RateLimited() int64 {
	if s.rate == nil {
		return 0
	}
	return s.rate.refused.Load()
}

// clientIP tells the address of a client: that of its connection, unless that is
// a trusted proxy's; then the last one in X-Forwarded-For that is not.
func clientIP(proxies []netip.Prefix) echo.IPExtractor {
	if len(proxies) == 0 {
		return echo.ExtractIPDirect() // Echo's default trusts any client's X-Forwarded-For
	}
	trust := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, p := range proxies {
		trust = append(trust, echo.TrustIPRange(ipNet(p)))
	}
	return echo.ExtractIPFromXFFHeader(trust...)
}
