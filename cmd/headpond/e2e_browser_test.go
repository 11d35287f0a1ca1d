package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// browser is a tab of a headless Chromium. What its console says is a fault,
// unless it is expected.
type browser struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // of the tab

	mu   sync.Mutex // guards said
	said []string
}

// openBrowser starts a Chromium of the test's own. `make test` installs it.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	allocator, end := chromedp.NewExecAllocator(context.Background(), chromedp.NoSandbox, chromedp.Headless, chromedp.DisableGPU)
	t.Cleanup(end)
	ctx, closeTab := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx)
		closeTab()
	})
	b := &browser{t: t, ctx: ctx}
	require.NoError(t, chromedp.Do(ctx, chromedp.EmulateViewport(1300, 1000))) // the first step starts it, and it ends with its context
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			b.mu.Lock()
			b.said = append(b.said, fmt.Sprintf("%s: %s", m.Type, m.Text))
			b.mu.Unlock()
		}
	}()
	return b
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	require.NoError(b.t, chromedp.Do(ctx, steps...))
}

// eval gives what an expression is, as text; a promise is waited for.
func (b *browser) eval(script string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	got, err := chromedp.Run(ctx, chromedp.Evaluate[string]("(async () => String(await ("+script+")))()", chromedp.EvalAwaitPromise))
	require.NoError(b.t, err, script)
	return got
}

// text of an element.
func (b *browser) text(selector string) string {
	b.t.Helper()
	return b.eval("document.querySelector(" + jsText(selector) + ")?.innerText ?? ''")
}

func jsText(s string) string {
	text, _ := json.Marshal(s) //nolint:errchkjson // a string
	return string(text)
}

// shows waits until an element has a text.
func (b *browser) shows(selector, text string) {
	b.t.Helper()
	await(b.t, selector+" to show "+text, func() bool { return strings.Contains(b.text(selector), text) })
}

// press the button with these words in an element.
func (b *browser) press(selector, words string) {
	b.t.Helper()
	find := fmt.Sprintf("[...document.querySelectorAll(%s)].find((e) => e.innerText.trim() === %s)", jsText(selector+" button"), jsText(words))
	await(b.t, "a button "+words, func() bool { return b.eval(find+" !== undefined") == "true" })
	b.eval(find + ".click()")
}

// theme of the browser: light or dark.
func (b *browser) theme(name string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	})
	require.NoError(b.t, err)
}

// silent checks that the console said nothing: no error, and nothing that the
// page's policy refused.
func (b *browser) silent() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(b.t, b.said)
}

// forget what the console said.
func (b *browser) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = nil
}

// accessible runs axe over the page: https://github.com/dequelabs/axe-core
func (b *browser) accessible(what string) {
	b.t.Helper()
	axe, err := os.ReadFile("../../api/dashboard/node_modules/axe-core/axe.min.js")
	require.NoError(b.t, err, "npm ci in api/dashboard brings it: make test does that")
	b.do(chromedp.Evaluate[chromedp.Void](string(axe) + "; undefined"))
	found := b.eval(`axe.run(document, {resultTypes: ['violations']}).then((r) => JSON.stringify(r.violations
		.filter((v) => ['serious', 'critical'].includes(v.impact))
		.map((v) => [v.id, v.nodes.map((n) => n.target.join(' ') + ': ' + n.failureSummary)])))`)
	require.Equal(b.t, "[]", found, what)
}

func (b *browser) picture(file string) {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	require.NoError(b.t, err)
	require.NoError(b.t, os.WriteFile(file, png, 0o644)) //nolint:gosec // a picture
}
