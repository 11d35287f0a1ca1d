package main

import (
	"net/netip"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/buffer"
)

// caps of what may wait for Postgres.
func (l *limitsConfig) caps() buffer.Caps {
	return buffer.Caps{
		Rows: l.BacklogRows, Bytes: int64(l.BacklogBytes), TotalRows: l.TotalRows, TotalBytes: int64(l.TotalBytes), Lag: l.MaxLag,
	}
}

// api is what bounds a request.
func (l *limitsConfig) api() api.Limits {
	out := api.Limits{Body: int64(l.Body), Rows: l.Rows, Wait: l.Wait, Rate: l.Rate, Burst: l.Burst}
	for _, p := range l.Proxies {
		prefix, _ := proxyPrefix(p) // checked before
		out.Proxies = append(out.Proxies, prefix)
	}
	return out
}

// proxyPrefix reads 10.0.0.0/8, or one address.
func proxyPrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Prefix(a.BitLen())
	}
	return netip.ParsePrefix(text)
}

// mostConnections is what one process can serve; a connection takes about
// 10 KB. filesKept are for Redis, Postgres and the files of the program.
const (
	mostConnections = 10_000
	filesKept       = 128
)

// connections that clients may have: by default as many as there can be open
// files, less what the process needs itself.
func (l *limitsConfig) connections() int {
	if l.Connections > 0 {
		return l.Connections
	}
	files := mostFiles()
	return min(max(files-filesKept, files/4, 1), mostConnections)
}

// check of the limits that may be zero: each wrong one is named with its value.
func (l *limitsConfig) check(bad func(string, ...any)) {
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"total_backlog_rows", l.TotalRows}, {"total_backlog_bytes", int64(l.TotalBytes)},
		{"burst", int64(l.Burst)}, {"connections", int64(l.Connections)},
	} {
		if n.value < 0 {
			bad("`limits.%s` must not be negative, not %d", n.name, n.value)
		}
	}
	if l.MaxLag < 0 {
		bad("`limits.max_lag` must not be negative (0s: no limit), not %s", l.MaxLag)
	}
	if !(l.Rate >= 0 && l.Rate <= 1e6) {
		bad("`limits.rate` must be from 0 (no limit) to 1000000 requests a second, not %g", l.Rate)
	}
	if l.Burst > 0 && l.Rate == 0 {
		bad("`limits.burst` is %d, and without `limits.rate` nothing is limited", l.Burst)
	}
	for _, p := range l.Proxies {
		if _, err := proxyPrefix(p); err != nil {
			bad("`limits.trust_proxies`: %q is not an address or range such as 10.0.0.0/8", p)
		}
	}
}
