package buffer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisFacts is what one Redis server says of itself.
type redisFacts struct {
	server    string            // its address, when it is one of several
	database  string            // as INFO calls the one that we use: db0
	clustered bool              // the client knows that it is a cluster
	config    map[string]string // nil when it does not tell
	info      map[string]string // nil when it does not tell
	ahead     time.Duration     // its clock before ours
	foreign   int               // of the keys looked at, those that are not Headpond's
}

// settings that are read, of `CONFIG GET`. The last is called
// busy-reply-threshold since Redis 7.0, which knows the old name too.
var configRead = []string{
	"appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy", "save", "stop-writes-on-bgsave-error",
	"min-replicas-to-write", "min-replicas-max-lag", "maxclients", "lua-time-limit",
}

// redisFacts asks every master.
func (b *Buffer) redisFacts(ctx context.Context) ([]*redisFacts, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.CallTimeout)
	defer cancel()
	var all []*redisFacts
	_, clustered := b.rdb.(*redis.ClusterClient)
	err := b.eachNode(ctx, func(ctx context.Context, c redis.Cmdable) error {
		f := &redisFacts{clustered: clustered}
		if one, ok := c.(*redis.Client); ok {
			f.database = "db" + strconv.Itoa(one.Options().DB)
			if clustered {
				f.server = one.Options().Addr
			}
		}
		all = append(all, f)
		return f.read(ctx, c)
	})
	return all, unavailable("read Redis configuration", err)
}

func (f *redisFacts) read(ctx context.Context, c redis.Cmdable) error {
	if err := c.Ping(ctx).Err(); err != nil {
		return err
	}
	began := time.Now()
	clock, err := c.Time(ctx).Result()
	if f.ahead = clock.Sub(began.Add(time.Since(began) / 2)); err != nil {
		if !denied(err) {
			return err
		}
		f.ahead = 0
	}
	config := make(map[string]string)
	for _, name := range configRead {
		m, err := c.ConfigGet(ctx, name).Result()
		if err != nil {
			if !denied(err) {
				return err
			}
			config = nil
			break
		}
		config[name] = m[name]
	}
	f.config = config
	if text, err := c.Info(ctx).Result(); err == nil {
		f.info = parseInfo(text)
	} else if !denied(err) {
		return err
	}
	if f.info["cluster_enabled"] == "1" {
		text, _ := c.ClusterInfo(ctx).Result() // its absence shows
		for name, value := range parseInfo(text) {
			f.info[name] = value
		}
	}
	names, _, err := c.Scan(ctx, 0, "", walkStep).Result()
	if err != nil && !denied(err) {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "hp:") {
			f.foreign++
		}
	}
	return nil
}

// denied: the server answers, and does not tell. Managed ones rename CONFIG away.
func denied(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && (strings.HasPrefix(reply.Error(), "NOPERM") || strings.HasPrefix(reply.Error(), "ERR unknown command"))
}

func parseInfo(text string) map[string]string {
	out := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			out[name] = value
		}
	}
	return out
}

func numberIn(m map[string]string, name string) int64 {
	n, _ := strconv.ParseInt(m[name], 10, 64)
	return n
}

// bytesText is a number of bytes for people.
func bytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
