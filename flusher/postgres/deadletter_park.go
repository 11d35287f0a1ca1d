package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// A patch or an increment that was computed on a row that Postgres refused is
// parked: set aside behind that dead letter, which it follows when that one is
// replayed. Applied without it, it would make a row that nobody ever saw, or be
// refused for what it did not do.
//
// The log says of each change which row of the log it was computed on (its
// base), so this is exact: a change that was accepted after the refused row had
// left the buffer was computed on what Postgres has, and is not parked, however
// long the dead letter lies there. A put, an insert or a delete depends on
// nothing, and what is computed on it has it for its base.

// parkedState is the SQLSTATE of parked changes. Class HP is Headpond's own.
const parkedState = "HP002"

// graves are the dead letters that rows of a batch may depend on: of each the
// one that it is parked behind, or itself.
type graves map[table.Letter]table.ID

// visit looks up which rows of earlier batches that changes of this one are
// computed on are dead letters. It asks once for a batch, and only when one of
// the batch's partitions has ever had a dead letter and the batch has changes on
// rows that are not in it.
func (b *batch) visit(ctx context.Context, tx pgx.Tx, haunted map[int]bool) error {
	var bases []table.Letter
	seen := make(map[table.Letter]bool)
	for i := range b.parts {
		p := &b.parts[i]
		if !haunted[p.Place.Partition] {
			continue
		}
		for _, f := range p.Frames {
			for row := range f.Len() {
				base, ok := baseOf(f, row)
				l := table.Letter{Partition: p.Place.Partition, ID: base}
				if !ok || base.After(p.Watermark) || seen[l] {
					continue
				}
				seen[l] = true
				bases = append(bases, l)
			}
		}
	}
	if len(bases) == 0 {
		return nil
	}
	parts, epochs, seqs := lettersAsColumns(bases)
	rows, err := tx.Query(ctx, `
		select d.partition, d.epoch, d.seq, coalesce(d.parked_epoch, d.epoch), coalesce(d.parked_seq, d.seq)
		from headpond.dead_letters d
		join unnest($2::int[], $3::bigint[], $4::bigint[]) as x (p, e, s) on d.partition = x.p and d.epoch = x.e and d.seq = x.s
		where d.table_name = $1 and d.sqlstate <> $5
		union all
		select d.partition, d.epoch, d.seq, d.epoch, d.seq
		from headpond.discarded d
		join unnest($2::int[], $3::bigint[], $4::bigint[]) as x (p, e, s) on d.partition = x.p and d.epoch = x.e and d.seq = x.s
		where d.table_name = $1 and d.sqlstate <> $5`, b.table.Name, parts, epochs, seqs, yieldedState)
	if err != nil {
		return fmt.Errorf("look for dead letters: %w", err)
	}
	var partition int
	var epoch, seq, firstEpoch, firstSeq int64
	_, err = pgx.ForEachRow(rows, []any{&partition, &epoch, &seq, &firstEpoch, &firstSeq}, func() error {
		b.dig(letterOf(partition, epoch, seq), letterOf(partition, firstEpoch, firstSeq).ID)
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for dead letters: %w", err)
	}
	return nil
}

// dig notes a dead letter.
func (b *batch) dig(l table.Letter, behind table.ID) {
	if b.graves == nil {
		b.graves = make(graves)
	}
	b.graves[l] = behind
}

// baseOf is the row of the log that a change was computed on.
func baseOf(f *table.Frame, row int) (table.ID, bool) {
	if !f.Op(row).Changes() {
		return table.ID{}, false
	}
	first := f.First()
	return table.BaseOf(f.Line(row), table.ID{Epoch: first.Epoch, Seq: first.Seq + uint64(row)}) //nolint:gosec // never negative
}

// blocked tells which dead letter an operation depends on.
func (b *batch) blocked(o flusher.Origin) (behind table.ID, is bool) {
	if len(b.graves) == 0 {
		return table.ID{}, false
	}
	base, ok := baseOf(o.Frame, o.Row)
	if !ok {
		return table.ID{}, false
	}
	behind, is = b.graves[table.Letter{Partition: b.parts[o.Part].Place.Partition, ID: base}]
	return behind, is
}

// park sets an operation aside behind a dead letter.
func (b *batch) park(o flusher.Origin, behind table.ID) error {
	p := &b.parts[o.Part]
	err := b.setAside(p, o.Frame, o.Row, &pgconn.PgError{
		Severity: "ERROR", Code: parkedState, SchemaName: b.table.Schema, TableName: b.table.Name,
		Message: fmt.Sprintf("the change was computed on a row that Postgres refused, and is parked behind that dead letter (%s.%d.%d)",
			p.Place, behind.Epoch, behind.Seq),
	})
	if err != nil {
		return err
	}
	d := &b.dead[len(b.dead)-1]
	d.behind = behind
	b.dig(table.Letter{Partition: p.Place.Partition, ID: d.id}, behind)
	return nil
}

// parkWave gives the operations of a wave that may be written, and notes the
// others as refused: closeWave looks at what they stand for.
func (b *batch) parkWave(wave []*flusher.Net, refused map[*flusher.Net]bool) []*flusher.Net {
	if len(b.graves) == 0 {
		return wave
	}
	var rest []*flusher.Net
	for _, n := range wave {
		if _, is := b.blocked(n.Origins[0]); is && n.Op == table.OpPatch {
			refused[n] = true
			continue
		}
		rest = append(rest, n)
	}
	return rest
}
