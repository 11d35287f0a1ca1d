package buffer

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Pause of a table: it takes writes, and is not flushed.
type Pause struct {
	Since time.Time `json:"since"`
	By    string    `json:"by,omitempty"`
}

// Pause keeps all flushers from beginning a batch of a table, until Resume. A
// table that is paused already stays so, since then. It is kept as the log is.
func (b *Buffer) Pause(ctx context.Context, table string, p Pause) error {
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("pause table=%s: %w", table, err)
	}
	return unavailable("pause table="+table, b.rdb.HSetNX(ctx, keyPaused, table, text).Err())
}

// Resume ends a Pause, if there is one.
func (b *Buffer) Resume(ctx context.Context, table string) error {
	return unavailable("resume table="+table, b.rdb.HDel(ctx, keyPaused, table).Err())
}

// Paused reports whether a table is paused.
func (b *Buffer) Paused(ctx context.Context, table string) (bool, error) {
	is, err := b.rdb.HExists(ctx, keyPaused, table).Result()
	return is, unavailable("look for a pause table="+table, err)
}

// Pauses are those of all tables.
func (b *Buffer) Pauses(ctx context.Context) (map[string]Pause, error) {
	all, err := b.rdb.HGetAll(ctx, keyPaused).Result()
	if err != nil {
		return nil, unavailable("list pauses", err)
	}
	out := make(map[string]Pause, len(all))
	for name, text := range all {
		var p Pause
		_ = json.Unmarshal([]byte(text), &p) // made by hand it counts all the same
		out[name] = p
	}
	return out, nil
}
