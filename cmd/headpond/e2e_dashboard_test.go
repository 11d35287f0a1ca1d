package main_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

const hostile = `<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>`

// TestDashboard looks at the page in a browser while rows are written, and works
// with it as an operator does.
func TestDashboard(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	h := startUp(t, program, "--split", "--ephemeral")
	execute(t, h.database, `create table "<b>bold</b>" (id int primary key, v text)`)
	b := openBrowser(t)
	b.do(chromedp.Navigate(h.api + "/dashboard"))
	b.shows("#link", "live")
	b.shows("#tables", "<b>bold</b>")
	load := startLoad(t, h)

	// The figures move, and in the end are those of the status and of SQL.
	b.shows("#verdict", "OK")
	first := b.text("#ledger")
	await(t, "the ledger to move", func() bool { return b.text("#ledger") != first })
	await(t, "the charts to move", func() bool {
		return b.eval(`[...document.querySelectorAll('#charts canvas')].length >= 8 && [...document.querySelectorAll('#charts canvas')].every((c) => c.width > 100)`) == "true"
	})

	t.Run("the flusher is killed", func(t *testing.T) { killedOnThePage(t, h, b) })

	load()
	h.settled(t)
	l := h.status(t).Ledger
	comma := func(n int64) string { return b.eval(fmt.Sprintf("new Intl.NumberFormat('en').format(%d)", n)) }
	b.shows("#ledger", "accepted\n"+comma(l.Accepted))
	b.shows("#ledger", "pending\n0")
	b.shows("#ledger", "it closes")
	require.EqualValues(t, l.Committed, value[int64](t, h.database, `select sum(committed)::bigint from headpond.watermarks`))
	b.shows("#age", "0 ms")

	t.Run("a dead letter", func(t *testing.T) { replayedOnThePage(t, h, b) })
	t.Run("pause and resume", func(t *testing.T) {
		b.press("#tables tr:has([data-table=orders])", "Pause")
		b.press("#ask", "Pause")
		b.shows("#verdict", "Blocked")
		b.shows("#why", "paused")
		b.press("#tables tr:has([data-table=orders])", "Resume")
		b.shows("#verdict", "OK")
	})
	t.Run("look up", func(t *testing.T) {
		a := preferring(t, h, `{"customer":"ada","total":1}`)
		require.Equal(t, http.StatusCreated, a.code, "%s", a.body)
		require.Equal(t, http.StatusOK, h.get(t, "/v1/orders/"+a.field("key")).code) // so that it is cached
		b.eval(fmt.Sprintf(`(document.getElementById('row-table').value = 'orders', document.getElementById('row-key').value = %s, document.getElementById('row-form').requestSubmit())`, jsText(a.field("key"))))
		b.shows("#found", "Both are the same")
		b.shows("#found", `"customer": "ada"`)
		b.eval(fmt.Sprintf(`(document.getElementById('receipt').value = %s, document.getElementById('receipt-form').requestSubmit())`, jsText(a.field("receipt"))))
		b.shows("#found", "committed.")
		b.shows("#found .fall", "picked up")
		b.eval(`(document.getElementById('row-key').value = 'x/y?', document.getElementById('row-form').requestSubmit())`)
		b.shows("#said", "whole number")
	})
	require.Equal(t, "undefined", b.eval("typeof window.hacked"))
	b.forget() // the request that was refused on purpose
	t.Run("themes, widths, accessibility", func(t *testing.T) { looks(t, b) })
	b.silent()
	t.Run("the stream is lost", func(t *testing.T) { lostStream(t, h, b) })
}

// preferring sends an order and waits for Postgres.
func preferring(t *testing.T, h *headpond, body string) answer {
	t.Helper()
	q := sentRequest{method: http.MethodPost, path: "/v1/orders", body: body, header: map[string]string{"Content-Type": typeJSON, "Prefer": "wait=20"}}
	a, err := q.to(h)
	require.NoError(t, err)
	return a
}

// startLoad writes until it is told to stop.
func startLoad(t *testing.T, h *headpond) (stop func()) {
	t.Helper()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			body := strings.Repeat(fmt.Sprintf(`{"kind":"view","user_id":%d}`+"\n", i%100), 20)
			_, _ = request(http.MethodPost, h.api+"/v1/events", "application/x-ndjson", body)
			_, _ = request(http.MethodPost, h.api+"/v1/page_views/home/increment", typeJSON, `{"views":1}`)
			_, _ = request(http.MethodGet, h.api+"/v1/page_views/home", "", "")
			time.Sleep(5 * time.Millisecond) // or it is all that this machine does
		}
	}()
	return func() { close(done); <-ended }
}

// killedOnThePage: the button kills it; the page tells of it, marks it, and shows
// that it comes back.
func killedOnThePage(t *testing.T, h *headpond, b *browser) {
	t.Helper()
	b.eval(`(window.verdicts = new Set(), new MutationObserver(() => window.verdicts.add(document.getElementById('verdict').innerText)).observe(document.getElementById('verdict'), {childList: true, characterData: true, subtree: true}), 1)`)
	pid := h.status(t).Stack["flusher_pid"]
	kills := 0
	await(t, "a verdict that is not OK", func() bool { // the supervisor may be quicker than one second
		b.press("header", "Kill the flusher")
		b.press("#ask", "Kill")
		kills++
		await(t, "another flusher", func() bool { now := h.status(t).Stack["flusher_pid"]; return now != 0 && now != pid })
		pid = h.status(t).Stack["flusher_pid"]
		return b.eval("[...window.verdicts].some((v) => /Stalled|Behind|Blocked/.test(v))") == "true"
	})
	b.shows("#events", "flusher killed")
	b.shows("#verdict", "OK")
	require.NotZero(t, kills)
}

// replayedOnThePage: a hostile row that Postgres refuses shows as text; once the
// rule is dropped, a click brings it in, once.
func replayedOnThePage(t *testing.T, h *headpond, b *browser) {
	t.Helper()
	a := preferring(t, h, fmt.Sprintf(`{"customer":%s,"total":-1}`, jsText(hostile)))
	require.Equal(t, http.StatusUnprocessableEntity, a.code, "%s", a.body)
	b.shows("#letters", "orders_total_check")
	b.eval("document.querySelector('#letters details').open = true")
	b.shows("#letters", "<img src=x onerror=")
	require.Equal(t, "0", b.eval("document.querySelectorAll('#letters img, #letters script, #tables b').length"))
	execute(t, h.database, `alter table orders drop constraint orders_total_check`)
	b.press("#letters", "Replay all")
	b.press("#ask", "Replay")
	b.shows("#letters", "None: Postgres took every row")
	require.EqualValues(t, 1, value[int64](t, h.database, `select count(*) from orders where total = -1`))
}

func looks(t *testing.T, b *browser) {
	t.Helper()
	backgrounds := make(map[string]string)
	for _, theme := range []string{"light", "dark"} {
		b.theme(theme)
		b.accessible(theme)
		backgrounds[theme] = b.eval("getComputedStyle(document.body).backgroundColor")
	}
	require.NotEqual(t, backgrounds["light"], backgrounds["dark"])
	require.Equal(t, "rgb(14, 19, 24)", backgrounds["dark"])
	b.do(chromedp.EmulateViewport(360, 780))
	require.Equal(t, "360", b.eval("document.documentElement.scrollWidth"), "nothing to scroll sideways on a phone")
	b.do(chromedp.EmulateViewport(1300, 1000))
	// Where the tab key stops there is a visible outline.
	b.eval("document.activeElement.blur()")
	b.do(chromedp.KeyEvent(kb.Tab))
	require.Equal(t, "BUTTON", b.eval("document.activeElement.tagName"))
	require.Equal(t, "solid", b.eval("getComputedStyle(document.activeElement).outlineStyle"))
}

// lostStream: the page says so, keeps what it has, and goes on.
func lostStream(t *testing.T, h *headpond, b *browser) {
	t.Helper()
	before := b.text("#ledger")
	require.NoError(t, syscall.Kill(h.pid(), syscall.SIGSTOP))
	resume := sync.OnceFunc(func() { _ = syscall.Kill(h.pid(), syscall.SIGCONT) })
	defer resume()
	b.shows("#link", "reconnecting")
	require.Equal(t, before, b.text("#ledger"))
	require.Equal(t, "true", b.eval("document.querySelector('main').classList.contains('stale')"))
	resume()
	b.shows("#link", "live")
}

// TestScreenshots takes the pictures of README: make screenshots.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("HEADPOND_SCREENSHOTS")
	if dir == "" {
		t.Skip("it writes pictures; make screenshots asks for them")
	}
	program := buildProgram(t)
	h := startUp(t, program, "--split", "--ephemeral")
	b := openBrowser(t)
	take := func(name string) {
		for _, theme := range []string{"light", "dark"} {
			b.theme(theme)
			b.eval("new Promise((done) => setTimeout(done, 300))")
			b.picture(filepath.Join(dir, name+"-"+theme+".png"))
		}
	}
	b.do(chromedp.Navigate(h.api + "/dashboard"))
	b.shows("#link", "live")
	b.eval(`document.querySelector('[data-span="60"]').click()`)
	b.eval("new Promise((done) => setTimeout(done, 5000))")
	take("rest")
	stop := startLoad(t, h)
	defer stop()
	b.eval("new Promise((done) => setTimeout(done, 30000))")
	take("load")
	for range 2 {
		b.press("header", "Kill the flusher")
		b.press("#ask", "Kill")
		b.eval("new Promise((done) => setTimeout(done, 7000))")
	}
	take("drill")
}

// TestDashboardOutage: while Redis or Postgres is away the page says so and keeps
// what it has; and it goes on by itself, among a hundred others that are open.
func TestDashboardOutage(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := startServers(t, program)
	execute(t, s.postgres.URL(), `create table t (id bigint generated always as identity primary key, v int)`)
	h := s.serve(t)
	h.serves(t, "t")
	write := func() answer {
		a, err := h.post("t", typeJSON, `{"v":1}`)
		require.NoError(t, err)
		return a
	}
	for range 10 {
		require.Equal(t, http.StatusAccepted, write().code)
	}
	h.settled(t)
	b := openBrowser(t)
	b.do(chromedp.Navigate(h.api + "/dashboard"))
	b.shows("#verdict", "OK")
	b.shows("#ledger", "10")
	ledger := b.text("#ledger")

	require.NoError(t, s.redis.Kill())
	b.shows("#verdict", "Blocked")
	b.shows("#why", "Redis")
	require.Contains(t, b.text("#link"), "live", "the API is there")
	require.Equal(t, ledger, b.text("#ledger"), "what is known stays")
	require.Equal(t, "true", b.eval(`[...document.querySelectorAll('#charts canvas')].length >= 8`))
	require.NoError(t, s.redis.Restart(t.Context()))
	b.shows("#verdict", "OK")

	require.NoError(t, s.postgres.Kill())
	b.shows("#verdict", "Blocked")
	b.shows("#why", "Postgres")
	require.Equal(t, http.StatusAccepted, write().code, "writes are accepted all the same")
	require.NoError(t, s.postgres.Restart(t.Context()))
	b.shows("#verdict", "OK")
	b.shows("#ledger", "11")

	ctx, end := context.WithCancel(t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer end()
	var points atomic.Int64
	for range 99 {
		others.Go(func() { followEvents(ctx, h.api, &points) })
	}
	await(t, "every page to be told", func() bool { return points.Load() >= 99*3 })
	require.Equal(t, http.StatusAccepted, write().code)
	b.shows("#ledger", "12")
	require.Contains(t, b.text("#link"), "live")
	b.forget() // the connections that were refused meanwhile
}

// followEvents counts the points that an open page is told.
func followEvents(ctx context.Context, api string, points *atomic.Int64) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, api+"/admin/v1/events", nil)
	if err != nil {
		return
	}
	one := &http.Client{Transport: &http.Transport{}}
	defer one.CloseIdleConnections()
	resp, err := one.Do(req)
	if err != nil {
		return
	}
	defer func() { _ = resp.Body.Close() }()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "event: point") {
			points.Add(1)
		}
	}
}
