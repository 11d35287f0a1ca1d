package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/buffer"
)

func limitsOf(t *testing.T, text string) (*limitsConfig, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "headpond.yaml")
	require.NoError(t, os.WriteFile(file, []byte("limits: {"+text+"}\n"), 0o600))
	c, err := readConfig(file)
	if err != nil {
		return nil, err
	}
	return &c.Limits, nil
}

// TestLimitsAreRead: each limit gets where it belongs.
func TestLimitsAreRead(t *testing.T) {
	t.Parallel()
	l, err := limitsOf(t, `backlog_rows: 10, backlog_bytes: 1MiB, total_backlog_rows: 20, total_backlog_bytes: 2MiB, max_lag: 5m,
		rate: 0.5, burst: 3, trust_proxies: [10.0.0.0/8, 192.0.2.1, "2001:db8::/32"], connections: 7`)
	require.NoError(t, err)
	require.Equal(t, buffer.Caps{Rows: 10, Bytes: 1 << 20, TotalRows: 20, TotalBytes: 2 << 20, Lag: 5 * time.Minute}, l.caps())
	require.Equal(t, api.Limits{Body: 8 << 20, Rows: 50_000, Wait: time.Minute, Rate: 0.5, Burst: 3, Proxies: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/32"),
	}}, l.api())
	require.Equal(t, 7, l.connections())
	l.Connections = 0
	require.Positive(t, l.connections())
	require.LessOrEqual(t, l.connections(), mostConnections)
}

// TestWrongLimits: each is named, with its value, and all at once.
func TestWrongLimits(t *testing.T) {
	t.Parallel()
	_, err := limitsOf(t, `total_backlog_rows: -1, max_lag: -5m, rate: -2, burst: 4, trust_proxies: [everyone], connections: -3`)
	for _, words := range []string{
		"`limits.total_backlog_rows` must not be negative, not -1", "`limits.max_lag` must not be negative (0s: no limit), not -5m0s", "not -2",
		"`limits.trust_proxies`: \"everyone\" is not an address", "`limits.connections` must not be negative, not -3",
	} {
		require.ErrorContains(t, err, words)
	}
	_, err = limitsOf(t, `burst: 4`)
	require.ErrorContains(t, err, "`limits.burst` is 4, and without `limits.rate` nothing is limited")
	_, err = limitsOf(t, `rate: .nan`)
	require.ErrorContains(t, err, "`limits.rate`")
}
