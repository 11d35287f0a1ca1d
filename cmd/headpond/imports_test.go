package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	repository = "../.." // seen from here
	ourModule  = "github.com/headpond/headpond"
)

// room is a line of the table "Rooms" in ARCHITECTURE.md. What is not listed
// may not be imported; a package that is no room fails the test.
type room struct {
	speaksTo string   // "", HTTP, Redis or PostgreSQL
	knows    []string // packages of ours
	spans    bool     // it names spans; what becomes of them only cmd/headpond knows
}

// spanNames are the packages of OpenTelemetry that name things, without an SDK.
var spanNames = []string{
	"go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes", "go.opentelemetry.io/otel/propagation",
	"go.opentelemetry.io/otel/semconv/", "go.opentelemetry.io/otel/trace",
}

var rooms = map[string]room{
	"api":              {"HTTP", []string{"api/dashboard", "buffer", "buffer/table"}, true},
	"api/dashboard":    {"HTTP", nil, false},
	"api/client":       {"HTTP", nil, false},
	"buffer":           {"Redis", []string{"buffer/table"}, true},
	"buffer/table":     {},
	"flusher":          {"", []string{"buffer", "buffer/table"}, true},
	"flusher/postgres": {"PostgreSQL", []string{"buffer", "buffer/table", "flusher"}, false},
	"migrations":       {"PostgreSQL", nil, false},
}

// technologies by the beginning of an import path.
var technologies = map[string]string{
	"net/http":                      "HTTP",
	"github.com/labstack/":          "HTTP",
	"github.com/redis/":             "Redis",
	"github.com/jackc/":             "PostgreSQL",
	"database/sql":                  "PostgreSQL",
	"github.com/pressly/goose":      "PostgreSQL",
	"github.com/exaring/otelpgx":    "PostgreSQL",
	"github.com/prometheus/":        "telemetry",
	"go.opentelemetry.io/":          "telemetry",
	"google.golang.org/":            "telemetry",
	"github.com/urfave/cli":         "command line",
	"github.com/chromedp/":          "tests",
	"github.com/getkin/":            "tests",
	"github.com/santhosh-tekuri/":   "tests",
	"github.com/stretchr/testify":   "tests",
	"go.uber.org/goleak":            "tests",
	"pgregory.net/rapid":            "tests",
	"testing":                       "tests",
	ourModule + "/cmd/headpond/up/": "tests",
}

// pureNever is what the pure room may not import beside drivers.
var pureNever = []string{"net", "os", "io/fs", "log", "log/slog", "math/rand"}

func TestRoomsKeepToThemselves(t *testing.T) {
	seen := make(map[string]bool)
	for dir, imports := range importsByFolder(t) {
		if strings.HasPrefix(dir, "cmd/") {
			continue // sees every room
		}
		r, known := rooms[dir]
		if !known {
			t.Errorf("%s is no room: add it to the table in ARCHITECTURE.md and to this test, or put it into a room", dir)
			continue
		}
		seen[dir] = true
		for path, file := range imports {
			checkImport(t, dir, r, path, file)
		}
	}
	for dir := range rooms {
		require.True(t, seen[dir], "the room %s has no files", dir)
	}
}

func checkImport(t *testing.T, dir string, r room, path, file string) {
	t.Helper()
	if ours, is := strings.CutPrefix(path, ourModule+"/"); is {
		if !slices.Contains(r.knows, ours) {
			t.Errorf("%s imports %s: the room %s must not know it", file, ours, dir)
		}
		return
	}
	if slices.ContainsFunc(spanNames, func(name string) bool { return strings.HasPrefix(path, name) }) && r.spans {
		return
	}
	if tech := technologyOf(path); tech != "" && tech != r.speaksTo {
		t.Errorf("%s imports %s: the room %s speaks to %q and not to %s", file, path, dir, r.speaksTo, tech)
	}
	if dir == "api/client" && strings.Contains(strings.SplitN(path, "/", 2)[0], ".") {
		t.Errorf("%s imports %s: other teams import api/client, and it brings nothing but the standard library", file, path)
	}
	if dir == "buffer/table" && slices.Contains(pureNever, path) {
		t.Errorf("%s imports %s: buffer/table is pure", file, path)
	}
}

// The program carries no test library, and only tests import uptest.
func TestProgramIsWithoutTestLibraries(t *testing.T) {
	for dir, imports := range importsByFolder(t) {
		if dir == "cmd/headpond/up/uptest" {
			continue
		}
		for path, file := range imports {
			require.NotEqual(t, "tests", technologyOf(path), "%s imports %s", file, path)
		}
	}
}

func TestTopLevelFolders(t *testing.T) {
	allowed := []string{"cmd", "api", "buffer", "flusher", "migrations", "bin", ".ci", ".git", ".github"}
	entries, err := os.ReadDir(repository)
	require.NoError(t, err)
	for _, e := range entries {
		if e.IsDir() {
			require.Contains(t, allowed, e.Name(), "a top-level folder needs a reason in ARCHITECTURE.md")
		}
	}
}

func technologyOf(path string) (tech string) {
	longest := 0
	for prefix, name := range technologies {
		whole := path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
		if whole && len(prefix) > longest {
			tech, longest = name, len(prefix)
		}
	}
	return tech
}

// importsByFolder gives what the non-test files of each folder import, for all
// systems, each with a file that does.
func importsByFolder(t *testing.T) map[string]map[string]string {
	t.Helper()
	out := make(map[string]map[string]string)
	eachFile(t, func(path string) {
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(repository, path), nil, parser.ImportsOnly)
		require.NoError(t, err)
		dir := filepath.ToSlash(filepath.Dir(path))
		if out[dir] == nil {
			out[dir] = make(map[string]string)
		}
		for _, imp := range f.Imports {
			name, err := strconv.Unquote(imp.Path.Value)
			require.NoError(t, err)
			out[dir][name] = path
		}
	})
	require.NotEmpty(t, out)
	return out
}

// eachFile calls do with every file of the repository, relative to its root.
func eachFile(t *testing.T, do func(path string)) {
	t.Helper()
	err := filepath.WalkDir(repository, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(repository, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if slices.Contains([]string{".git", "bin", "testdata"}, e.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		do(filepath.ToSlash(rel))
		return nil
	})
	require.NoError(t, err)
}
