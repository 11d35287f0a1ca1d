package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWrongTimes: each message says where the time stands, what it is and what would
// be right, and says it once.
func TestWrongTimes(t *testing.T) {
	t.Parallel()
	const unit = "must be a time with its unit, such as 500ms, 10s or 24h, not "
	for text, says := range map[string]string{
		"tables:\n  orders:\n    ttl: abc":                          "line 3: `tables.orders.ttl` " + unit + `"abc"`,
		"tables:\n  audit.orders: { ttl: 1d }":                      "line 2: `tables.audit.orders.ttl` " + unit + `"1d"`,
		"tables:\n  orders:\n    cache: rows\n    ttl: \"\"":        "line 4: `tables.orders.ttl` " + unit + `""`,
		"tables_default: { ttl: 0 }":                                "line 1: `tables_default.ttl` " + unit + "0",
		"tables_default:\n  linger: 10":                             "line 2: `tables_default.linger` " + unit + "10",
		"limits: { wait: 1.5 }":                                     "line 1: `limits.wait` " + unit + "1.5",
		"tables_default: &all\n  retain: true":                      "line 2: `tables_default.retain` " + unit + "true",
		"tables: { orders: { ttl: -1s } }":                          "`tables.orders.ttl` must be from 1ms to 720h, not -1s: `cache: none` keeps a table out of the cache",
		"tables: { orders: { ttl: 0s } }":                           "`tables.orders.ttl` must be from 1ms to 720h, not 0s: `cache: none` keeps a table out of the cache",
		"tables: { orders: { ttl: 1ns } }":                          "`tables.orders.ttl` must be from 1ms to 720h, not 1ns: `cache: none` keeps a table out of the cache",
		"tables: { orders: { ttl: 721h } }":                         "`tables.orders.ttl` must be from 1ms to 720h, not 721h0m0s",
		"tables: { orders: { list_ttl: 721h } }":                    "`tables.orders.list_ttl` must be from 0s to 720h, not 721h0m0s",
		"tables: { orders: { linger: -1s } }":                       "`tables.orders.linger` must be from 0s to 720h, not -1s",
		"flusher:\n  drain: soon\nlimits:\n  max_lag: 5":            "line 2: `flusher.drain` " + unit + "\"soon\"\nline 4: `limits.max_lag` " + unit + "5",
		"tables: { orders: { on_external_change: database-wins } }": "`tables.orders.on_external_change: database-wins` needs `watch: notify` and `cache: rows`",
		"tables_default: { watch: notify, on_external_change: database-wins }\ntables: { events: { cache: none } }": "`tables.events.on_external_change: database-wins` needs `watch: notify` and `cache: rows`",
	} {
		file := filepath.Join(t.TempDir(), "headpond.yaml")
		require.NoError(t, os.WriteFile(file, []byte(text+"\n"), 0o600))
		_, err := readConfig(file)
		require.Error(t, err, text)
		first, rest, _ := strings.Cut(err.Error(), "\n")
		require.Equal(t, "read config file="+file+":", first)
		require.True(t, strings.HasPrefix(rest, says), "%s\nsays: %s", text, rest)
		require.Equal(t, strings.Count(says, "\n"), strings.Count(rest, "\n"), "%s\nsays: %s", text, rest)
	}
}

// TestTimes are those that are right, as they may be written.
func TestTimes(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"tables: { orders: { ttl: 1ms, list_ttl: 0s, retain: \"1h30m\", linger: } }", "tables_default: { ttl: 720h }",
		"tables:\n  orders: &o { ttl: &t 10s }\n  events: { ttl: *t }\n  more: *o\n  last: { <<: *o, linger: 1ms }",
		"tables_default: { watch: notify }\ntables: { orders: { on_external_change: database-wins }, events: { cache: none } }",
	} {
		file := filepath.Join(t.TempDir(), "headpond.yaml")
		require.NoError(t, os.WriteFile(file, []byte(text+"\n"), 0o600))
		_, err := readConfig(file)
		require.NoError(t, err, text)
	}
}
