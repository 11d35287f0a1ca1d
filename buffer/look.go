package buffer

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headpond/headpond/buffer/table"
)

// asked is a key that somebody wants to read.
type asked struct {
	Asked

	want Want
}

// lookKeys is the most keys of one script call: a row of the log costs the
// slicing of a frame of up to FrameBytes.
const lookKeys = 64

// looking is one call: keys of one partition that are wanted alike.
type looking struct {
	place  Place
	want   Want
	keys   []string
	askers [][]int // of each key, while it has no answer
	tokens []string
	cmd    *redis.Cmd // the script's

	meta *redis.SliceCmd // or, without it: the partition's,
	rows *redis.SliceCmd // and then what lies under the keys
}

// look reads keys, each once however often it is asked for, with one call for
// each partition, in one pipeline. Everybody who asks came before the call, so
// that one answer may serve them all; but a lease has one holder.
//
// Of a partition whose index was empty lately it reads the clean rows as they
// lie, which costs Redis a fifth of the script, and the script is asked for the
// rest. That is as good: first comes the look that finds the index empty and
// the epoch in force, so what lies under the key then is newer than no write
// that was answered before, and any write takes it away. After a new connection
// was made, Redis may be another run that has lost data: then only the script
// tells, which such a Redis does not know.
func (b *Buffer) look(ctx context.Context, all []asked) (found []*Found, errs []error) {
	found, errs = make([]*Found, len(all)), make([]error, len(all))
	calls := gather(all)
	pipe := b.rdb.Pipeline()
	turn := b.quiet.turn()
	for _, l := range calls {
		if !b.quiet.has(l.place) {
			b.script(ctx, pipe, l)
			continue
		}
		l.meta = pipe.HMGet(ctx, l.place.meta(), "gen", "glo", "gn", "cache", "closed")
		l.rows = pipe.MGet(ctx, l.rowKeys()...)
	}
	_, _ = pipe.Exec(ctx) // each command carries its own error
	same := b.quiet.turn() == turn
	for _, l := range calls {
		if l.cmd == nil && (!same || b.glance(l, found)) {
			b.script(ctx, pipe, l)
		}
	}
	if pipe.Len() > 0 {
		_, _ = pipe.Exec(ctx)
	}
	b.outwait(ctx, calls)
	b.mendTorn(calls)
	closed := slices.DeleteFunc(slices.Clone(calls), func(l *looking) bool { return l.cmd == nil || !l.shut() })
	if len(closed) > 0 && b.handshakeWithin(time.Now().Add(readerPatience)) == nil {
		for _, l := range closed {
			b.script(ctx, pipe, l)
		}
		_, _ = pipe.Exec(ctx)
	}
	for _, l := range calls {
		if l.cmd != nil {
			b.deal(l, found, errs, turn)
		}
	}
	return found, errs
}

// outwait asks again for keys of slots that are being moved, for a while.
func (b *Buffer) outwait(ctx context.Context, calls []*looking) {
	for end := time.Now().Add(readerPatience); time.Now().Before(end) && ctx.Err() == nil; {
		pipe, n := b.rdb.Pipeline(), 0
		for _, l := range calls {
			if l.cmd != nil && passing(l.cmd.Err()) {
				b.script(ctx, pipe, l)
				n++
			}
		}
		if n == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
		_, _ = pipe.Exec(ctx)
	}
}

// readerPatience is how long readers wait for an epoch to be opened.
const readerPatience = 2 * time.Second

// shut reports whether the script found another run of Redis, or no open epoch.
func (l *looking) shut() bool {
	got, err := l.cmd.Slice()
	return err != nil && classify(err) == noScript || len(got) == 1 && answer(got, 0) == "U" || l.torn() != ""
}

// torn is the epoch in which the script found rows missing from the log.
func (l *looking) torn() string {
	if got, _ := l.cmd.Slice(); len(got) == 2 && answer(got, 0) == "T" {
		return answer(got, 1)
	}
	return ""
}

func (b *Buffer) mendTorn(calls []*looking) {
	for _, l := range calls {
		if l.cmd == nil || l.torn() == "" {
			continue
		}
		if err := b.mend(l.place, l.torn()); err != nil {
			b.log.Error("the log lacks rows that are not committed", "partition", l.place.String(), "error", err)
		}
	}
}

// script asks for the keys of a call that have no answer.
func (b *Buffer) script(ctx context.Context, pipe redis.Pipeliner, l *looking) {
	l.tokens = make([]string, len(l.keys))
	for i := range l.keys {
		if l.want.Lease {
			l.tokens[i] = b.token()
		}
	}
	l.cmd = pipe.EvalSha(ctx, readScript.sha, l.scriptKeys(), l.args(b.cfg.LeaseTime)...)
}

// glance gives the clean rows that will do without a script, and reports whether
// keys are left.
func (b *Buffer) glance(l *looking, found []*Found) (left bool) {
	m, err := l.meta.Result()
	values, err2 := l.rows.Result()
	if err != nil || err2 != nil || len(values) != len(l.keys) {
		return true // the script says why
	}
	if empty := m[4] == nil && (m[0] == nil || m[0] == m[1]) && (m[2] == nil || m[2] == "0"); !empty {
		b.quiet.remove(l.place)
		return true
	}
	epoch, _ := m[3].(string)
	now := time.Now()
	n := 0
	for i, v := range values {
		value, _ := v.(string)
		f := l.served(value, epoch, now)
		if f == nil {
			l.keys[n], l.askers[n] = l.keys[i], l.askers[i]
			n++
			continue
		}
		for _, asker := range l.askers[i] {
			found[asker] = f
		}
		b.counters.Hits.Add(int64(len(l.askers[i])))
	}
	l.keys, l.askers = l.keys[:n], l.askers[:n]
	return n > 0
}

// served gives the answer that a value is, as read.lua would; nil when the
// script must see to it.
func (l *looking) served(value, epoch string, now time.Time) *Found {
	if value == "" || value[0] != 'C' && (value[0] != 'N' || !l.want.Negative) {
		return nil
	}
	f, err := clean(value, now)
	if err != nil || epochOf(f.Lease) != epoch || f.TTL <= max(l.want.Ahead, 0) {
		return nil
	}
	if value[0] == 'N' {
		f.Source = Absent
	}
	return f
}

// gather makes the calls.
func gather(all []asked) []*looking {
	calls := make([]*looking, 0, 8)
next:
	for i, a := range all {
		for _, l := range calls {
			if l.want != a.want || l.place != a.Place {
				continue
			}
			for n, key := range l.keys {
				if key == a.Key {
					l.askers[n] = append(l.askers[n], i)
					continue next
				}
			}
			if len(l.keys) < lookKeys {
				l.ask(a.Key, i)
				continue next
			}
		}
		l := &looking{place: a.Place, want: a.want}
		l.ask(a.Key, i)
		calls = append(calls, l)
	}
	return calls
}

func (l *looking) ask(key string, asker int) {
	l.keys, l.askers = append(l.keys, key), append(l.askers, []int{asker})
}

// token is one that nobody else has.
func (b *Buffer) token() string { return b.leases + strconv.FormatUint(b.leaseNo.Add(1), 36) }

func (l *looking) scriptKeys() []string { return []string{l.place.log(), l.place.meta()} }

func (l *looking) rowKeys() []string {
	names := make([]string, len(l.keys))
	prefix := l.place.prefix() + "row:"
	for i, key := range l.keys {
		names[i] = prefix + key
	}
	return names
}

func (l *looking) args(lease time.Duration) []any {
	letters := ""
	if l.want.Negative {
		letters = "n"
	}
	if l.want.Take {
		letters += "t"
	}
	args := make([]any, 0, 6+2*len(l.keys))
	args = append(args, l.place.prefix(), time.Now().UnixMilli(), lease.Milliseconds(), l.want.Stale.Milliseconds(), l.want.Ahead.Milliseconds(), letters)
	for i, key := range l.keys {
		args = append(args, key, l.tokens[i])
	}
	return args
}

// deal gives what a call found to those who asked.
func (b *Buffer) deal(l *looking, found []*Found, errs []error, turn uint64) {
	got, failed := l.cmd.Slice()
	if failed == nil && l.shut() {
		failed = errNotOpen
	}
	if failed != nil {
		failed = unavailable("read keys partition="+l.place.String(), failed)
	}
	now := time.Now()
	for n, askers := range l.askers {
		var f *Found
		err := failed
		if err == nil {
			if f, got, err = l.parse(got, l.tokens[n], now); err != nil {
				err = fmt.Errorf("read key partition=%s: %w", l.place, err)
			}
			if got == nil { // where the next one begins is not known
				failed = err
			}
		}
		for i, asker := range askers {
			if errs[asker] = err; err != nil {
				continue
			}
			if found[asker] = f; i == 0 {
				switch { // the others
				case f.Source == Miss && f.Lease != "":
					f = &Found{Held: true}
				case f.Again:
					other := *f
					other.Again, f = false, &other
				}
			}
			if f.Source == Miss {
				b.counters.Misses.Add(1)
			} else {
				b.counters.Hits.Add(1)
			}
		}
	}
	if answer(got, 0) == "1" {
		b.quiet.add(l.place, turn)
	}
}

// parse reads the answer for one key, and gives what follows it.
func (l *looking) parse(got []any, token string, now time.Time) (f *Found, rest []any, err error) {
	switch answer(got, 0) {
	case "D":
		if len(got) < 7 {
			return nil, nil, table.ErrCorruptFrame
		}
		f, err = dirty(got)
		return f, got[7:], err
	case "C":
		if len(got) < 3 {
			return nil, nil, table.ErrCorruptFrame
		}
		f, err = clean(answer(got, 1), now)
		if err == nil {
			f.Again = answer(got, 2) == "1"
		}
		return f, got[3:], err
	case "N":
		if len(got) < 2 {
			return nil, nil, table.ErrCorruptFrame
		}
		f, err = clean(answer(got, 1), now)
		if err == nil {
			f.Source = Absent
		}
		return f, got[2:], err
	case "L":
		if len(got) < 2 {
			return nil, nil, table.ErrCorruptFrame
		}
		return &Found{Lease: token + "." + answer(got, 1)}, got[2:], nil
	case "H":
		return &Found{Held: true}, got[1:], nil
	case "W":
		return &Found{Written: true}, got[1:], nil
	case "M":
		return &Found{}, got[1:], nil
	default:
		return nil, nil, table.ErrCorruptFrame
	}
}

// dirty is a row of the log.
func dirty(got []any) (*Found, error) {
	id, err := table.ParseID(answer(got, 1))
	head, line := answer(got, 5), answer(got, 6)
	wm, err2 := strconv.ParseUint(answer(got, 2), 10, 64)
	base, err3 := strconv.ParseInt(answer(got, 4), 10, 64)
	if err != nil || err2 != nil || err3 != nil || len(head) != 8 || line == "" {
		return nil, table.ErrCorruptFrame
	}
	op := table.Op(head[0])
	if op.Changes() { // readers want the row alone
		line = line[:strings.LastIndexByte(line, '\t')+1]
		line = line[:max(len(line)-1, 0)] + "\n"
	}
	late := int64(binary.LittleEndian.Uint16([]byte(head)[2:])) * 1000
	return &Found{
		Source: Dirty, ID: id, Committed: id.Seq <= wm, Op: op,
		Accepted: time.UnixMicro(base + late),
		Columns:  []byte(answer(got, 3)), Line: []byte(line),
	}, nil
}

// placeSet is some places, all of which may be forgotten at once. Safe for
// concurrent use.
type placeSet struct {
	mu    sync.Mutex
	turns uint64 // how often all were forgotten
	in    map[Place]bool
}

func (s *placeSet) has(p Place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in[p]
}

func (s *placeSet) turn() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turns
}

// add a place, unless all were forgotten since a turn.
func (s *placeSet) add(p Place, turn uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in == nil {
		s.in = make(map[Place]bool)
	}
	if s.turns == turn {
		s.in[p] = true
	}
}

func (s *placeSet) remove(p Place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.in, p)
}

func (s *placeSet) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turns++
	clear(s.in)
}
