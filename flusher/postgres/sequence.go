package postgres

import (
	"context"
	"fmt"
	"github.com/headpond/headpond/buffer/table"
	"math"
	"strconv"
)

// reserveSQL takes up to $2 numbers of sequence $1. It never asks for more
// than the sequence still has: a nextval past the end fails, and the numbers
// that the same statement took before it would be lost.
const reserveSQL = `
	select pg_catalog.nextval(s.seqrelid::pg_catalog.regclass)
	from pg_catalog.pg_sequence s,
		lateral (select coalesce(pg_catalog.pg_sequence_last_value(s.seqrelid), s.seqstart - s.seqincrement)::numeric as last) l,
		lateral pg_catalog.generate_series(1, case when s.seqcycle then $2
			else least($2, greatest(1, ((case when s.seqincrement > 0 then s.seqmax else s.seqmin end) - l.last) / s.seqincrement))::int end)
	where s.seqrelid = $1::pg_catalog.regclass`

// Reserve takes n numbers of a sequence in one query. There are fewer only
// when the sequence is about to end. sequence is a name as Default.Sequence
// has it. Safe for concurrent use.
func (e *Edge) Reserve(ctx context.Context, sequence string, n int) ([]int64, error) {
	if n < 1 || n > math.MaxInt32 {
		return nil, fmt.Errorf("reserve ids sequence=%s: cannot take %d", sequence, n)
	}
	answers, err := e.ask(ctx, []question{{
		sql:    reserveSQL,
		params: [][]byte{[]byte(sequence), strconv.AppendInt(nil, int64(n), 10)},
		oids:   []uint32{oidText, oidInt4},
	}})
	if err == nil && answers[0].err != nil {
		err = answers[0].err
	}
	if err != nil {
		return nil, storeError("reserve ids sequence="+sequence, err)
	}
	ids := make([]int64, len(answers[0].rows))
	for i, row := range answers[0].rows {
		if ids[i], err = strconv.ParseInt(string(row[0]), 10, 64); err != nil {
			return nil, fmt.Errorf("reserve ids sequence=%s: %w", sequence, err)
		}
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("reserve ids sequence=%s: %w", sequence, ErrCatalogStale)
	}
	return ids, nil
}

// SequenceCap is the most ids to hold in memory for a column of type t. What
// is held is lost when the process ends, so small types get little: an int2
// has 32,767 numbers in all.
func SequenceCap(t *table.Type) int {
	switch t.Kind {
	case table.KindInt2:
		return 100
	case table.KindInt4:
		return 10_000
	default:
		return 500_000
	}
}
