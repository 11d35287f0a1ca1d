//go:build linux

package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

func (v *verdict) problem(format string, args ...any) {
	v.Problems = append(v.Problems, fmt.Sprintf(format, args...))
}

// check compares the history with Postgres, Redis and what the APIs serve. All
// faults are healed, the clients have ended, and nothing is pending.
func (c *chaos) check(f *fault) *verdict {
	v := &verdict{Acked: c.load.ok.Load(), Unknown: c.load.unknown.Load()}
	v.Problems = append(v.Problems, c.load.problems...)
	url := c.postgres.URL()
	reported := make(map[string]int64)
	for _, name := range chaosNames {
		reported[name] = value[int64](c.T, url, `select coalesce(sum(lost), 0)::bigint from headpond.watermarks where table_name = $1`, name)
		v.Reported += reported[name]
	}
	for _, name := range []string{"chaos_append", "chaos_keyed"} {
		c.checkRows(v, name, f.loses, reported[name])
	}
	c.checkPuts(v, f.loses || f.anyOrder)
	c.checkCounters(v, f)
	c.checkLedger(v, f.loses)
	c.checkRedis(v)
	c.checkReads(v)
	if !f.loses && v.Reported != 0 {
		v.problem("Headpond reports %d rows as lost", v.Reported)
	}
	return v
}

type written struct{ client, n int64 }

// checkRows: assertions 1, 2, 3 and 6. Each acknowledged row is there once, as
// it was sent; each refused one is not; of the others it may be either; bad ones
// are dead letters.
func (c *chaos) checkRows(v *verdict, table string, loses bool, reported int64) {
	there := c.rowsOf(table)
	dead := c.deadOf(table)
	var lost, doubtful int64
	var examples []string
	sent := make(map[written]bool)
	for _, o := range c.load.history {
		if o.Table != table {
			continue
		}
		for i := range o.Count {
			w := written{int64(o.Client), o.From + int64(i)}
			sent[w] = true
			got, in := there[w]
			times := got.times
			if o.Poison {
				times, in = dead[w], dead[w] > 0
			} else if dead[w] > 0 {
				v.problem("%s: %v is a dead letter and was good", table, w)
			}
			switch outcome := o.of(i); {
			case outcome == acked && !in:
				lost++
				if len(examples) < 3 {
					examples = append(examples, fmt.Sprint(w, " ", o.Answer, " ", o.Receipt, " begun ", o.Begun))
				}
				if o.Now {
					v.problem("%s: %v was answered as committed and is not there", table, w)
				}
			case outcome == refused && in:
				v.problem("%s: %v was refused (%s) and is there", table, w, o.Answer)
			case outcome == unknown && !in:
				doubtful++
			}
			if times > 1 {
				v.Twice += times - 1
				v.problem("%s: %v is there %d times (%s)", table, w, times, o.Answer)
			}
			if in && !o.Poison && got.note != o.note(i) {
				v.problem("%s: %v is not as it was sent: %q", table, w, got.note)
			}
		}
	}
	for w := range there {
		if !sent[w] {
			v.problem("%s: %v was never sent and is there", table, w)
		}
	}
	v.Lost += lost
	if !loses && lost > 0 {
		v.problem("%s: %d acknowledged rows are lost, such as %s", table, lost, strings.Join(examples, "; "))
	}
	if loses && (lost > reported || reported > lost+doubtful) {
		v.problem("%s: Headpond reports %d rows as lost; the clients miss %d, and %d of unknown outcome", table, reported, lost, doubtful)
	}
}

type chaosStored struct {
	times int64
	note  string
}

func (c *chaos) rowsOf(table string) map[written]chaosStored {
	conn := connect(c.T, c.postgres.URL())
	rows, err := conn.Query(c.Context(), `select client, n, count(*), min(note) from `+table+` group by client, n`)
	require.NoError(c, err)
	out := make(map[written]chaosStored)
	var w written
	var s chaosStored
	_, err = pgx.ForEachRow(rows, []any{&w.client, &w.n, &s.times, &s.note}, func() error { out[w] = s; return nil })
	require.NoError(c, err)
	require.NoError(c, conn.Close(c.Context()))
	return out
}

func (c *chaos) deadOf(table string) map[written]int64 {
	conn := connect(c.T, c.postgres.URL())
	rows, err := conn.Query(c.Context(), `
		select ("row"->>'client')::bigint, ("row"->>'n')::bigint, count(*) from headpond.dead_letters where table_name = $1 group by 1, 2`, table)
	require.NoError(c, err)
	out := make(map[written]int64)
	var w written
	var times int64
	_, err = pgx.ForEachRow(rows, []any{&w.client, &w.n, &times}, func() error { out[w] = times; return nil })
	require.NoError(c, err)
	require.NoError(c, conn.Close(c.Context()))
	return out
}

// receipt is table.partition.epoch.seq.
type receipt struct {
	table      string
	partition  int
	epoch, seq int64
}

func parseReceipt(text string) (r receipt, ok bool) {
	f := strings.Split(text, ".")
	if len(f) != 4 {
		return r, false
	}
	r.table = f[0]
	var errs [3]error
	r.partition, errs[0] = strconv.Atoi(f[1])
	r.epoch, errs[1] = strconv.ParseInt(f[2], 10, 64)
	r.seq, errs[2] = strconv.ParseInt(f[3], 10, 64)
	return r, errs == [3]error{}
}

// checkPuts: assertion 4. The final row of a key is the acknowledged write with
// the highest receipt, or one of unknown outcome.
func (c *chaos) checkPuts(v *verdict, anyOf bool) {
	type last struct {
		epoch, seq int64
		w          written
		may        map[written]bool
	}
	keys := make(map[int]*last)
	for _, o := range c.load.history {
		if o.Table != "chaos_rows" || o.Outcome == refused {
			continue
		}
		k := keys[o.Key]
		if k == nil {
			k = &last{may: make(map[written]bool)}
			keys[o.Key] = k
		}
		w := written{int64(o.Client), o.From}
		if o.Outcome == unknown || anyOf {
			k.may[w] = true
			continue
		}
		r, ok := parseReceipt(o.Receipt[0])
		if !ok {
			v.problem("a put has the receipt %q", o.Receipt)
			continue
		}
		if r.epoch > k.epoch || r.epoch == k.epoch && r.seq > k.seq {
			k.epoch, k.seq, k.w = r.epoch, r.seq, w
		}
	}
	conn := connect(c.T, c.postgres.URL())
	rows, err := conn.Query(c.Context(), `select key, client, n, note from chaos_rows`)
	require.NoError(c, err)
	there := make(map[int]written)
	var key int
	var w written
	var note string
	_, err = pgx.ForEachRow(rows, []any{&key, &w.client, &w.n, &note}, func() error {
		there[key] = w
		if note != fmt.Sprintf("row %d of %d", w.n, w.client) {
			v.problem("chaos_rows: key %d holds parts of two writes: %v %q", key, w, note)
		}
		return nil
	})
	require.NoError(c, err)
	require.NoError(c, conn.Close(c.Context()))
	for key, k := range keys {
		got, in := there[key]
		if in && (got == k.w && k.seq > 0 || k.may[got]) || !in && k.seq == 0 {
			continue
		}
		v.Lost++
		v.problem("chaos_rows: key %d should hold %v (%d-%d) or %d others and holds %v (%v)", key, k.w, k.epoch, k.seq, len(k.may), got, in)
	}
}

// checkCounters: an increment counts once; the answers to those of one key are
// all different.
func (c *chaos) checkCounters(v *verdict, f *fault) {
	var sure, perhaps [chaosCounters]int64
	seen := make(map[[2]int64]bool)
	for _, o := range c.load.history {
		if o.Table != "chaos_counters" {
			continue
		}
		switch o.Outcome {
		case unknown:
			perhaps[o.Key]++
		case acked:
			sure[o.Key]++
			at := [2]int64{int64(o.Key), o.Value}
			if seen[at] && !f.loses && !f.rewinds {
				v.problem("chaos_counters: two increments of %d were answered with %d", o.Key, o.Value)
			}
			seen[at] = true
		}
	}
	for key := range chaosCounters {
		n := value[int64](c.T, c.postgres.URL(), `select coalesce(max(n), 0) from chaos_counters where key = $1`, key)
		if n < sure[key] {
			v.Lost += sure[key] - n
			if !f.loses {
				v.problem("chaos_counters: %d counts %d after %d increments", key, n, sure[key])
			}
		}
		if n > sure[key]+perhaps[key] {
			v.Twice += n - sure[key] - perhaps[key]
			v.problem("chaos_counters: %d counts %d after at most %d increments", key, n, sure[key]+perhaps[key])
		}
	}
}

// checkLedger: assertion 5. Watermarks are dense, are what Redis has accepted,
// and nothing that was acknowledged lies above them.
func (c *chaos) checkLedger(v *verdict, loses bool) {
	url := c.postgres.URL()
	for _, bad := range column[string](c.T, url, `select table_name || '.' || partition || ': ' || seq || ' is not ' || concat_ws(' + ', committed, coalesced, dead, lost)
		from headpond.watermarks where seq <> committed + coalesced + dead + lost`) {
		v.problem("watermark %s", bad)
	}
	marks := make(map[string][2]int64)
	for _, row := range column[string](c.T, url, `select concat_ws(' ', table_name || '.' || partition, epoch, seq) from headpond.watermarks`) {
		var place string
		var epoch, seq int64
		if _, err := fmt.Sscan(row, &place, &epoch, &seq); err != nil {
			v.problem("watermark %q", row)
		}
		marks[place] = [2]int64{epoch, seq}
	}
	for _, o := range c.load.history {
		for _, text := range o.Receipt {
			r, ok := parseReceipt(text)
			m := marks[fmt.Sprint(r.table, ".", r.partition)]
			if !ok || !loses && (r.epoch > m[0] || r.epoch == m[0] && r.seq > m[1]) {
				v.problem("receipt %q is above its watermark %v", text, m)
			}
		}
	}
	committed := value[int64](c.T, url, `select coalesce(sum(committed), 0)::bigint from headpond.watermarks where table_name = 'chaos_append'`)
	rows := value[int64](c.T, url, `select count(*) from chaos_append`)
	if committed != rows && !loses {
		v.problem("chaos_append: the watermarks say %d rows and there are %d", committed, rows)
	}
}

// known are the keys of Redis that may be without a time to live when nothing
// is pending.
var knownKeys = regexp.MustCompile(`^hp:\{[^}]+\}:(log|meta|commits|marks:\d+|lists)$|^hp:[a-z-]+$`)

// checkRedis: assertion 7. Nothing is dirty, no key is left over.
func (c *chaos) checkRedis(v *verdict) {
	err := c.eachRedis(func(ctx context.Context, rdb *redis.Client) error {
		for keys := rdb.Scan(ctx, 0, "*", 1000).Iterator(); keys.Next(ctx); {
			key := keys.Val()
			ttl, err := rdb.PTTL(ctx, key).Result()
			if err != nil {
				return err
			}
			if ttl == -1 && !knownKeys.MatchString(key) && !strings.HasPrefix(key, chaosFiller) {
				v.problem("Redis keeps %s for ever", key)
			}
			if !strings.HasSuffix(key, ":meta") {
				continue
			}
			m, err := rdb.HMGet(ctx, key, "seq", "wm").Result()
			if err != nil {
				return err
			}
			if seq, wm := fmt.Sprint(m[0]), fmt.Sprint(m[1]); seq != wm && seq != "0" {
				v.problem("Redis: %s has seq %s and watermark %s", key, seq, wm)
			}
		}
		return nil
	})
	require.NoError(c, err)
}

// checkReads: assertion 8. What the APIs serve is what Postgres has.
func (c *chaos) checkReads(v *verdict) {
	for _, q := range []struct{ table, sql string }{
		{"chaos_rows", `select key || ' ' || to_jsonb(t) from chaos_rows t`},
		{"chaos_counters", `select key || ' ' || to_jsonb(t) from chaos_counters t`},
		{"chaos_keyed", `select client || ',' || n || ' ' || to_jsonb(t) from chaos_keyed t order by n desc limit 40`},
	} {
		for _, row := range column[string](c.T, c.postgres.URL(), q.sql) {
			key, want, _ := strings.Cut(row, " ")
			for _, api := range *c.load.apis.Load() {
				a, err := request(http.MethodGet, api+"/v1/"+q.table+"/"+key, "", "")
				if err != nil || a.code != http.StatusOK || !equalJSON(want, string(a.body)) {
					v.problem("GET %s/%s gives %d %s (%v), and Postgres has %s", q.table, key, a.code, a.body, err, want)
				}
			}
		}
	}
}

// keep the history for later.
func (l *chaosLoad) json() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []byte
	for _, o := range l.history {
		text, _ := json.Marshal(o) // plain values always marshal
		out = append(append(out, text...), '\n')
	}
	return out
}
