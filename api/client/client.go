package client

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// DefaultRetryBudget outlives what Headpond itself spends on a Redis that
	// restarts, 10 s, and a rolling restart of its processes.
	DefaultRetryBudget = 30 * time.Second

	// attemptTimeout bounds one attempt, without what the server was asked to
	// wait: Headpond answers after 10 s at the latest, and a list after 30 s.
	attemptTimeout = 45 * time.Second

	dialTimeout = 10 * time.Second

	connections = 64               // idle ones that are kept; the default of net/http is 2
	idleTimeout = 90 * time.Second // below the two minutes after which Headpond closes one
)

// Client of one Headpond. Safe for concurrent use.
type Client struct {
	base   string // no slash at its end
	http   *http.Client
	own    *http.Transport // nil when the HTTP client was given
	header http.Header
	budget time.Duration
}

// Option of a Client.
type Option func(*Client)

// WithHTTPClient uses h for its transport, cookies and timeout. Its Timeout, if
// it has one, also ends requests that wait for a commit.
func WithHTTPClient(h *http.Client) Option {
	return func(c *Client) {
		own := *h
		c.http = &own
	}
}

// WithHeader sends a header with every request, for example an API key.
func WithHeader(name, value string) Option {
	return func(c *Client) { c.header.Add(name, value) }
}

// WithRetryBudget sets how long after its first failure a request may be sent
// again. 0 turns repeats off. The default is DefaultRetryBudget.
func WithRetryBudget(d time.Duration) Option {
	return func(c *Client) { c.budget = d }
}

// New makes a client of the Headpond at baseURL, which may have a path. It
// sends nothing.
func New(baseURL string, opts ...Option) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("client: read base URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("client: the base URL must be http or https with a host and no query: %s", u.Redacted())
	}
	c := &Client{base: strings.TrimRight(u.String(), "/"), header: make(http.Header), budget: DefaultRetryBudget}
	for _, o := range opts {
		o(c)
	}
	if c.budget < 0 {
		return nil, fmt.Errorf("client: the retry budget must not be negative: %s", c.budget)
	}
	if c.http == nil {
		c.own = &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, TLSHandshakeTimeout: dialTimeout,
			ForceAttemptHTTP2: true, MaxIdleConnsPerHost: connections, IdleConnTimeout: idleTimeout,
		}
		c.http = &http.Client{Transport: c.own}
	}
	// A redirected POST would become a GET, whose 200 says nothing of a write.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// Close closes idle connections, unless they belong to a client that was given.
// The Client can still be used.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}
