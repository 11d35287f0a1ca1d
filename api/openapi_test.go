package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/goccy/go-yaml"
	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
)

// described has a column of every family, names that OpenAPI does not take, and
// tables that are no row's.
const described = `
create type mood as enum ('sad', 'so "so"');
create type spot as (x int, label text);
create domain price as numeric(6,2) check (value >= 0);
create table "a-b ü/~%" (
	"k/~1" bigint generated always as identity, "ü" uuid default gen_random_uuid(),
	n numeric(12,2) not null, v varchar(5), e mood not null, es mood[], at timestamptz default now(), d date not null default '2026-01-01',
	j jsonb, b bytea, s spot, p price not null, i inet, f float8, ok boolean, g text generated always as (v || '!') stored,
	primary key ("k/~1", "ü"));
create table id (id uuid primary key);
create table keyless (t text not null);
create view looks as select 1 as x`

func TestOpenAPIIsValid(t *testing.T) {
	t.Parallel()
	s := setup(t, described)
	for _, path := range []string{"/openapi.json", "/openapi.yaml"} {
		doc, err := openapi3.NewLoader().LoadFromData(s.get(path).body)
		require.NoError(t, err, path)
		require.True(t, doc.IsOpenAPI31OrLater())
		require.NoError(t, doc.Validate(t.Context()), path)
	}
}

// TestOpenAPIFormsAgree: the YAML is the JSON, the answer names its version,
// and it follows the catalog.
func TestOpenAPIFormsAgree(t *testing.T) {
	t.Parallel()
	s := setup(t, described)
	first := s.get("/openapi.json")
	var fromYAML any
	require.NoError(t, yaml.Unmarshal(s.get("/openapi.yaml").body, &fromYAML))
	again, err := json.Marshal(fromYAML)
	require.NoError(t, err)
	require.JSONEq(t, string(first.body), string(again))

	tag := first.header.Get("ETag")
	for _, path := range []string{"/openapi.json", "/openapi.yaml"} {
		require.Equal(t, http.StatusNotModified, s.get(path, "If-None-Match", tag).status)
	}
	s.refresh()
	require.Equal(t, http.StatusNotModified, s.get("/openapi.json", "If-None-Match", tag).status, "the catalog is the same")
	s.exec(`alter table keyless add column more int`)
	s.refresh()
	now := s.get("/openapi.json", "If-None-Match", tag)
	require.Equal(t, http.StatusOK, now.status)
	require.Contains(t, string(now.body), `"more":{"type":["integer","null"]`)
}

func TestOpenAPITables(t *testing.T) {
	t.Parallel()
	s := setup(t, described)
	var doc struct {
		Components struct{ Schemas map[string]json.RawMessage }
	}
	s.get("/openapi.json").into(t, &doc)
	of := func(prefix, name string) string {
		require.Contains(t, doc.Components.Schemas, prefix+"."+s.schema+"."+name)
		return strings.ReplaceAll(string(doc.Components.Schemas[prefix+"."+s.schema+"."+name]), s.schema+".", "")
	}
	require.JSONEq(t, `{"title":"A row of id","x-table":"id","x-key":["id"],"type":["object"],"additionalProperties":false,"required":["id"],
		"properties":{"id":{"type":["string"],"format":"uuid","x-type":"uuid","x-not-null":true}}}`, of("row", "id"))
	require.JSONEq(t, `{"title":"A new row of id","x-table":"id","$ref":"#/components/schemas/change.id"}`, of("insert", "id"), "its key is made")
	require.JSONEq(t, `{"title":"A new row of keyless","x-table":"keyless","$ref":"#/components/schemas/change.keyless","required":["t"]}`, of("insert", "keyless"))
	name := "a-2db-20-c3-bc-2f-7e-25"
	require.Contains(t, of("row", name), `"k/~1":{"type":["integer"],"format":"int64","readOnly":true,"x-type":"bigint","x-not-null":true,"x-default":"identity"}`)
	require.Contains(t, of("row", name), `"e":{"type":["string"],"enum":["sad","so \"so\""],"x-type":"mood","x-not-null":true}`)
	require.NotContains(t, of("change", name), `"k/~1"`)
	require.NotContains(t, of("change", name), `"g":`)
	require.Contains(t, of("insert", name), `"required":["n","e","p"]`)
	require.NotContains(t, doc.Components.Schemas, "row."+s.schema+".looks")

	// Rows of such a table keep to it: see conforms.
	path := "/v1/" + s.schema + ".a-b%20%C3%BC%2F~%25"
	a := s.do("POST", path, `{"n":"1.5","e":"sad","p":2,"es":[["sad"],["sad"]],"j":[1],"s":{"x":1},"i":"10.0.0.1","f":"NaN","v":"ab   "}`, "Prefer", "return=representation")
	require.Equal(t, 202, a.status, string(a.body))
	require.Equal(t, 200, s.get(a.location(t)).status)
}

// TestOpenAPIBeforeTheCatalogIsRead: what is true of all tables is known.
func TestOpenAPIBeforeTheCatalogIsRead(t *testing.T) {
	t.Parallel()
	s, err := api.New(api.Limits{}, api.Deps{Log: quiet})
	require.NoError(t, err)
	document, err := specOf(s.Handler())
	require.NoError(t, err)
	require.NotEmpty(t, document.root("paths").node)
}

// TestOpenAPIHasEveryRoute, and no other.
func TestOpenAPIHasEveryRoute(t *testing.T) {
	t.Parallel()
	s, err := api.New(api.Limits{}, api.Deps{Log: quiet, Metrics: http.NotFoundHandler()})
	require.NoError(t, err)
	document, err := specOf(s.Handler())
	require.NoError(t, err)
	var served, written []string
	param := regexp.MustCompile(`:(\w+)`)
	for _, r := range s.Handler().(*echo.Echo).Routes() { //nolint:forcetypeassert // it is
		refused := strings.HasSuffix(r.Name, ".readOnly") // answers 405
		if !refused && !strings.HasPrefix(r.Path, "/docs/") && !strings.HasPrefix(r.Path, "/dashboard/") && !strings.HasSuffix(r.Path, "/") {
			served = append(served, r.Method+" "+param.ReplaceAllString(r.Path, "{$1}"))
		}
	}
	for path := range document.root("paths").node {
		for member := range document.root("paths", path).node {
			if member != "parameters" {
				written = append(written, strings.ToUpper(member)+" "+path)
			}
		}
	}
	slices.Sort(served)
	slices.Sort(written)
	require.Equal(t, served, written)
}

// codesInSource are the ways in which the code writes a code down.
var codesInSource = regexp.MustCompile(`(?m)^\s*code\w+\s+(?:code )?= "(\w+)"|(?:refuse|fault|code)\("(\w+)"|Code: "([a-z]\w+)"|rowFault\{[^"{}]*"([a-z_]+)"|^\t"[0-9A-Z]{5}": "(\w+)"`)

// TestOpenAPIHasEveryCode: the closed list of codes is what the code says, and
// each stands at its status.
func TestOpenAPIHasEveryCode(t *testing.T) {
	t.Parallel()
	found := make(map[string]bool)
	for _, dir := range []string{".", "../buffer/table", "../flusher/postgres"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, m := range codesInSource.FindAllStringSubmatch(string(text), -1) {
				found[strings.Join(m[1:], "")] = true
			}
		}
	}
	delete(found, "pending") // of an item alone

	s, err := api.New(api.Limits{}, api.Deps{Log: quiet})
	require.NoError(t, err)
	document, err := specOf(s.Handler())
	require.NoError(t, err)
	closed := document.root("components", "schemas", "Code").node["enum"]
	require.ElementsMatch(t, slices.Sorted(maps.Keys(found)), closed)

	var all []any
	for name := range document.root("components", "responses").node {
		of := document.root("components", "responses", name, "content", "application/problem+json", "schema", "properties")
		if of.node == nil {
			continue
		}
		status, err := document.at(of, "status").node["const"].(json.Number).Int64()
		require.NoError(t, err)
		codes, _ := document.at(of, "code").node["enum"].([]any)
		for _, c := range codes {
			require.EqualValues(t, status, api.StatusOfCode(c.(string)), c)
		}
		all = append(all, codes...)
	}
	require.ElementsMatch(t, closed, all, "each code has one status")
}

// TestOpenAPITellsEveryCode: the table of codes has each once, with its status
// and what it means.
func TestOpenAPITellsEveryCode(t *testing.T) {
	t.Parallel()
	s, err := api.New(api.Limits{}, api.Deps{Log: quiet})
	require.NoError(t, err)
	document, err := specOf(s.Handler())
	require.NoError(t, err)
	code := document.root("components", "schemas", "Code").node
	var told []any
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\d+) \\| .+\\. \\|$").FindAllStringSubmatch(code["description"].(string), -1) {
		require.Equal(t, fmt.Sprint(api.StatusOfCode(m[1])), m[2], m[1])
		told = append(told, m[1])
	}
	require.Equal(t, code["enum"], told, "in one order")
}

// TestDocsPage: it runs under a policy that lets nothing in, and what it shows
// cannot become markup.
func TestDocsPage(t *testing.T) {
	t.Parallel()
	s := setup(t, described)
	page := s.get("/docs")
	require.Equal(t, "text/html; charset=utf-8", page.header.Get("Content-Type"))
	for _, part := range []string{"default-src 'none'", "script-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"} {
		require.Contains(t, page.header.Get("Content-Security-Policy"), part)
	}
	html := string(page.body)
	require.NotRegexp(t, `(?i)<style|\son\w+=|\sstyle=|javascript:|https?://|<script[^>]*>[^<]`, html)
	for _, need := range []string{`<html lang="en">`, `name="viewport"`, "<title>", "<h1>", "<main>", "<noscript>", `role="status"`} {
		require.Contains(t, html, need)
	}
	size := strings.Count(html, "\n")
	for _, m := range regexp.MustCompile(`(?:href|src)="(docs/[\w.]+)"`).FindAllStringSubmatch(html, -1) {
		r, err := s.client.Get(s.url + "/" + m[1])
		require.NoError(t, err)
		require.NoError(t, r.Body.Close())
		require.Equal(t, 200, r.StatusCode, m[1])
		require.Equal(t, "nosniff", r.Header.Get("X-Content-Type-Options"))
		text, err := os.ReadFile(filepath.Base(m[1]))
		require.NoError(t, err)
		require.NotRegexp(t, `(?i)innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|\bFunction\(|DOMParser|@import|(?-i:\burl\()`, string(text), m[1])
		size += strings.Count(string(text), "\n")
	}
	require.Less(t, size, 400)
	script, err := os.ReadFile("docs.js")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`byID\("([\w-]+)"\)`).FindAllStringSubmatch(string(script), -1) {
		require.Contains(t, html, `id="`+m[1]+`"`)
	}
}
