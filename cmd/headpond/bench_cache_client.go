package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgxpool"
)

// cacheClient is one connection of a client that keeps to a pattern. SQL goes
// through a pool that all clients share.
type cacheClient struct {
	*cachePattern

	pool  *pgxpool.Pool
	conn  *benchConn // nil for SQL alone
	table string
	out   []byte // the request
}

func (p *cachePattern) dial(ctx context.Context, addr string, pool *pgxpool.Pool) (*cacheClient, error) {
	c := &cacheClient{cachePattern: p, pool: pool, table: p.table()}
	if p.settings == "" {
		return c, nil
	}
	var err error
	c.conn, err = dialBench(ctx, addr)
	return c, err
}

func (c *cacheClient) close() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
}

// read gives the counter of a row, and whether it came from the cache.
func (c *cacheClient) read(ctx context.Context, key int64) (n int64, hit bool, err error) {
	switch c.reads {
	case readSQL:
		row, err := c.selectRow(ctx, key)
		return row.n, false, err
	case readAside:
		return c.readAside(ctx, key)
	default:
		a, err := c.ask("GET", "/v1/"+c.table, key, "", nil)
		if err != nil {
			return 0, false, err
		}
		if a.status != 200 {
			return 0, false, fmt.Errorf("GET %s/%d: %d %s", c.table, key, a.status, a.body)
		}
		n, err = counterOf(a.body)
		return n, isHit(a.head), err
	}
}

// readAside is what the documents teach: ask the cache; on a miss load the row
// and store it. The lease keeps an old row out that was read before a write.
func (c *cacheClient) readAside(ctx context.Context, key int64) (n int64, hit bool, err error) {
	a, err := c.ask("GET", "/v1/"+c.table, key, "Cache-Control: only-if-cached\r\n", nil)
	switch {
	case err != nil:
		return 0, false, err
	case a.status == 200:
		n, err = counterOf(a.body)
		return n, true, err
	case a.status != 504:
		return 0, false, fmt.Errorf("GET %s/%d only-if-cached: %d %s", c.table, key, a.status, a.body)
	}
	header := ""
	if lease := field(a.head, "Headpond-Lease"); lease != "" {
		header = "Headpond-Lease: " + lease + "\r\n"
	}
	row, err := c.selectRow(ctx, key)
	if err != nil {
		return 0, false, err
	}
	a, err = c.ask("PUT", "/admin/v1/cache/"+c.table, key, header, row.json(key))
	// A lease that is gone is no fault: somebody wrote the row meanwhile.
	if err == nil && a.status >= 300 && a.status != 409 && a.status != 412 {
		err = fmt.Errorf("PUT into the cache: %d %s", a.status, a.body)
	}
	return row.n, false, err
}

// write puts a counter into a row.
func (c *cacheClient) write(ctx context.Context, key, n int64) error {
	row := cacheRow{name: "customer number " + strconv.FormatInt(key, 10), n: n, payload: cachePayload(key)}
	if c.writes == writePut {
		return c.must("PUT", "/v1/"+c.table, key, row.json(key))
	}
	_, err := c.pool.Exec(ctx, "update "+c.table+" set name = $2, n = $3, payload = $4 where id = $1", key, row.name, row.n, row.payload)
	if err != nil {
		return fmt.Errorf("UPDATE: %w", err)
	}
	if c.writes == writeAside {
		return c.must("DELETE", "/admin/v1/cache/"+c.table, key, nil)
	}
	return nil
}

func (c *cacheClient) must(method, path string, key int64, body []byte) error {
	a, err := c.ask(method, path, key, "", body)
	if err == nil && a.status >= 300 {
		err = fmt.Errorf("%s %s/%d: %d %s", method, path, key, a.status, a.body)
	}
	return err
}

func (c *cacheClient) ask(method, path string, key int64, header string, body []byte) (benchHTTP, error) {
	c.out = fmt.Appendf(c.out[:0], "%s %s/%d HTTP/1.1\r\nHost: bench\r\n%s", method, path, key, header)
	if body != nil {
		c.out = fmt.Appendf(c.out, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	c.out = append(append(c.out, "\r\n"...), body...)
	return c.conn.exchange(c.out)
}

// cacheRow is a row without its key.
type cacheRow struct {
	name, payload string
	n             int64
}

func (c *cacheClient) selectRow(ctx context.Context, key int64) (row cacheRow, err error) {
	err = c.pool.QueryRow(ctx, "select name, n, payload::text from "+c.table+" where id = $1", key).Scan(&row.name, &row.n, &row.payload)
	if err != nil {
		err = fmt.Errorf("SELECT: %w", err)
	}
	return row, err
}

func (r *cacheRow) json(key int64) []byte {
	return fmt.Appendf(nil, `{"id":%d,"name":%q,"n":%d,"payload":%s}`, key, r.name, r.n, r.payload)
}

func cachePayload(key int64) string {
	return fmt.Sprintf(`{"page":"/item/%d","ref":"newsletter","note":%q}`, key, cacheNote)
}

var counterName = []byte(`"n":`)

// counterOf finds n, which stands before the payload, in a row.
func counterOf(body []byte) (int64, error) {
	_, after, found := bytes.Cut(body, counterName)
	end := bytes.IndexAny(after, ",}")
	if !found || end < 0 {
		return 0, fmt.Errorf("there is no n in %s", body)
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(after[:end])), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read n: %w", err)
	}
	return n, nil
}

// isHit reads Cache-Status (RFC 9211).
func isHit(head []byte) bool {
	return bytes.HasPrefix([]byte(field(head, "Cache-Status")), []byte("headpond; hit"))
}

// field of a head, as net/http writes its names.
func field(head []byte, name string) string {
	_, after, found := bytes.Cut(head, []byte("\r\n"+name+": "))
	if !found {
		return ""
	}
	value, _, _ := bytes.Cut(after, []byte("\r\n"))
	return string(value)
}
