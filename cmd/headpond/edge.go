package main

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher/postgres"
)

// edge is Postgres as the API needs it. Safe for concurrent use.
type edge struct {
	*postgres.Edge

	pool   *pgxpool.Pool
	direct *postgres.Direct

	mu        sync.Mutex // guards sequences
	sequences map[string]*postgres.Sequence
}

func newEdge(pool, write *pgxpool.Pool) *edge {
	return &edge{
		Edge: postgres.NewEdge(pool), pool: pool, direct: postgres.NewDirect(write), sequences: make(map[string]*postgres.Sequence),
	}
}

// Transact runs do in a transaction.
func (e *edge) Transact(ctx context.Context, tables []*table.Table, do func(context.Context, api.Tx) error) error {
	return e.direct.Transact(ctx, tables, func(ctx context.Context, tx *postgres.Tx) error { return do(ctx, tx) })
}

// NextValues takes n numbers for a column whose default is a sequence.
func (e *edge) NextValues(ctx context.Context, c *table.Column, n int) ([]int64, error) {
	e.mu.Lock()
	s := e.sequences[c.Default.Sequence]
	if s == nil {
		s = e.NewSequence(c.Default.Sequence, postgres.SequenceCap(c.Type))
		e.sequences[c.Default.Sequence] = s
	}
	e.mu.Unlock()
	return s.Next(ctx, n)
}

// Ping reports whether Postgres answers and takes writes.
func (e *edge) Ping(ctx context.Context) error { return answered(e.pool.Ping(ctx)) }

func (e *edge) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.sequences {
		s.Close()
	}
}
