package api

import (
	"context"
	"sort"
	"time"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// Served is one table as the API serves it. Immutable, but for its Target.
type Served struct {
	Table    *table.Table
	Target   *buffer.Target // kept when the catalog changes
	Strategy string
	Linger   time.Duration
	Lag      time.Duration // target of the durability lag
	Cache    string        // rows or none

	TTL          time.Duration // of clean rows
	ListTTL      time.Duration // of lists; 0: not cached
	NegativeTTL  time.Duration // of keys that have no row; 0: not cached
	RefreshAhead time.Duration // a clean row that is read so long before its end is loaded again; 0: never
	Stale        time.Duration // a clean row is served so long after its end, while it is loaded again; 0: never
}

// Edge is Postgres as the API needs it: for what only Postgres can tell.
// Errors mean that Postgres could not be asked.
type Edge interface {
	Judge(ctx context.Context, items []table.JudgeItem) ([]table.JudgeResult, error)
	EvalDefaults(ctx context.Context, items []table.DefaultItem) ([]table.DefaultResult, error)
	NextValues(ctx context.Context, column *table.Column, n int) ([]int64, error)
	// LoadRow gives every column of the row with a key. A *table.FieldError says that there can be no such key.
	LoadRow(ctx context.Context, t *table.Table, key []table.Cell) (row table.Row, found bool, err error)
	// Generate computes the generated columns of a row that is not in Postgres yet. A *table.FieldError says which cannot be computed.
	Generate(ctx context.Context, t *table.Table, row table.Row) error
	// List gives rows to each until it returns false; a row is valid until then. A *table.FieldError says that the query cannot be asked.
	List(ctx context.Context, t *table.Table, q *table.Query, each func(table.Row) bool) error
	// Transact runs do in a transaction, and commits when it gives no error. buffer.ErrCommitUnknown says that the COMMIT was not answered; with any other error nothing was applied.
	Transact(ctx context.Context, tables []*table.Table, do func(context.Context, Tx) error) error
	Ping(ctx context.Context) error
}

// Ledger is Postgres' side of the books.
type Ledger interface {
	Progress(ctx context.Context) ([]buffer.Progress, error)
	Watermark(ctx context.Context, p buffer.Place) (table.ID, error)
	// Dead gives the rows after a seq, up to another, that Postgres refused, and whose replay it refused too.
	Dead(ctx context.Context, p buffer.Place, after, upto uint64) ([]buffer.DeadLetter, error)
	// Replayed gives what was written for a row that Postgres had refused, nil when nothing was.
	Replayed(ctx context.Context, p buffer.Place, id table.ID) (*buffer.Replayed, error)
	// Recorded gives what the epochs of a place after one began with.
	Recorded(ctx context.Context, p buffer.Place, after uint64) ([]buffer.Recovery, error)
	// Skip counts the rows after a watermark, up to one, as lost.
	Skip(ctx context.Context, p buffer.Place, from, upto uint64) error
	// Events gives the newest recoveries in which rows were missing, newest first.
	Events(ctx context.Context, limit int) ([]buffer.Event, error)
}

// Letters is the dead letters. Errors mean that Postgres could not be asked.
type Letters interface {
	// List gives those that a filter chooses, the newest first, Groups counts all of them by their reason.
	List(ctx context.Context, f buffer.LetterFilter) ([]buffer.Letter, error)
	Groups(ctx context.Context, f buffer.LetterFilter) ([]buffer.LetterGroup, error)
	Counts(ctx context.Context) (map[string]int64, error)
	// OfKey gives those of one row, the newest first.
	OfKey(ctx context.Context, table, key string, most int) ([]buffer.Letter, error)
	// Get gives one, nil when there is none of this number.
	Get(ctx context.Context, number int64) (*buffer.Letter, error)
	// Parked gives those that are parked behind others, Replayable those that wait for no other; both in their order.
	Parked(ctx context.Context, table string, behind []table.Letter, most int) ([]buffer.Letter, error)
	Replayable(ctx context.Context, f buffer.LetterFilter, after table.Letter) ([]buffer.Letter, error)
	NoteReplayed(ctx context.Context, numbers []int64) error
	// Discard deletes one, and gives how many were parked behind it; DiscardAll those that a filter chooses.
	Discard(ctx context.Context, number int64) (there bool, parked int, err error)
	DiscardAll(ctx context.Context, f buffer.LetterFilter) (int64, error)
}

// catalog is the tables at one moment.
type catalog map[string]*Served

func (c catalog) names() []string {
	out := make([]string, 0, len(c))
	for name := range c {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

// SetTables publishes a new catalog. Requests in flight finish on the old one.
func (s *Server) SetTables(tables map[string]*Served) {
	c := catalog(tables)
	s.tables.Store(&c)
}

// served finds a table that can take requests.
func (s *Server) served(name string) (*Served, error) {
	c := s.tables.Load()
	if c == nil {
		return nil, fault(codeStoreUnavailable, "%s", s.whyUnread())
	}
	return c.served(name)
}

func (c *catalog) served(name string) (*Served, error) {
	if c == nil {
		return nil, fault(codeStoreUnavailable, "The catalog was not read yet.").hint("GET /readyz?verbose says why.")
	}
	t, ok := (*c)[name]
	if !ok {
		return nil, fault(codeTableNotFound, "There is no table of this name, or it is not exposed.").
			hint("GET /v1 lists the tables.")
	}
	if t.Table.Unusable != "" {
		return nil, fault(codeTableNotUsable, "This table cannot be served exactly: %s.", t.Table.Unusable)
	}
	return t, nil
}
