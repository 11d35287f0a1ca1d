package buffer

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headpond/headpond/buffer/table"
)

// Tail is where a partition stands, as Redis knows it.
type Tail struct {
	Place   Place
	Open    bool     // it has an epoch
	Closed  bool     // but one that waits for rows which Redis has lost
	Last    table.ID // of the newest row
	Settled uint64   // seq up to which Redis has heard of commits; Postgres may be further
	Bytes   uint64   // of the backlog
}

// Backlog is the number of rows that are not settled.
func (t *Tail) Backlog() int64 { return int64(t.Last.Seq) - int64(t.Settled) }

// Tails reads where the places stand, in one pipeline.
func (b *Buffer) Tails(ctx context.Context, places []Place) ([]Tail, error) {
	if len(places) == 0 {
		return nil, nil
	}
	pipe := b.rdb.Pipeline()
	cmds := make([]*redis.SliceCmd, len(places))
	for i, p := range places {
		cmds[i] = pipe.HMGet(ctx, p.meta(), "epoch", "seq", "wm", "bytes", "wmbytes", "closed")
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, unavailable("read tails", err)
	}
	out := make([]Tail, len(places))
	for i, c := range cmds {
		v := c.Val()
		n := func(j int) uint64 {
			s, _ := v[j].(string)
			x, _ := strconv.ParseUint(s, 10, 64)
			return x
		}
		out[i] = Tail{
			Place: places[i], Open: v[0] != nil, Closed: v[5] != nil,
			Last: table.ID{Epoch: n(0), Seq: n(1)}, Settled: n(2), Bytes: n(3) - min(n(4), n(3)),
		}
	}
	return out, nil
}

// readStep is how many frames one XRANGE asks for: at 64 KiB each, 2 MiB.
const readStep = 32

// Frames reads the frames after an id, oldest first, until one of the limits
// is passed or the log ends. It gives at least one frame when there is one.
func (b *Buffer) Frames(ctx context.Context, p Place, after table.ID, rows, size int) ([]*table.Frame, error) {
	var out []*table.Frame
	for rows > 0 && size > 0 {
		got, err := b.rdb.XRangeN(ctx, p.log(), "("+after.String(), "+", readStep).Result()
		if err != nil {
			return nil, unavailable("read log partition="+p.String(), err)
		}
		for _, m := range got {
			f, err := frame(m)
			if err != nil {
				return nil, fmt.Errorf("read log partition=%s id=%s: %w", p, m.ID, err)
			}
			out = append(out, f)
			after = f.Last
			rows -= f.Len()
			size -= len(f.Data)
			if rows <= 0 || size <= 0 {
				break
			}
		}
		if len(got) < readStep {
			break
		}
	}
	return out, nil
}

func frame(m redis.XMessage) (*table.Frame, error) {
	id, err := table.ParseID(m.ID)
	if err != nil {
		return nil, err
	}
	field := func(name string) string { s, _ := m.Values[name].(string); return s }
	if field("l") != "" {
		f := &table.Frame{Last: id}
		var err1, err2 error
		f.Lost, err1 = strconv.ParseUint(field("l"), 10, 64)
		f.Bytes, err2 = strconv.ParseUint(field("b"), 10, 64)
		if err1 != nil || err2 != nil {
			return nil, table.ErrCorruptFrame
		}
		return f, f.Check()
	}
	base, traces, err1 := table.ParseTime(field("t"))
	total, err2 := strconv.ParseUint(field("b"), 10, 64)
	if err1 != nil || err2 != nil {
		return nil, table.ErrCorruptFrame
	}
	f := &table.Frame{
		Last: id, Columns: []byte(field("c")), Base: base,
		Heads: []byte(field("h")), Data: []byte(field("d")), Bytes: total, Traces: traces,
	}
	return f, f.Check()
}

// Oldest tells for each place when the first row after an id was accepted; zero
// when there is none.
func (b *Buffer) Oldest(ctx context.Context, places []Place, after []table.ID) ([]time.Time, error) {
	if len(places) == 0 {
		return nil, nil
	}
	pipe := b.rdb.Pipeline()
	cmds := make([]*redis.XMessageSliceCmd, len(places))
	for i, p := range places {
		cmds[i] = pipe.XRangeN(ctx, p.log(), "("+after[i].String(), "+", 1)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, unavailable("read logs", err)
	}
	out := make([]time.Time, len(places))
	for i, c := range cmds {
		if got := c.Val(); len(got) == 1 {
			if f, err := frame(got[0]); err == nil && f.Len() > 0 {
				out[i] = f.Accepted(0)
			}
		}
	}
	return out, nil
}

// DeadRow names a row that went to the dead letters.
type DeadRow struct {
	Key      string
	ID       table.ID
	SQLState string // why; "" when it is not known any more
}

// Settlement is what was committed in Postgres.
type Settlement struct {
	Place       Place
	Watermark   table.ID
	Bytes       uint64 // Frame.Bytes of the last frame; 0 when not known
	Committed   time.Time
	Picked      time.Time
	Copied      time.Time
	Dead        []DeadRow
	Lists       bool          // the table has lists, and this may change them
	Retain      time.Duration // how long committed frames stay in the log,
	RetainBytes int64         // and how much of them
	// Unreplicated: no synchronous standby has confirmed the commit. The log is not
	// trimmed before one of a later commit has.
	Unreplicated bool
}

// forgetProducers after a day of silence: far longer than any retry.
const forgetProducers = 24 * time.Hour

// Settle tells Redis what Postgres has committed: readers and waiters hear of
// it, index generations go, the log is trimmed. To repeat it does no harm. Lists
// go first, so that nobody who has heard of a commit is given one from before.
func (b *Buffer) Settle(ctx context.Context, all []Settlement) ([]Tail, error) {
	if err := b.touchSettled(ctx, all); err != nil {
		return nil, err
	}
	pipe := b.rdb.Pipeline()
	cmds := make([]*redis.Cmd, len(all))
	for i, s := range all {
		size := ""
		if s.Bytes > 0 {
			size = strconv.FormatUint(s.Bytes, 10)
		}
		args := []any{
			s.Place.prefix(), s.Watermark.Epoch, s.Watermark.Seq, size,
			s.Committed.UnixMilli(), s.Picked.UnixMilli(), s.Copied.UnixMilli(),
			s.retain(), s.RetainBytes, forgetProducers.Milliseconds(), len(s.Dead),
		}
		for _, d := range s.Dead {
			args = append(args, d.Key, d.ID.String())
		}
		cmds[i] = pipe.EvalSha(ctx, settleScript.sha, []string{s.Place.log(), s.Place.meta(), s.Place.commits()}, args...)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		if classify(err) == noScript {
			if err := b.shake(ctx); err != nil {
				return nil, err
			}
		}
		return nil, unavailable("settle", err)
	}
	out := make([]Tail, len(all))
	for i, c := range cmds {
		v, err := c.StringSlice()
		if err != nil || len(v) < 4 {
			return nil, unavailable("settle partition="+all[i].Place.String(), err)
		}
		n := func(j int) uint64 { x, _ := strconv.ParseUint(v[j], 10, 64); return x }
		out[i] = Tail{Place: all[i].Place, Open: v[0] != "", Last: table.ID{Epoch: n(0), Seq: n(1)}, Settled: n(2), Bytes: n(3)}
	}
	return out, nil
}

func (s *Settlement) retain() int64 {
	if s.Unreplicated {
		return -1
	}
	return s.Retain.Milliseconds()
}

// Commit is when a write was picked up, copied and committed.
type Commit struct {
	Epoch                     uint64 // of the commit; 0 when it is not known
	From, To                  uint64 // the rows of the partition that were committed with it; From is 0 when it is not known
	Picked, Copied, Committed time.Time
}

// Story is what is known of a row with a receipt; times are zero when they are not
// known (any more).
type Story struct {
	Accepted time.Time
	Appended time.Time  // when Redis took it, by the clock of Redis
	Span     table.Span // that put it into the log; zero when its request was not sampled
	Commit   Commit
}

// Life looks up when the row with the given id was accepted and committed;
// either is zero when it is not known (any more).
func (b *Buffer) Life(ctx context.Context, p Place, id table.ID) (accepted time.Time, commit Commit, err error) {
	s, err := b.Story(ctx, p, id)
	return s.Accepted, s.Commit, err
}

// Story looks up what is known of the row with the given id.
func (b *Buffer) Story(ctx context.Context, p Place, id table.ID) (s Story, err error) {
	pipe := b.rdb.Pipeline()
	row := pipe.XRangeN(ctx, p.log(), id.String(), "+", 1)
	done := pipe.XRangeN(ctx, p.commits(), id.String(), "+", 1)
	if _, err := pipe.Exec(ctx); err != nil {
		return s, unavailable("look up receipt", err)
	}
	if got := row.Val(); len(got) == 1 {
		f, err := frame(got[0])
		if err != nil {
			return s, err
		}
		if first := f.First(); !first.After(id) && f.Len() > 0 {
			row := int(id.Seq - first.Seq) //nolint:gosec // a row of the frame
			s.Accepted, s.Span = f.Accepted(row), f.Traced(row)
			if us := field(got[0], "r"); us > 0 {
				s.Appended = time.UnixMicro(us)
			}
		}
	}
	if got := done.Val(); len(got) == 1 {
		at := func(name string) time.Time { return time.UnixMilli(field(got[0], name)) }
		to, _ := table.ParseID(got[0].ID)
		s.Commit = Commit{
			Epoch: to.Epoch, From: uint64(field(got[0], "f")), To: to.Seq, //nolint:gosec // never negative
			Picked: at("p"), Copied: at("c"), Committed: at("t"),
		}
	}
	return s, nil
}

func field(m redis.XMessage, name string) int64 {
	text, _ := m.Values[name].(string)
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// Newest gives the last frames of a log after an id, newest first, at most so many;
// all says that there are no others.
func (b *Buffer) Newest(ctx context.Context, p Place, after table.ID, most int) (out []*table.Frame, all bool, err error) {
	upto := "+"
	for len(out) < most {
		got, err := b.rdb.XRevRangeN(ctx, p.log(), upto, "("+after.String(), readStep).Result()
		if err != nil {
			return nil, false, unavailable("read log partition="+p.String(), err)
		}
		for _, m := range got {
			f, err := frame(m)
			if err != nil {
				return nil, false, fmt.Errorf("read log partition=%s id=%s: %w", p, m.ID, err)
			}
			out = append(out, f)
			upto = "(" + m.ID
		}
		if len(got) < readStep {
			return out, true, nil
		}
	}
	return out, false, nil
}
