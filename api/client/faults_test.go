package client_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api/client"
)

// fault is what a proxy does to a request.
type fault int

const (
	none        fault = iota
	dropRequest       // the connection breaks before the server hears of it
	dropAnswer        // the connection breaks after the server answered
	cutAnswer         // … in the middle of the answer
	cutHeader         // … in the middle of its header
	busy              // 503 with Retry-After; the server hears of nothing
	gateway           // 502, after the server answered
	twice             // the server hears it twice, both times at once
	faults
)

var faultNames = [...]string{"none", "request dropped", "answer dropped", "answer cut", "header cut", "503", "502", "sent twice"}

// proxy stands between a client and the server, and harms about every third request.
type proxy struct {
	to   string
	http *http.Client
	web  *httptest.Server

	mu   sync.Mutex // guards the rest
	dice *rand.Rand
	last fault
	did  [faults]int
}

func newProxy(t testing.TB, seed uint64) *proxy {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	p := &proxy{to: address, http: &http.Client{Transport: transport}, dice: rand.New(rand.NewPCG(seed, 1))}
	p.web = httptest.NewServer(p)
	t.Cleanup(func() {
		p.web.Close()
		transport.CloseIdleConnections()
		for f, n := range p.did {
			t.Logf("%s: %d", faultNames[f], n)
		}
	})
	return p
}

func (p *proxy) choose() fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := none
	if p.dice.IntN(3) == 0 {
		p.last = p.last%(faults-1) + 1
		f = p.last
	}
	p.did[f]++
	return f
}

// worked checks that the proxy did harm of every kind: else nothing was tested.
func (p *proxy) worked(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for f, n := range p.did {
		require.Greater(t, n, 3, "too few for a test: %s", faultNames[f])
	}
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := p.choose()
	switch f {
	case dropRequest:
		p.hangUp(w, "")
		return
	case busy:
		w.Header().Set("Retry-After", "0")
		http.Error(w, "come back", http.StatusServiceUnavailable)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var other sync.WaitGroup
	if f == twice {
		other.Go(func() { _, _, _ = p.forward(r, body) })
	}
	header, text, err := p.forward(r, body)
	other.Wait()
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadGateway)
	case f == dropAnswer:
		p.hangUp(w, "")
	case f == cutHeader:
		p.hangUp(w, header[:len(header)/2])
	case f == cutAnswer:
		p.hangUp(w, header+text[:len(text)/2])
	case f == gateway:
		http.Error(w, "<h1>Bad Gateway</h1>", http.StatusBadGateway)
	default:
		p.hangUp(w, header+text)
	}
}

// forward gives the answer as it goes over the wire. Without a body it says one
// byte more than there is, so that cutting it is noticed.
func (p *proxy) forward(r *http.Request, body []byte) (header, text string, err error) {
	req, err := http.NewRequest(r.Method, p.to+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return "", "", err
	}
	req.Header = r.Header.Clone()
	resp, err := p.http.Do(req)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", "", err
	}
	resp.Header.Set("Content-Length", strconv.Itoa(len(answer)+2))
	resp.Header.Set("Connection", "close")
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %s\r\n", resp.Status)
	_ = resp.Header.Write(&b) // a Builder takes all
	return b.String() + "\r\n", string(answer) + "\n\n", nil
}

// hangUp writes bytes as they are and closes the connection.
func (p *proxy) hangUp(w http.ResponseWriter, bytes string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(conn, bytes)
	_ = conn.Close()
}

// TestOnceThroughFaults: whatever the network does to requests and answers, each
// write is accepted, and counts once.
func TestOnceThroughFaults(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := newProxy(t, 1)
	c, direct := dial(t, p.web.URL), dial(t, address)
	tbl, log := pond.tableWith(t, counterColumns, true, 0), pond.table(t, "v int")
	const workers, each = 8, 12
	var wg sync.WaitGroup
	for n := range workers {
		wg.Go(func() {
			for i := range each {
				_, err := c.Increment(ctx, tbl, client.KeyOf(1), m{"n": 1, "sum": 0.25})
				assert.NoError(t, err)
				id := n*each + i
				_, err = c.Insert(ctx, log, m{"v": id}) // nothing but the Idempotency-Key tells its copies apart
				assert.NoError(t, err)
				if i%4 > 0 {
					continue
				}
				w, err := c.Bulk(ctx, []client.Operation{
					{client.OpIncrement, tbl, client.KeyOf(1), m{"n": 1}},
					{client.OpInsert, tbl, nil, counter{ID: int64(100 + id)}},
					{client.OpIncrement, tbl, client.KeyOf(2), m{"n": 1}},
				})
				if assert.NoError(t, err) {
					assert.Equal(t, 3, w.Accepted)
				}
				_, err = c.Delete(ctx, tbl, client.KeyOf(100+id))
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	p.worked(t)
	const all, bulks = workers * each, workers * each / 4
	var row counter
	_, err := direct.Get(ctx, tbl, client.KeyOf(1), &row)
	require.NoError(t, err)
	require.EqualValues(t, all+bulks, row.N)
	pond.release(tbl)
	require.NoError(t, direct.Flush(ctx, tbl, 30*time.Second))
	require.NoError(t, direct.Flush(ctx, log, 30*time.Second))
	require.Equal(t, fmt.Sprintf("1 %d %d.00,2 %d 0", all+bulks, all/4, bulks), // 0.25 each
		pond.text(t, "select string_agg(id || ' ' || n || ' ' || coalesce(sum, 0), ',' order by id) from "+tbl))
	require.Equal(t, fmt.Sprint(all, " ", all), pond.text(t, "select count(*) || ' ' || count(distinct v) from "+log))
}

// TestWriterThroughFaults: every row that was taken is in the table once, or was
// reported once.
func TestWriterThroughFaults(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := newProxy(t, 2)
	c := dial(t, p.web.URL)
	log := pond.table(t, "v int not null") // nothing but the Idempotency-Key tells copies apart
	const writers, each = 4, 1000
	var out rejected
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			w, err := c.NewWriter(log, client.WriterConfig{Rows: 40, Linger: time.Millisecond, Rejected: out.add})
			if !assert.NoError(t, err) {
				return
			}
			for i := range each {
				var row any = m{"v": n*each + i}
				if i%100 == 7 {
					row = m{"v": fmt.Sprint(n*each + i)} // a string is no number
				}
				assert.NoError(t, w.Write(ctx, row))
				if i%500 == 0 {
					assert.NoError(t, w.Flush(ctx))
				}
			}
			assert.NoError(t, w.Close(ctx))
		})
	}
	wg.Wait()
	p.worked(t)
	reported := make(map[string]int)
	for i, row := range out.rows {
		require.EqualValues(t, "type_mismatch", out.errs[i].Code)
		reported[fmt.Sprint(row)]++
	}
	require.Len(t, reported, writers*each/100)
	require.Len(t, out.rows, writers*each/100, "each once")
	require.NoError(t, dial(t, address).Flush(ctx, log, 30*time.Second))
	const good = writers * each * 99 / 100
	require.Equal(t, fmt.Sprint(good, " ", good), pond.text(t, "select count(*) || ' ' || count(distinct v) from "+log))
}
