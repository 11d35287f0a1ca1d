package dashboard

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func get(h http.Handler, path, tag string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if tag != "" {
		r.Header.Set("If-None-Match", tag)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestHandler(t *testing.T) {
	t.Parallel()
	h := handler(fstest.MapFS{
		"index.html": {Data: []byte("<html>")}, "app.js": {Data: []byte("1")}, ".keep": {}, "secret.txt": {Data: []byte("s")},
	})
	for path, want := range map[string]int{
		"/dashboard": 200, "/dashboard/": 200, "/dashboard/app.js": 200, "/dashboard/none.js": 404, "/dashboard/.keep": 404,
		"/dashboard/secret.txt": 404, "/dashboard/../dashboard.go": 404, "/dashboard/%2e%2e/%2e%2e/etc/passwd": 404,
	} {
		r := get(h, path, "")
		require.Equal(t, want, r.StatusCode, path)
		require.Equal(t, policy, r.Header.Get("Content-Security-Policy"))
		require.NoError(t, r.Body.Close())
	}
	tag := get(h, "/dashboard/app.js", "").Header.Get("ETag")
	require.NotEmpty(t, tag)
	require.Equal(t, 304, get(h, "/dashboard/app.js", tag).StatusCode)
}

// TestMissingPage: a program without its page says so.
func TestMissingPage(t *testing.T) {
	t.Parallel()
	r := get(handler(fstest.MapFS{".keep": {}}), "/dashboard", "")
	require.Equal(t, 200, r.StatusCode)
	text := make([]byte, 1000)
	n, _ := r.Body.Read(text)
	require.Contains(t, string(text[:n]), "make build")
}

// TestNothingFromElsewhere: the page names nothing but its own files, and holds
// no code itself.
func TestNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	page, err := dist.ReadFile("dist/index.html")
	require.NoError(t, err, "the page is not built: make build (make test does it)")
	require.NotRegexp(t, regexp.MustCompile(`(src|href)="(https?:)?//`), string(page))
	require.NotRegexp(t, regexp.MustCompile(`(?i)<script[^>]*>[^<]|\son[a-z]+=|\sstyle=`), string(page))
	code, err := dist.ReadFile("dist/app.js")
	require.NoError(t, err)
	require.NotRegexp(t, regexp.MustCompile(`innerHTML\s*=[^=]|eval\(|new Function`), string(code))
}
