package api

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/goccy/go-yaml"
	"github.com/labstack/echo/v4"
)

// openapiYAML says what the server does whatever tables it serves. It ends
// within components.schemas, so that the tables' schemas can follow.
//
//go:embed openapi.yaml
var openapiYAML []byte

// openapiJSON is the same as JSON.
var openapiJSON = sync.OnceValues(func() ([]byte, error) { return yaml.YAMLToJSON(openapiYAML) })

//go:embed docs.html docs.css docs.js
var docsFiles embed.FS

// openapi serves the OpenAPI document of the catalog as it is now. It is made
// once for each catalog that somebody asks about.
type openapi struct {
	tables *atomic.Pointer[catalog]
	mu     sync.Mutex // guards last
	last   *openapiDocument
}

type openapiDocument struct {
	of         *catalog
	json, yaml []byte
	tag        string
}

func (o *openapi) getJSON(c echo.Context) error {
	d, err := o.document()
	if err != nil {
		return err
	}
	return d.serve(c, echo.MIMEApplicationJSON, d.json)
}

func (o *openapi) getYAML(c echo.Context) error {
	d, err := o.document()
	if err != nil {
		return err
	}
	return d.serve(c, "application/yaml", d.yaml) // RFC 9512
}

func (d *openapiDocument) serve(c echo.Context, kind string, body []byte) error {
	h := c.Response().Header()
	h.Set("ETag", d.tag)
	h.Set("Cache-Control", "no-cache")
	if matches(c.Request().Header.Values("If-None-Match"), d.tag) {
		return c.NoContent(http.StatusNotModified)
	}
	return c.Blob(http.StatusOK, kind, body)
}

// document is that of the present catalog.
func (o *openapi) document() (*openapiDocument, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if tables := o.tables.Load(); o.last == nil || o.last.of != tables {
		d, err := newDocument(tables)
		if err != nil {
			return nil, fmt.Errorf("make OpenAPI document: %w", err)
		}
		o.last = d
	}
	return o.last, nil
}

// newDocument adds the tables' schemas to the static part: as members of the
// JSON, and as lines of the YAML, which takes JSON for a value.
func newDocument(tables *catalog) (*openapiDocument, error) {
	added := make(map[string]*schema)
	if tables != nil {
		for name, sv := range *tables {
			if sv.Table.Unusable == "" {
				tableSchemas(added, name, sv.Table)
			}
		}
	}
	static, err := openapiJSON()
	if err != nil {
		return nil, err
	}
	var whole, components, schemas map[string]json.RawMessage
	if err := json.Unmarshal(static, &whole); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(whole["components"], &components); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(components["schemas"], &schemas); err != nil {
		return nil, err
	}
	text := bytes.NewBuffer(bytes.Clone(openapiYAML))
	for _, name := range sortedKeys(added) {
		if schemas[name], err = json.Marshal(added[name]); err != nil {
			return nil, err
		}
		fmt.Fprintf(text, "    %s: %s\n", name, schemas[name])
	}
	if components["schemas"], err = json.Marshal(schemas); err != nil {
		return nil, err
	}
	if whole["components"], err = json.Marshal(components); err != nil {
		return nil, err
	}
	body, err := json.Marshal(whole)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return &openapiDocument{of: tables, json: body, yaml: text.Bytes(), tag: `"` + hex.EncodeToString(sum[:12]) + `"`}, nil
}

// docsPolicy lets the page load files of this server and nothing else.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// getDocs is GET /docs and the files that the page needs.
func getDocs(c echo.Context) error {
	file, kind := "docs.html", "text/html; charset=utf-8"
	switch {
	case strings.HasSuffix(c.Path(), ".css"):
		file, kind = "docs.css", "text/css; charset=utf-8"
	case strings.HasSuffix(c.Path(), ".js"):
		file, kind = "docs.js", "text/javascript; charset=utf-8"
	}
	body, err := docsFiles.ReadFile(file)
	if err != nil {
		return err
	}
	h := c.Response().Header()
	h.Set("Content-Security-Policy", docsPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache")
	return c.Blob(http.StatusOK, kind, body)
}
