package buffer

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/headpond/headpond/buffer/table"
)

// What was loaded from Postgres lies under row:<key> as
//
//	C<epoch> <stored, ms> <end, ms> <token>\n<columns>\n<line>    a row
//	N<epoch> <stored, ms> <end, ms> <token>\n                     that there is none
//
// The token makes each head another, so that a head says which value it is. The
// key itself lives longer than to the end when the row may be served stale.
// Beside these, L<token>.<epoch> is a lease to load the row, and W<token> the
// marker of a direct writer.

// Life is how long something is kept.
type Life struct {
	TTL   time.Duration
	Stale time.Duration // and so much longer for readers who take it after its end
}

func (l Life) milliseconds() int64 { return max((l.TTL + l.Stale).Milliseconds(), 1) }

// head of a value, without its letter and its epoch.
func (b *Buffer) head(ttl time.Duration) []byte {
	now := time.Now().UnixMilli()
	dst := strconv.AppendInt([]byte{' '}, now, 10)
	dst = strconv.AppendInt(append(dst, ' '), now+ttl.Milliseconds(), 10)
	return append(append(append(dst, ' '), b.token()...), '\n')
}

// Fill stores a row that was loaded after something was found (Found.Lease): a
// miss with a lease, a clean row, or that there is none. It reports whether the
// row was taken: not if a write came in between. A row without life is not kept.
func (b *Buffer) Fill(ctx context.Context, p Place, key, lease string, row Row, life Life) (bool, error) {
	value := append(make([]byte, 0, 64+len(row.Columns)+len(row.Line)), 'C')
	value = append(append(value, epochOf(lease)...), b.head(life.TTL)...)
	value = append(append(append(value, row.Columns...), '\n'), row.Line...)
	return b.fill(ctx, p, key, lease, value, life)
}

// FillAbsent stores that there is no row, as Fill does.
func (b *Buffer) FillAbsent(ctx context.Context, p Place, key, lease string, life Life) (bool, error) {
	value := append(append(make([]byte, 0, 64), 'N'), epochOf(lease)...)
	return b.fill(ctx, p, key, lease, append(value, b.head(life.TTL)...), life)
}

// Release gives a lease back without a row.
func (b *Buffer) Release(ctx context.Context, p Place, key, lease string) error {
	_, err := b.fill(ctx, p, key, lease, nil, Life{})
	return err
}

func (b *Buffer) fill(ctx context.Context, p Place, key, lease string, value []byte, life Life) (bool, error) {
	over := lease
	if !isHead(lease) {
		over = "L" + lease
	}
	if life.TTL <= 0 {
		value = nil
	}
	n, err := b.eval(ctx, fillScript, []string{p.row(key), p.refresh(key)}, over, value, life.milliseconds()).Int()
	if err != nil {
		return false, unavailable("fill key partition="+p.String(), err)
	}
	if n == 0 && len(value) > 0 {
		b.counters.FillLost.Add(1)
	}
	return n == 1, nil
}

// isHead tells the head of what is to be replaced from a lease.
func isHead(lease string) bool { return strings.HasSuffix(lease, "\n") }

// epochOf is the partition's epoch when something was found.
func epochOf(lease string) string {
	if isHead(lease) {
		epoch, _, _ := strings.Cut(lease[1:], " ")
		return epoch
	}
	return lease[strings.LastIndexByte(lease, '.')+1:]
}

// clean reads a value.
func clean(value string, now time.Time) (*Found, error) {
	head, text, ok := strings.Cut(value, "\n")
	_, times, ok2 := strings.Cut(head, " ")
	stored, times, ok3 := strings.Cut(times, " ")
	ends, _, ok4 := strings.Cut(times, " ")
	since, err := strconv.ParseInt(stored, 10, 64)
	until, err2 := strconv.ParseInt(ends, 10, 64)
	if !ok || !ok2 || !ok3 || !ok4 || err != nil || err2 != nil {
		return nil, table.ErrCorruptFrame
	}
	columns, line, _ := bytes.Cut([]byte(text), []byte{'\n'})
	return &Found{
		Source: Clean, Columns: columns, Line: line, Stored: time.UnixMilli(since), TTL: time.UnixMilli(until).Sub(now),
		Lease: value[:len(head)+1],
	}, nil
}
