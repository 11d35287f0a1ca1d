package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// benchRows is the data: rows whose COPY line has 150 bytes on average. The
// requests of one kind differ and are sent in turn.
type benchRows struct {
	single [][]byte // bodies of one row
	bulk   [][]byte // bodies of bulkSize rows, as NDJSON
	file   *os.File // the rows as COPY text, as \copy would read them
	rows   int
}

const (
	singleBodies = 256
	bulkBodies   = 16
	bulkSize     = 1000
)

func newBenchRows(rows int) (*benchRows, error) {
	r := &benchRows{rows: rows}
	source := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same rows in every run
	for range singleBodies {
		r.single = append(r.single, randomRow(source).json(nil))
	}
	for range bulkBodies {
		var body []byte
		for range bulkSize {
			body = append(randomRow(source).json(body), '\n')
		}
		r.bulk = append(r.bulk, body)
	}
	return r, r.write(source)
}

// write makes the file for COPY. It is kept out of the heap: a hundred
// megabytes there would all but switch off the collector for what is measured.
func (r *benchRows) write(source *rand.Rand) (err error) {
	if r.file, err = os.CreateTemp("", "headpond-bench-*.copy"); err != nil {
		return fmt.Errorf("write rows: %w", err)
	}
	w := bufio.NewWriterSize(r.file, 1<<20)
	var line []byte
	now := time.Now().UTC()
	for i := range r.rows {
		id, err := uuid.NewV7() // what Headpond makes too: kind to the index of Postgres
		if err != nil {
			return fmt.Errorf("write rows: %w", err)
		}
		line = append(append(line[:0], id.String()...), '\t')
		line = randomRow(source).copyText(line)
		line = append(line, '\t')
		line = now.Add(time.Duration(i)*time.Microsecond).AppendFormat(line, "2006-01-02 15:04:05.000000+00")
		if _, err := w.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("write rows: %w", err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write rows: %w", err)
	}
	return nil
}

func (r *benchRows) close() {
	if r.file != nil {
		_ = r.file.Close()
		_ = os.Remove(r.file.Name())
	}
}

// benchRow is one event, without the columns that are filled in by default.
type benchRow struct {
	user, cents, item, ms int64
	kind                  string
}

var benchKinds = []string{"page_view", "click", "purchase", "search", "signup"}

func randomRow(source *rand.Rand) benchRow {
	return benchRow{
		user: source.Int64N(1_000_000), cents: source.Int64N(100_000), item: source.Int64N(100_000), ms: source.Int64N(1000),
		kind: benchKinds[source.IntN(len(benchKinds))],
	}
}

func (r benchRow) amount(b []byte) []byte {
	return append(strconv.AppendInt(b, r.cents/100, 10), '.', byte('0'+r.cents/10%10), byte('0'+r.cents%10))
}

func (r benchRow) json(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"user_id":`...), r.user, 10)
	b = append(append(append(b, `,"kind":"`...), r.kind...), `","amount":`...)
	b = r.amount(b)
	b = strconv.AppendInt(append(b, `,"payload":{"page":"/item/`...), r.item, 10)
	b = strconv.AppendInt(append(b, `","ref":"newsletter","ms":`...), r.ms, 10)
	return append(b, `}}`...)
}

// copyText is the same row as PostgreSQL would print it.
func (r benchRow) copyText(b []byte) []byte {
	b = append(strconv.AppendInt(b, r.user, 10), '\t')
	b = append(append(b, r.kind...), '\t')
	b = append(r.amount(b), '\t')
	b = strconv.AppendInt(append(b, `{"ms": `...), r.ms, 10)
	b = append(b, `, "ref": "newsletter", "page": "/item/`...)
	return append(strconv.AppendInt(b, r.item, 10), `"}`...)
}

// posts makes whole requests for a table.
func posts(table, media string, bodies [][]byte) [][]byte {
	var out [][]byte
	for _, body := range bodies {
		out = append(out, fmt.Appendf(nil, "POST /v1/%s HTTP/1.1\r\nHost: bench\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
			table, media, len(body), body))
	}
	return out
}
