// Package dashboard is the page at /dashboard.
//
// Job: show how far behind Headpond is, and let an operator act.
// Takes / gives: GET requests; the page, which asks the API for everything else.
// Never: reads or writes anything itself; what it shows any caller of the API can get.
//
// Invariants:
//
//  1. What the server says becomes text, never markup (TestDashboard).
//  2. Nothing is loaded from elsewhere, and nothing inline runs (TestNothingFromElsewhere).
//
// The page is built from src by npm (make build) into dist, and embedded. A program
// that was built without it says so on that page, and everything else works.
package dashboard

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

//go:embed all:dist
var dist embed.FS

// policy lets nothing in that is not ours. Source: https://www.w3.org/TR/CSP3/
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var types = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
}

const missing = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Headpond</title>
<h1>This program was built without its dashboard</h1>
<p>Everything else works. With Node.js and npm: <code>make build</code>. Meanwhile: <code>headpond status --watch</code>,
or <a href="/admin/v1/status">/admin/v1/status</a>.</p></html>
`

// Handler serves the page at /dashboard and what belongs to it below. Safe for
// concurrent use.
func Handler() http.Handler {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // it is embedded
	}
	return handler(files)
}

func handler(files fs.FS) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache") // asked for again each time, and not sent when it is the same
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/dashboard")
		if name = strings.TrimPrefix(name, "/"); name == "" {
			name = "index.html"
		}
		kind, known := types[path.Ext(name)]
		body, err := fs.ReadFile(files, name)
		switch {
		case name == "index.html" && err != nil:
			h.Set("Content-Type", types[".html"])
			_, _ = w.Write([]byte(missing))
			return
		case err != nil || !known:
			http.NotFound(w, r)
			return
		}
		sum := sha256.Sum256(body)
		tag := `"` + hex.EncodeToString(sum[:8]) + `"`
		h.Set("Content-Type", kind)
		h.Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(body)
	})
}

// Built reports whether the page is in this program.
func Built() bool {
	_, err := fs.Stat(dist, "dist/index.html")
	return err == nil
}
