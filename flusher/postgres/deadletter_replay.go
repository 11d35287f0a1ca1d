package postgres

import (
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// A dead letter counts once because the transaction that commits its replay
// takes the letter away. Whatever dies before the COMMIT, the letter is there,
// and so is the row in the log, or it can be replayed again; after it, another
// replay of the letter finds none, and is left out. No state in Redis is needed
// for that: marks expire, and Redis can lose them.

// replayed is a row of the batch that replays a dead letter.
type replayed struct {
	letter table.Letter
	part   int
	id     table.ID // of the row in the log
}

// replays takes the letters' names out of the parts' frames.
func (b *batch) replays(parts []flusher.Part) (out []*replayed) {
	b.parts = slices.Clone(parts)
	for i := range b.parts {
		p := &b.parts[i]
		for n, f := range p.Frames {
			l, columns, is := table.CutReplay(f.Columns)
			if !is {
				continue
			}
			if len(out) == 0 || out[len(out)-1].part != i {
				p.Frames = slices.Clone(p.Frames)
			}
			plain := *f
			plain.Columns = columns
			p.Frames[n] = &plain
			out = append(out, &replayed{letter: l, part: i, id: f.First()})
		}
	}
	return out
}

// take removes the dead letters that rows of the batch replay, and leaves out of
// the batch those whose letter is gone: it was replayed before, or discarded.
// The letters are locked in one order, so that batches with replays of the same
// ones wait for each other; the second finds nothing.
func (b *batch) take(ctx context.Context, tx pgx.Tx, all []*replayed) error {
	if len(all) == 0 {
		return nil
	}
	letters := make([]table.Letter, len(all))
	for i, r := range all {
		letters[i] = r.letter
	}
	there, err := takeLetters(ctx, tx, b.table.Name, letters)
	if err != nil {
		return err
	}
	b.first = moveSavepoint // or an error of the rows would undo this
	b.left, b.dropped = make([]int64, len(b.parts)), make(map[buffer.Place][]buffer.DeadRow)
	b.tries = make([]map[table.ID]int, len(b.parts))
	var links []stands
	for _, r := range all {
		row := table.Letter{Partition: b.parts[r.part].Place.Partition, ID: r.id}
		was, ok := there[r.letter]
		if !ok {
			key, err := b.leaveOut(r)
			if err != nil {
				return err
			}
			links = append(links, stands{of: row, by: r.letter, key: key})
			continue
		}
		delete(there, r.letter) // a second replay of it in this batch finds it gone
		links = append(links, stands{of: r.letter, by: row, key: was.key})
		if b.tries[r.part] == nil {
			b.tries[r.part] = make(map[table.ID]int)
		}
		b.tries[r.part][r.id] = was.replays + 1
	}
	return noteStands(ctx, tx, b.table.Name, links)
}

// querier is a transaction, or the connection of one.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// taken is a dead letter that was there.
type taken struct {
	key     string
	replays int // before
}

// takeLetters deletes dead letters of a table, and gives those that were there.
func takeLetters(ctx context.Context, tx querier, tbl string, letters []table.Letter) (map[table.Letter]taken, error) {
	parts, epochs, seqs := lettersAsColumns(letters)
	rows, err := tx.Query(ctx, `
		with locked as (
			select d.id from headpond.dead_letters d
			join (select distinct * from unnest($2::int[], $3::bigint[], $4::bigint[]) as x (p, e, s)) x
				on d.partition = x.p and d.epoch = x.e and d.seq = x.s
			where d.table_name = $1 order by d.id for update of d)
		delete from headpond.dead_letters d using locked where d.id = locked.id
		returning d.partition, d.epoch, d.seq, coalesce(d.key, ''), d.replays`, tbl, parts, epochs, seqs)
	if err != nil {
		return nil, err
	}
	there := make(map[table.Letter]taken, len(letters))
	var partition int
	var epoch, seq int64
	var was taken
	_, err = pgx.ForEachRow(rows, []any{&partition, &epoch, &seq, &was.key, &was.replays}, func() error {
		there[letterOf(partition, epoch, seq)] = was
		return nil
	})
	return there, err
}

func letterOf(partition int, epoch, seq int64) table.Letter {
	return table.Letter{Partition: partition, ID: table.ID{Epoch: uint64(epoch), Seq: uint64(seq)}} //nolint:gosec // never negative
}

func lettersAsColumns(letters []table.Letter) (parts []int32, epochs, seqs []int64) {
	for _, l := range letters {
		parts = append(parts, int32(l.Partition))  //nolint:gosec // partitions are few
		epochs = append(epochs, int64(l.ID.Epoch)) //nolint:gosec // below 2^53
		seqs = append(seqs, int64(l.ID.Seq))       //nolint:gosec // below 2^53
	}
	return parts, epochs, seqs
}

// leaveOut takes a row out of the batch that replays what was replayed before.
// It counts as coalesced: another one stands for it. Readers must not be given it:
// its key is dropped.
func (b *batch) leaveOut(r *replayed) (key string, err error) {
	p := &b.parts[r.part]
	at := slices.IndexFunc(p.Frames, func(f *table.Frame) bool { return f.First() == r.id })
	if at < 0 {
		return "", errors.New("a replayed row is not where it was in its batch")
	}
	if b.table.HasKey() {
		if key, err = b.keyOfRow(p.Frames[at], 0); err != nil {
			return "", err
		}
		b.dropped[p.Place] = append(b.dropped[p.Place], buffer.DeadRow{Key: key, ID: r.id})
	}
	p.Frames = slices.Delete(p.Frames, at, at+1)
	b.left[r.part]++
	return key, nil
}

// keyOfRow is the primary key of row i of a frame, as it is written in paths.
func (b *batch) keyOfRow(f *table.Frame, i int) (string, error) {
	f, _, err := b.table.Adapt(f)
	if err != nil {
		return "", err
	}
	names, cells := table.HeaderNames(f.Columns), table.ParseLine(f.Line(i))
	row := make(table.Row, len(b.table.Columns))
	for _, k := range b.table.Key {
		at := slices.Index(names, b.table.Columns[k].Name)
		if at < 0 || at >= len(cells) {
			return "", flusher.ErrKeyChanged
		}
		row[k] = cells[at]
	}
	return string(b.table.AppendKey(nil, row)), nil
}
