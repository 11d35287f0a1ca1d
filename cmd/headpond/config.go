package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// config is headpond.yaml. Flags win over the environment, which wins over the
// file.
type config struct {
	Expose   []string               `yaml:"expose"`         // tables that are served: public.*, audit.orders
	Tables   map[string]tableConfig `yaml:"tables"`         // served too, each with its own settings
	Defaults tableConfig            `yaml:"tables_default"` // for all tables, unless tables says otherwise
	Limits   limitsConfig           `yaml:"limits"`
	Flusher  flusherConfig          `yaml:"flusher"`

	Dashboard dashboardConfig `yaml:"dashboard"`
}

// tableConfig is how one table is served. What is left out comes from
// tables_default, and then from defaultTable.
type tableConfig struct {
	Strategy    string         `yaml:"strategy"`
	TTL         *time.Duration `yaml:"ttl"`
	ListTTL     *time.Duration `yaml:"list_ttl"`
	NegativeTTL *time.Duration `yaml:"negative_ttl"`
	Refresh     *time.Duration `yaml:"refresh_ahead"`
	Stale       *time.Duration `yaml:"stale_while_revalidate"`
	Watch       string         `yaml:"watch"`
	OnExternal  string         `yaml:"on_external_change"`
	Partitions  int            `yaml:"partitions"`
	Linger      time.Duration  `yaml:"linger"`
	TargetLag   time.Duration  `yaml:"target_lag"`
	Retain      time.Duration  `yaml:"retain"`
	RetainBytes size           `yaml:"retain_bytes"`
	Cache       string         `yaml:"cache"`
	OnConflict  string         `yaml:"on_conflict"`
	PoisonLimit int            `yaml:"poison_limit"`
}

type limitsConfig struct {
	Body         size          `yaml:"body"`
	Rows         int           `yaml:"rows"`
	Wait         time.Duration `yaml:"wait"`
	BacklogRows  int64         `yaml:"backlog_rows"`
	BacklogBytes size          `yaml:"backlog_bytes"`
	Memory       size          `yaml:"memory"`
	TotalRows    int64         `yaml:"total_backlog_rows"`
	TotalBytes   size          `yaml:"total_backlog_bytes"`
	MaxLag       time.Duration `yaml:"max_lag"`
	Rate         float64       `yaml:"rate"`
	Burst        int           `yaml:"burst"`
	Proxies      []string      `yaml:"trust_proxies"`
	Connections  int           `yaml:"connections"`
}

type flusherConfig struct {
	Workers int           `yaml:"workers"`
	Drain   time.Duration `yaml:"drain"`
}

type dashboardConfig struct {
	ReadOnly bool `yaml:"read_only"`
}

// defaultTable: eight partitions let four workers share one table's backlog
// with room to spare; 50 ms of linger make batches of 750 rows at 15,000 rows
// a second, which a COPY carries at a few microseconds a row.
var defaultTable = tableConfig{
	Strategy: "write-behind", Partitions: 8,
	TTL: span(10 * time.Minute), ListTTL: span(5 * time.Second), NegativeTTL: span(5 * time.Second),
	Refresh: span(0), Stale: span(0), Watch: "none", OnExternal: "buffer-wins",
	Linger: 50 * time.Millisecond, TargetLag: 500 * time.Millisecond,
	Retain: 10 * time.Minute, RetainBytes: 64 << 20, Cache: "rows", OnConflict: "dead-letter",
	PoisonLimit: 100,
}

// defaultLimits: a backlog of 10 million rows of 255 bytes is 2.5 GB of Redis. A
// process keeps what it accepted until it is committed: 512 MiB is 2.5 million
// rows of 200 bytes, two minutes of 20,000 a second.
var defaultLimits = limitsConfig{
	Body: 8 << 20, Rows: 50_000, Wait: time.Minute, BacklogRows: 10_000_000, BacklogBytes: 4 << 30, Memory: 512 << 20,
}

func defaultConfig() *config {
	return &config{Expose: []string{"public.*"}, Limits: defaultLimits}
}

// readConfig reads a file; an empty path gives the defaults. All that is wrong
// is reported at once.
func readConfig(file string) (*config, error) {
	c := defaultConfig()
	if file == "" {
		return c, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	err = errors.Join(wrongTimes(text)...)
	if err == nil {
		err = yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(c)
	}
	if err == nil || len(bytes.TrimSpace(text)) == 0 {
		err = c.validate()
	}
	if err != nil {
		return nil, fmt.Errorf("read config file=%s:\n%w", file, err)
	}
	return c, nil
}

func (c *config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, name := range append([]string{""}, slices.Sorted(maps.Keys(c.Tables))...) {
		where, t := "tables."+name, c.Tables[name]
		if name == "" {
			where, t = "tables_default", c.Defaults
		}
		t.check(where, bad)
		all := c.table(name)
		if all.OnExternal == databaseWins && (all.Watch != "notify" || all.Cache == "none") {
			bad("`%s.on_external_change: database-wins` needs `watch: notify` and `cache: rows`: without them a change of somebody else is overwritten", where)
		}
		if *all.Refresh > 0 && *all.Refresh >= *all.TTL {
			bad("`%s.refresh_ahead` must be shorter than ttl (%s), not %s: every read would load its row again", where, *all.TTL, *all.Refresh)
		}
	}
	for _, p := range c.Expose {
		if _, err := path.Match(p, "x"); err != nil || p == "" {
			bad("`expose`: %q is not a pattern such as public.* or audit.orders", p)
		}
	}
	l := c.Limits
	if l.Body <= 0 || l.Rows <= 0 || l.Wait < 0 || l.BacklogRows <= 0 || l.BacklogBytes <= 0 {
		bad("`limits`: body, rows, backlog_rows and backlog_bytes must be above zero, wait not below")
	}
	l.check(bad)
	if c.Flusher.Workers < 0 || c.Flusher.Workers > 64 {
		bad("`flusher.workers` must be from 1 to 64 (0: the default), not %d", c.Flusher.Workers)
	}
	if c.Flusher.Drain < 0 {
		bad("`flusher.drain` must not be negative")
	}
	return errors.Join(errs...)
}

func (t tableConfig) check(where string, bad func(string, ...any)) {
	for _, w := range []struct {
		name, value string
		may         []string
	}{
		{"strategy", t.Strategy, []string{"write-behind", "write-through", "cache-aside"}},
		{"cache", t.Cache, []string{"rows", "none"}},
		{"watch", t.Watch, []string{"none", "notify"}},
		{"on_external_change", t.OnExternal, []string{"buffer-wins", "database-wins"}},
		{"on_conflict", t.OnConflict, []string{"dead-letter"}},
	} {
		if w.value != "" && !slices.Contains(w.may, w.value) {
			bad("`%s.%s` must be %s, not %q", where, w.name, strings.Join(w.may, " or "), w.value)
		}
	}
	if t.Partitions < 0 || t.Partitions > 1024 {
		bad("`%s.partitions` must be from 1 to 1024, not %d", where, t.Partitions)
	}
	const most = 30 * 24 * time.Hour
	if t.TTL != nil && (*t.TTL < time.Millisecond || *t.TTL > most) {
		bad("`%s.ttl` must be from 1ms to 720h, not %s: `cache: none` keeps a table out of the cache", where, *t.TTL)
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
	}{
		{"list_ttl", t.ListTTL}, {"negative_ttl", t.NegativeTTL}, {"refresh_ahead", t.Refresh}, {"stale_while_revalidate", t.Stale},
		{"linger", &t.Linger}, {"target_lag", &t.TargetLag}, {"retain", &t.Retain},
	} {
		if d.value != nil && (*d.value < 0 || *d.value > most) {
			bad("`%s.%s` must be from 0s to 720h, not %s", where, d.name, *d.value)
		}
	}
	if t.PoisonLimit < 0 {
		bad("`%s.poison_limit` must be above zero (rows in a minute), not %d", where, t.PoisonLimit)
	}
	if t.RetainBytes < 0 {
		bad("`%s.retain_bytes` must not be negative", where)
	}
}

// table gives the settings of one table.
func (c *config) table(name string) tableConfig {
	t := defaultTable
	for _, over := range []tableConfig{c.Defaults, c.Tables[name]} {
		t.Strategy = or(over.Strategy, t.Strategy)
		t.TTL = or(over.TTL, t.TTL)
		t.ListTTL = or(over.ListTTL, t.ListTTL)
		t.NegativeTTL = or(over.NegativeTTL, t.NegativeTTL)
		t.Refresh = or(over.Refresh, t.Refresh)
		t.Stale = or(over.Stale, t.Stale)
		t.Watch = or(over.Watch, t.Watch)
		t.OnExternal = or(over.OnExternal, t.OnExternal)
		t.Partitions = or(over.Partitions, t.Partitions)
		t.Linger = or(over.Linger, t.Linger)
		t.TargetLag = or(over.TargetLag, t.TargetLag)
		t.Retain = or(over.Retain, t.Retain)
		t.RetainBytes = or(over.RetainBytes, t.RetainBytes)
		t.Cache = or(over.Cache, t.Cache)
		t.OnConflict = or(over.OnConflict, t.OnConflict)
		t.PoisonLimit = or(over.PoisonLimit, t.PoisonLimit)
	}
	return t
}

// span of time that may be 0 on purpose.
func span(d time.Duration) *time.Duration { return &d }

func or[T comparable](a, b T) T {
	var zero T
	if a != zero {
		return a
	}
	return b
}

// size is a number of bytes: 8MiB, 64kB or a plain number.
type size int64

var units = []struct {
	name  string
	bytes int64
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1}, {"", 1},
}

// UnmarshalYAML reads a size.
func (s *size) UnmarshalYAML(text []byte) error {
	v := strings.Trim(strings.TrimSpace(string(text)), `"'`)
	for _, u := range units {
		number, ok := strings.CutSuffix(v, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || n < 0 || n*float64(u.bytes) > 1<<50 {
			break
		}
		*s = size(n * float64(u.bytes))
		return nil
	}
	return fmt.Errorf("%q is not a size such as 8MiB", v)
}
