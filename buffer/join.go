package buffer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/headpond/headpond/buffer/table"
)

// state of a place, as its meta has it.
type state struct {
	place   Place
	epoch   uint64 // 0: it has none
	closed  bool
	why     string // closed
	kept    table.ID
	seq     uint64
	wm      uint64
	reindex bool
}

// states of places, in one pipeline.
func (b *Buffer) states(ctx context.Context, places []Place) ([]state, error) {
	pipe := b.rdb.Pipeline()
	cmds := make([]*redis.SliceCmd, len(places))
	for i, p := range places {
		cmds[i] = pipe.HMGet(ctx, p.meta(), "epoch", "closed", "kept", "seq", "wm", "reindex")
	}
	if len(places) == 0 {
		return nil, nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, unavailable("look at epochs", err)
	}
	out := make([]state, len(places))
	for i, c := range cmds {
		text := func(j int) string { s, _ := c.Val()[j].(string); return s }
		n := func(j int) uint64 { x, _ := strconv.ParseUint(text(j), 10, 64); return x }
		s := state{place: places[i], epoch: n(0), closed: text(1) != "", why: text(1), seq: n(3), wm: n(4), reindex: text(5) != ""}
		if s.closed {
			var err error
			if s.kept, err = table.ParseID(text(2)); err != nil {
				return nil, fmt.Errorf("look at epoch partition=%s: %w", places[i], err)
			}
		}
		out[i] = s
	}
	return out, nil
}

func (s *state) joinKeys() []string {
	return []string{s.place.meta(), s.place.joined(), s.place.returned(), s.place.moved()}
}

// returnBytes is about how much of what is given back one call carries.
const returnBytes = 1 << 20

// join gives back to a closed epoch what this process holds, once.
func (b *Buffer) join(ctx context.Context, s state) error {
	if there, err := b.rdb.HExists(ctx, s.place.joined(), b.cfg.Process).Result(); err != nil {
		return unavailable("join partition="+s.place.String(), err)
	} else if there {
		return nil
	}
	// Where it gave rows back to an epoch before, it may know their new ids now.
	if err := b.catchUp(ctx, s); err != nil {
		return err
	}
	if s.why == "behind" || s.why == "emptied" {
		b.forget(s.place, s.epoch)
	}
	// No answer may be on its way, or a row that was just accepted would be missing.
	b.flight.Lock()
	units, recent, high := b.memory.take(s.place, s.kept, s.epoch)
	b.flight.Unlock()
	if s.why != "restart" && s.why != "rewind" || len(units) > 0 {
		if err := b.remark(ctx, s.place, recent); err != nil {
			return err
		}
	}
	if err := b.giveBack(ctx, s, b.cfg.Process, units, high); err != nil {
		return err
	}
	b.memory.join(s.place, s.epoch, s.kept)
	if len(units) > 0 {
		rows := 0
		for _, u := range units {
			rows += u.Rows
		}
		b.counters.Returned.Add(int64(rows))
		b.log.Warn("gave rows back that Redis had lost", "partition", s.place.String(), "epoch", s.epoch, "rows", rows)
	}
	return nil
}

func (b *Buffer) catchUp(ctx context.Context, s state) error {
	was := b.memory.joined(s.place)
	if was == 0 {
		return nil
	}
	after := was
	if b.memory.unsure(s.place) {
		after--
	}
	recorded, err := b.wms.Recorded(ctx, s.place, after)
	if err != nil {
		return fmt.Errorf("ask what became of rows: %w", err)
	}
	recorded = slices.DeleteFunc(recorded, func(r Recovery) bool { return r.Epoch >= s.epoch })
	b.takeOver(s.place, recorded)
	return nil
}

// giveBack hands units to a closed epoch; with the last of them the process has
// joined, when one is named.
func (b *Buffer) giveBack(ctx context.Context, s state, process string, units []*unit, high table.ID) error {
	top := ""
	if high != (table.ID{}) {
		top = high.String()
	}
	for {
		size, n := int64(0), 0
		args := []any{s.epoch, "", top, "0"}
		for n < len(units) && size < returnBytes {
			text, err := units[n].encode()
			if err != nil {
				return err
			}
			args = append(args, units[n].name(), text)
			size += int64(len(text))
			n++
		}
		if units = units[n:]; len(units) == 0 {
			args[1] = process
		}
		done, err := b.rdb.EvalSha(ctx, joinScript.sha, s.joinKeys(), args...).Int()
		if err != nil {
			return unavailable("give rows back partition="+s.place.String(), err)
		}
		if done == 0 {
			return unavailable("give rows back partition="+s.place.String(), errOtherEpoch)
		}
		if len(units) == 0 {
			return nil
		}
	}
}

var errOtherEpoch = errors.New("another epoch began meanwhile")

// remark sets marks of requests again that were done before Redis lost data.
func (b *Buffer) remark(ctx context.Context, p Place, recent []recentMark) error {
	if len(recent) == 0 {
		return nil
	}
	g, err := b.rdb.HGet(ctx, p.meta(), "ig").Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return unavailable("set marks again partition="+p.String(), err)
	}
	pipe := b.rdb.Pipeline()
	for _, m := range recent {
		pipe.HSetNX(ctx, p.marks(max(g, 1)), m.name, m.id.String()+" "+m.value)
	}
	_, err = pipe.Exec(ctx)
	return unavailable("set marks again partition="+p.String(), err)
}

// speak says of dead processes what they had acknowledged, as far as it is known.
func (b *Buffer) speak(ctx context.Context, s state, dead map[string]table.ID) error {
	for id, high := range dead {
		if err := b.rdb.EvalSha(ctx, joinScript.sha, s.joinKeys(),
			s.epoch, id, high.String(), "1").Err(); err != nil {
			return unavailable("speak for a dead process partition="+s.place.String(), err)
		}
	}
	return nil
}

// finish opens an epoch when every process that is alive has joined it.
func (b *Buffer) finish(ctx context.Context, s state, alive, dead []string) error {
	acknowledged, err := b.tally.of(s.place, dead)
	if err != nil {
		b.log.Warn("what a dead process had acknowledged cannot be read", "error", err)
	}
	if err := b.speak(ctx, s, acknowledged); err != nil {
		return err
	}
	joined, err := b.rdb.HGetAll(ctx, s.place.joined()).Result()
	if err != nil {
		return unavailable("list who joined partition="+s.place.String(), err)
	}
	if missing := slices.DeleteFunc(slices.Clone(alive), func(id string) bool { return joined[id] != "" }); len(missing) > 0 {
		return &Waiting{s.place, missing}
	}
	if s.reindex {
		if err := b.reindex(ctx, s); err != nil {
			return err
		}
	}
	if err := b.stageTorn(ctx, s); err != nil {
		return err
	}
	if err := b.putBack(ctx, s); err != nil {
		return err
	}
	r, err := b.account(ctx, s, joined)
	if err != nil {
		return err
	}
	if err := b.wms.Record(ctx, r); err != nil {
		return fmt.Errorf("record epoch partition=%s: %w", s.place, err)
	}
	if err := b.TouchLists(ctx, s.place.Table); err != nil {
		return err
	}
	stale := "0"
	if r.Replayed > 0 || r.Lost > 0 || b.Durability().Level != "fsync" {
		stale = "1"
	}
	opened, err := b.rdb.EvalSha(ctx, reopenScript.sha,
		[]string{s.place.meta(), s.place.joined(), s.place.returned(), s.place.moved(), s.place.torn()},
		s.place.prefix(), s.epoch, stale).Int()
	if err != nil {
		return unavailable("reopen partition="+s.place.String(), err)
	}
	if opened == 1 {
		b.sayReopened(s, r)
	}
	return nil
}

func (b *Buffer) sayReopened(s state, r Recovery) {
	at := []any{"partition", s.place.String(), "epoch", s.epoch, "why", s.why, "put_back", r.Replayed, "lost", r.Lost}
	switch {
	case r.Lost > 0:
		b.log.Error("rows that were acknowledged are lost: Redis lost them, and the process that had accepted them died too",
			append(at, "from_seq", r.From, "to_seq", r.To)...)
	case r.Replayed > 0:
		b.log.Warn("rows that Redis had lost were put back; none is lost", at...)
	default:
		b.log.Debug("the new epoch is open; nothing is lost", at...)
	}
}

// putBack appends what was given back, in the order in which it was accepted.
// Any number of processes may do it at the same time: each unit goes back in one
// step with its removal from what was given back, and each process goes upwards.
func (b *Buffer) putBack(ctx context.Context, s state) error {
	names, err := b.rdb.HKeys(ctx, s.place.returned()).Result()
	if err != nil {
		return unavailable("list rows given back partition="+s.place.String(), err)
	}
	at := make(map[string]table.ID, len(names))
	for _, name := range names {
		part, err := parseStretch(name)
		if err != nil {
			return err
		}
		at[name] = part.last
	}
	slices.SortFunc(names, func(x, y string) int { return compareIDs(at[x], at[y]) })
	for some := range slices.Chunk(names, 16) {
		if err := b.putBackSome(ctx, s, some); err != nil {
			return err
		}
	}
	return nil
}

func compareIDs(a, b table.ID) int {
	switch {
	case a.After(b):
		return 1
	case b.After(a):
		return -1
	}
	return 0
}

func (b *Buffer) putBackSome(ctx context.Context, s state, names []string) error {
	texts, err := b.rdb.HMGet(ctx, s.place.returned(), names...).Result()
	if err != nil {
		return unavailable("read rows given back partition="+s.place.String(), err)
	}
	pipe := b.rdb.Pipeline()
	for i, name := range names {
		text, there := texts[i].(string)
		if !there { // another process was quicker
			continue
		}
		u, err := decodeUnit(name, text)
		if err != nil {
			return err
		}
		pipe.EvalSha(ctx, appendScript.sha, []string{s.place.log(), s.place.meta()}, u.args(s.place, marksParts)...)
	}
	if pipe.Len() == 0 {
		return nil
	}
	cmds, err := pipe.Exec(ctx)
	if err != nil {
		return unavailable("put rows back partition="+s.place.String(), err)
	}
	for _, c := range cmds {
		got, err := c.(*redis.Cmd).Slice()
		if err != nil {
			return unavailable("put rows back partition="+s.place.String(), err)
		}
		if a := answer(got, 0); a != "K" && a != "S" {
			return fmt.Errorf("put rows back partition=%s: unexpected answer %s", s.place, a)
		}
	}
	return nil
}

// marksParts: how many partitions share a table's marks is not known here.
const marksParts = 1

// account works out what an epoch begins with: what was put back, and what was
// acknowledged and nobody gave back. Where every process is alive the latter is
// none: what is missing then was never answered.
func (b *Buffer) account(ctx context.Context, s state, joined map[string]string) (Recovery, error) {
	r := Recovery{Place: s.place, Epoch: s.epoch, Why: s.why, Kept: s.kept}
	moved, err := b.rdb.HGetAll(ctx, s.place.moved()).Result()
	if err != nil {
		return r, unavailable("read what was put back partition="+s.place.String(), err)
	}
	for from, text := range moved {
		part, err1 := parseStretch(from)
		to, err2 := table.ParseID(text)
		if err := errors.Join(err1, err2); err != nil {
			return r, err
		}
		r.Replayed += int64(part.rows)
		r.Moves = append(r.Moves, Move{From: part.last, To: to, Rows: part.rows})
	}
	slices.SortFunc(r.Moves, func(x, y Move) int { return compareIDs(x.To, y.To) })
	high, dead := s.kept, false
	for _, id := range slices.Sorted(maps.Keys(joined)) {
		text, isDead, _ := strings.Cut(joined[id], " ")
		dead = dead || isDead == "1"
		if top, err := table.ParseID(text); err == nil && top.After(high) {
			high = top
		}
	}
	if !dead || high.Seq <= s.kept.Seq {
		return r, nil
	}
	if r.Lost = int64(high.Seq-s.kept.Seq) - r.Replayed; r.Lost <= 0 { //nolint:gosec // below 2^53
		r.Lost = 0
		return r, nil
	}
	r.From, r.To = s.kept.Seq+1, high.Seq
	if err := b.rdb.EvalSha(ctx, loseScript.sha, []string{s.place.log(), s.place.meta()}, s.epoch, r.Lost).Err(); err != nil {
		return r, unavailable("count lost rows partition="+s.place.String(), err)
	}
	return r, nil
}
