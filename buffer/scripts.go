package buffer

import (
	"context"
	"crypto/sha1" //nolint:gosec // Redis names scripts by their SHA-1.
	_ "embed"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// script is one Lua file. Each file's head says its KEYS, ARGV and what it
// gives back.
type script struct{ text, sha string }

func newScript(text string) script {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // see above
	return script{text: text, sha: hex.EncodeToString(sum[:])}
}

//go:embed scripts/append.lua
var appendText string

//go:embed scripts/read.lua
var readText string

//go:embed scripts/fill.lua
var fillText string

//go:embed scripts/settle.lua
var settleText string

//go:embed scripts/claim.lua
var claimText string

//go:embed scripts/open.lua
var openText string

//go:embed scripts/hold.lua
var holdText string

//go:embed scripts/release.lua
var releaseText string

//go:embed scripts/list.lua
var listText string

//go:embed scripts/keep.lua
var keepText string

//go:embed scripts/outdate.lua
var outdateText string

//go:embed scripts/put.lua
var putText string

//go:embed scripts/join.lua
var joinText string

//go:embed scripts/lose.lua
var loseText string

//go:embed scripts/reindex.lua
var reindexText string

//go:embed scripts/reopen.lua
var reopenText string

// Read-only after start.
var (
	appendScript  = newScript(appendText)
	readScript    = newScript(readText)
	fillScript    = newScript(fillText)
	settleScript  = newScript(settleText)
	openScript    = newScript(openText)
	claimScript   = newScript(claimText)
	holdScript    = newScript(holdText)
	releaseScript = newScript(releaseText)
	outdateScript = newScript(outdateText)
	putScript     = newScript(putText)
	listScript    = newScript(listText)
	keepScript    = newScript(keepText)
	joinScript    = newScript(joinText)
	loseScript    = newScript(loseText)
	reindexScript = newScript(reindexText)
	reopenScript  = newScript(reopenText)
)

// loadScripts puts the scripts into the cache of every master. Those that read
// and write rows are loaded by the handshake alone: a Redis that was restarted or
// promoted has an empty cache and so refuses everybody (NOSCRIPT) until a
// handshake has compared it with Postgres.
func loadScripts(ctx context.Context, rdb redis.UniversalClient, scripts ...script) error {
	load := func(ctx context.Context, c *redis.Client) error {
		for _, s := range scripts {
			if err := c.ScriptLoad(ctx, s.text).Err(); err != nil {
				return fmt.Errorf("load script: %w", err)
			}
		}
		return nil
	}
	switch c := rdb.(type) {
	case *redis.ClusterClient:
		return c.ForEachMaster(ctx, load)
	case *redis.Client:
		return load(ctx, c)
	default:
		return fmt.Errorf("load script: client %T is not supported", rdb)
	}
}

// loadScriptsOn loads the scripts of readers and writers on those runs of Redis
// that partitions were compared with. Each run is asked for on the connection
// that loads them, so it cannot be another one by then.
func loadScriptsOn(ctx context.Context, rdb redis.UniversalClient, runs map[string]bool) error {
	var mu sync.Mutex
	seen := 0
	load := func(ctx context.Context, c *redis.Client) error {
		conn := c.Conn()
		defer conn.Close()
		run := ""
		if info, err := conn.Info(ctx, "server").Result(); err == nil {
			_, run, _ = strings.Cut(info, "run_id:")
			run, _, _ = strings.Cut(run, "\r")
		} else if classify(err) == unknown {
			return err
		}
		if !runs[run] {
			return nil // it has none of them
		}
		for _, s := range []script{readScript, fillScript, settleScript, holdScript, releaseScript, appendScript} {
			if err := conn.ScriptLoad(ctx, s.text).Err(); err != nil {
				return fmt.Errorf("load script: %w", err)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		seen++
		return nil
	}
	var err error
	switch c := rdb.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, load)
	case *redis.Client:
		err = load(ctx, c)
	}
	if err == nil && seen < len(runs) {
		err = errOtherEpoch
	}
	return err
}

// scriptsLoaded reports whether every master knows a script.
func scriptsLoaded(ctx context.Context, rdb redis.UniversalClient, s script) (bool, error) {
	var missing atomic.Bool // masters are asked at the same time
	ask := func(ctx context.Context, c *redis.Client) error {
		there, err := c.ScriptExists(ctx, s.sha).Result()
		if err == nil && !there[0] {
			missing.Store(true)
		}
		return err
	}
	var err error
	switch c := rdb.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, ask)
	case *redis.Client:
		err = ask(ctx, c)
	}
	return !missing.Load(), unavailable("look for scripts", err)
}
