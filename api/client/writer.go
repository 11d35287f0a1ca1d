package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	// DefaultRows of a batch is also the most: an answer lists at most 1,000
	// errors, and each row that was rejected must be among them.
	DefaultRows = 1000
	// DefaultBytes is half of the body that Headpond takes by default.
	DefaultBytes = 4 << 20
	// DefaultLinger is short beside a request to another machine under load, and
	// long enough for a few rows to share one.
	DefaultLinger = 100 * time.Millisecond
)

// ErrWriterClosed is the error of a Write after Close. The row was not taken.
var ErrWriterClosed = errors.New("client: the Writer is closed")

// WriterConfig says what a batch is. The zero value of a number is its default.
type WriterConfig struct {
	Rows   int           // most of a batch: 1 to DefaultRows
	Bytes  int           // most of a batch, as NDJSON; a row that is larger goes alone
	Linger time.Duration // how long a row waits for company

	// Rejected is told of every row that was taken and then not accepted, once,
	// as it was given to Write. The indexes and pointers of its errors are those
	// in the row. Unless Error.Applied is AppliedNo, the row may have been
	// accepted all the same. It is called by one goroutine, and holds up the
	// next batch; it must not call the Writer. There must be one.
	Rejected func(row any, err *Error)
}

func (cfg *WriterConfig) complete() error {
	if cfg.Rows == 0 {
		cfg.Rows = DefaultRows
	}
	if cfg.Bytes == 0 {
		cfg.Bytes = DefaultBytes
	}
	if cfg.Linger == 0 {
		cfg.Linger = DefaultLinger
	}
	var errs []error
	if cfg.Rows < 1 || cfg.Rows > DefaultRows {
		errs = append(errs, fmt.Errorf("client: WriterConfig.Rows must be 1 to %d: %d", DefaultRows, cfg.Rows))
	}
	if cfg.Bytes < 0 || cfg.Linger < 0 {
		errs = append(errs, fmt.Errorf("client: WriterConfig.Bytes and Linger must not be negative: %d, %s", cfg.Bytes, cfg.Linger))
	}
	if cfg.Rejected == nil {
		errs = append(errs, errors.New("client: WriterConfig.Rejected must be there, or rows would be lost in silence"))
	}
	return errors.Join(errs...)
}

// Writer inserts rows into one table, in batches. One request is on its way at a
// time, so rows go in the order in which they were written, and what waits is
// never more than two batches: for more, take several. Safe for concurrent use.
type Writer struct {
	c       *Client
	table   string
	cfg     WriterConfig
	options []CallOption
	cancel  context.CancelFunc // of what is being sent
	batches chan *batch        // each since its first row, to the sender
	stopped chan struct{}      // closed when the sender has ended

	mu      sync.Mutex // guards the rest and the batch that fills; nothing is waited for under it
	filling *batch     // nil when no row waits
	newest  *batch     // that was begun
	closed  bool
}

// batch is rows that go together. The channels are closed when their word is
// true.
type batch struct {
	rows    []any
	body    []byte
	until   time.Time     // it is sent then, however few rows it has
	hurried bool          // due is closed
	due     chan struct{} // it need not wait until then
	taken   chan struct{} // by the sender: no more rows come in
	done    chan struct{} // every row was accepted or reported
}

func (b *batch) hurry() {
	if !b.hurried {
		b.hurried = true
		close(b.due)
	}
}

// NewWriter makes a Writer for a table, which takes rows until Close. Options
// may be MergeDuplicates, IgnoreDuplicates, and Wait, which reports dead letters
// too.
func (c *Client) NewWriter(table string, cfg WriterConfig, opts ...CallOption) (*Writer, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if _, err := newCall(kindWriter, http.MethodPost, tablePath(table), opts); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &Writer{
		c: c, table: table, cfg: cfg, options: opts, cancel: cancel,
		batches: make(chan *batch, 1), stopped: make(chan struct{}),
	}
	go w.run(ctx)
	return w, nil
}

// Write takes a row: from then on it will be accepted or reported. It blocks
// while a batch is full and the one before it is on its way. An error says that
// the row was not taken: it cannot be encoded, ctx has ended, or the Writer is
// closed.
func (w *Writer) Write(ctx context.Context, row any) error {
	line, err := encode(row)
	if err != nil {
		return err
	}
	for {
		full, err := w.add(row, line)
		if full == nil {
			return err
		}
		select {
		case <-full.taken:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// add puts a row into the batch that fills, or gives that batch if it has no
// room: the row comes after it.
func (w *Writer) add(row any, line []byte) (full *batch, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, ErrWriterClosed
	}
	b := w.filling
	if b != nil && (len(b.rows) == w.cfg.Rows || len(b.body)+len(line) >= w.cfg.Bytes) {
		b.hurry()
		return b, nil
	}
	if b == nil {
		b = &batch{
			until: time.Now().Add(w.cfg.Linger),
			due:   make(chan struct{}), taken: make(chan struct{}), done: make(chan struct{}),
		}
		w.filling, w.newest = b, b
		w.batches <- b // has room: the one before was received before it was taken
	}
	b.rows = append(b.rows, row)
	b.body = append(append(b.body, line...), '\n')
	if len(b.rows) == w.cfg.Rows || len(b.body) >= w.cfg.Bytes {
		b.hurry()
	}
	return nil, nil
}

// Flush returns when every row that was taken before is accepted or reported.
// It is not about Postgres: for that, see Client.Flush.
func (w *Writer) Flush(ctx context.Context) error {
	w.mu.Lock()
	b := w.newest
	if b != nil {
		b.hurry()
	}
	w.mu.Unlock()
	if b == nil {
		return nil
	}
	select {
	case <-b.done: // and those before it
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close takes no more rows, and returns when all are accepted or reported. If
// ctx ends first, what is on its way is given up and reported as such, and the
// error is that of ctx.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		if w.filling != nil {
			w.filling.hurry()
		}
		close(w.batches)
	}
	w.mu.Unlock()
	defer w.cancel()
	select {
	case <-w.stopped:
		return nil
	case <-ctx.Done():
		w.cancel()
		<-w.stopped
		return context.Cause(ctx)
	}
}

// run is the sender: it takes batches when they are due, one after the other.
func (w *Writer) run(ctx context.Context) {
	defer close(w.stopped)
	for b := range w.batches {
		select {
		case <-b.due:
		case <-time.After(time.Until(b.until)):
		}
		w.mu.Lock()
		w.filling = nil
		w.mu.Unlock()
		close(b.taken)
		w.send(ctx, b)
		b.rows, b.body = nil, nil // w.newest holds the batch
		close(b.done)
	}
}

// send returns when every row of the batch is accepted or reported.
func (w *Writer) send(ctx context.Context, b *batch) {
	r, _ := newCall(kindWriter, http.MethodPost, tablePath(w.table), w.options) // NewWriter saw that they fit
	r.body = b.body
	r.prefer = append(r.prefer, "handling=lenient")
	r.header.Set("Content-Type", "application/x-ndjson")
	out, err := w.c.writeMany(ctx, r)
	if err == nil {
		return
	}
	rejected, e := 0, badAnswer(0, err.Error())
	if errors.As(err, &e); out != nil { // it always is an Error
		rejected = out.Rejected
	}
	for i, e := range rejections(len(b.rows), rejected, e) {
		if e != nil {
			w.cfg.Rejected(b.rows[i], e)
		}
	}
}
