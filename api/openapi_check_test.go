package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// Every answer that a test of this package gets through stack.try is held to
// the OpenAPI document of its server: the status, the headers, the body, and
// the request too when it was accepted.

// spec is an OpenAPI document that answers are held to. Safe for concurrent use.
type spec struct {
	doc map[string]any

	mu       sync.Mutex // guards what follows
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema // by JSON pointer
}

// specs are the documents that were seen, by their ETag.
var specs sync.Map

// specOf is the document that a server serves now.
func specOf(h http.Handler) (*spec, error) {
	r := httptest.NewRequest(http.MethodGet, "/openapi.json", nil)
	tag := headers{}
	h.ServeHTTP(tag, r)
	if known, ok := specs.Load(http.Header(tag).Get("ETag")); ok {
		return known.(*spec), nil //nolint:forcetypeassert // it holds nothing else
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	s, err := newSpec(w.Body.Bytes())
	if err == nil {
		specs.Store(w.Header().Get("ETag"), s)
	}
	return s, err
}

// headers is a response of which nothing else is kept.
type headers http.Header

func (h headers) Header() http.Header         { return http.Header(h) }
func (h headers) Write(p []byte) (int, error) { return len(p), nil }
func (h headers) WriteHeader(int)             {}

func newSpec(text []byte) (*spec, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	s := &spec{compiler: jsonschema.NewCompiler(), schemas: make(map[string]*jsonschema.Schema)}
	s.doc, _ = doc.(map[string]any)
	closeObjects(s.doc)
	return s, s.compiler.AddResource(specURL, s.doc)
}

const specURL = "https://headpond.example/openapi.json"

// closeObjects refuses members that a schema does not name: clients may meet
// new ones, but here they are mistakes.
func closeObjects(node any) {
	switch node := node.(type) {
	case map[string]any:
		_, closed := node["additionalProperties"]
		_, is := node["properties"].(map[string]any)
		if is && !closed && node["$ref"] == nil {
			node["additionalProperties"] = false
		}
		for _, child := range node {
			closeObjects(child)
		}
	case []any:
		for _, child := range node {
			closeObjects(child)
		}
	}
}

// place is a node of the document. The zero place is nothing.
type place struct {
	pointer string
	node    map[string]any
}

var escapes = strings.NewReplacer("~", "~0", "/", "~1") // of RFC 6901

// at goes down from a place by names, and follows references of what is not a
// schema.
func (s *spec) at(p place, names ...string) place {
	for _, name := range names {
		child, ok := p.node[name].(map[string]any)
		if !ok {
			return place{}
		}
		p = place{p.pointer + "/" + escapes.Replace(name), child}
		if ref, ok := child["$ref"].(string); ok && name != "schema" {
			p = s.at(place{"#", s.doc}, strings.Split(ref[2:], "/")...)
		}
	}
	return p
}

func (s *spec) root(names ...string) place { return s.at(place{"#", s.doc}, names...) }

// valid holds a value to the schema at a place. A place that is nothing takes
// all.
func (s *spec) valid(p place, value any) error {
	if p.node == nil {
		return nil
	}
	schema, err := s.compiled(p.pointer)
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

func (s *spec) compiled(pointer string) (*jsonschema.Schema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.schemas[pointer]; known != nil {
		return known, nil
	}
	schema, err := s.compiler.Compile(specURL + strings.ReplaceAll(pointer, "%", "%25"))
	if err == nil {
		s.schemas[pointer] = schema
	}
	return schema, err
}

// operation finds what the document says of a request, and the path's
// parameters. Words that have a meaning win over parameters.
func (s *spec) operation(method, escapedPath string) (op place, path map[string]string) {
	sent := strings.Split(escapedPath, "/")
	best := ""
	for template, item := range s.root("paths").node {
		if methods, _ := item.(map[string]any); methods[strings.ToLower(method)] == nil {
			continue
		}
		if params, ok := matchPath(template, sent); ok && (best == "" || strings.Count(template, "{") < strings.Count(best, "{")) {
			best, path = template, params
		}
	}
	return s.root("paths", best, strings.ToLower(method)), path
}

func matchPath(template string, sent []string) (map[string]string, bool) {
	parts := strings.Split(template, "/")
	if len(parts) != len(sent) {
		return nil, false
	}
	params := make(map[string]string)
	for i, part := range parts {
		if strings.HasPrefix(part, "{") {
			params[part] = sent[i]
		} else if part != sent[i] {
			return nil, false
		}
	}
	return params, true
}

// mostChecked bounds the work: a longer body is like its beginning.
const mostChecked = 64 << 10

// check holds an exchange to the document. sent is the request's body, nil when
// it is not known.
func (s *spec) check(r *http.Request, sent []byte, a *answer) error {
	if r.Method == http.MethodOptions {
		return nil // Echo's own
	}
	op, path := s.operation(r.Method, r.URL.EscapedPath())
	if op.node == nil || a.status == http.StatusMethodNotAllowed {
		return s.checkElsewhere(r, a)
	}
	answered := s.at(op, "responses", fmt.Sprint(a.status))
	if answered.node == nil {
		return fmt.Errorf("the status %d is not in the document", a.status)
	}
	if err := s.checkHeaders(answered, a.header); err != nil {
		return err
	}
	if err := s.checkBody(answered, r, a); err != nil {
		return err
	}
	if a.status >= http.StatusMultipleChoices {
		return nil
	}
	id, _ := op.node["operationId"].(string)
	return errors.Join(s.checkRequest(op, r, sent), s.checkRows(id, r, sent, a, s.tableOf(path)))
}

// checkElsewhere: no operation is at this path, or none of this method.
func (s *spec) checkElsewhere(r *http.Request, a *answer) error {
	name := map[int]string{http.StatusNotFound: "NotFound", http.StatusMethodNotAllowed: "MethodNotAllowed"}[a.status]
	answered := s.root("components", "responses", name)
	if answered.node == nil {
		return fmt.Errorf("status %d: the operation is not in the document", a.status)
	}
	return errors.Join(s.checkHeaders(answered, a.header), s.checkBody(answered, r, a))
}

// carried are headers that HTTP itself makes.
var carried = []string{"Connection", "Content-Length", "Content-Type", "Date", "Transfer-Encoding"}

func (s *spec) checkHeaders(answered place, h http.Header) error {
	named := s.at(answered, "headers").node
	for name := range named {
		header := s.at(answered, "headers", name)
		if required, _ := header.node["required"].(bool); required && h.Get(name) == "" {
			return fmt.Errorf("the header %s is missing", name)
		}
		for _, value := range h.Values(name) {
			if err := s.valid(s.at(header, "schema"), value); err != nil {
				return fmt.Errorf("the header %s: %w", name, err)
			}
		}
	}
	known := slices.Concat(slices.Collect(maps.Keys(named)), carried)
	for name := range h {
		if !slices.ContainsFunc(known, func(k string) bool { return http.CanonicalHeaderKey(k) == name }) {
			return fmt.Errorf("the header %s is not in the document", name)
		}
	}
	return nil
}

func (s *spec) checkBody(answered place, r *http.Request, a *answer) error {
	content := s.at(answered, "content")
	minimal := strings.Contains(a.header.Get("Preference-Applied"), "return=minimal")
	switch {
	case len(a.body) == 0 && (content.node == nil || minimal || r.Method == http.MethodHead):
		return nil
	case content.node == nil || r.Method == http.MethodHead:
		return fmt.Errorf("a body is not in the document: %s", a.body)
	}
	kind, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil {
		return fmt.Errorf("the media type: %w", err)
	}
	media := s.at(content, kind)
	if media.node == nil {
		return fmt.Errorf("the media type %s is not in the document", kind)
	}
	if !strings.HasSuffix(kind, "json") || len(a.body) > mostChecked {
		return nil
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(a.body))
	if err != nil {
		return fmt.Errorf("the body: %w", err)
	}
	return s.valid(s.at(media, "schema"), value)
}

// checkRequest holds a request that was accepted to the document.
func (s *spec) checkRequest(op place, r *http.Request, sent []byte) error {
	given := make(map[string][]string) // by where and name
	for name, values := range r.Header {
		given["header "+name] = values
	}
	for name, values := range r.URL.Query() {
		given["query "+name] = values
	}
	delete(given, "header Content-Type")
	delete(given, "header Accept") // as OpenAPI has it: content types are told with the answers
	for _, p := range s.parameters(op) {
		name, _ := p.node["name"].(string)
		if name == "filters" { // any other name
			maps.DeleteFunc(given, func(id string, _ []string) bool { return strings.HasPrefix(id, "query ") })
		}
		id := fmt.Sprint(p.node["in"], " ", name)
		for _, value := range given[id] {
			if err := s.valid(s.at(p, "schema"), value); err != nil {
				return fmt.Errorf("the parameter %s: %w", name, err)
			}
		}
		delete(given, id)
	}
	if len(given) > 0 {
		return fmt.Errorf("these parameters are not in the document: %v", given)
	}
	content := s.at(op, "requestBody", "content")
	required, _ := s.at(op, "requestBody").node["required"].(bool)
	if content.node == nil || r.Header.Get("Content-Encoding") != "" || !required && len(sent) == 0 {
		return nil
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	media := s.at(content, kind)
	if media.node == nil {
		return fmt.Errorf("the media type %s of the request is not in the document", kind)
	}
	if kind != "application/json" || sent == nil || len(sent) > mostChecked {
		return nil
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(sent))
	if err != nil {
		return err
	}
	return s.valid(s.at(media, "schema"), value)
}

// parameters of an operation and of its path.
func (s *spec) parameters(op place) (out []place) {
	up := s.root("paths")
	for path := range up.node {
		if p := s.at(up, path); strings.HasPrefix(op.pointer, p.pointer+"/") && !strings.Contains(op.pointer[len(p.pointer)+1:], "/") {
			out = append(out, s.list(p.node["parameters"])...)
		}
	}
	return append(out, s.list(op.node["parameters"])...)
}

func (s *spec) list(refs any) (out []place) {
	all, _ := refs.([]any)
	for i := range all {
		out = append(out, s.at(place{"", map[string]any{"it": all[i]}}, "it"))
	}
	return out
}

// tableOf gives the schemas of the table that a path names, by their prefix.
func (s *spec) tableOf(path map[string]string) map[string]place {
	named, _ := url.PathUnescape(path["{table}"])
	out := make(map[string]place)
	for name, schema := range s.root("components", "schemas").node {
		node, _ := schema.(map[string]any)
		if table, ok := node["x-table"].(string); ok && table == named {
			prefix, _, _ := strings.Cut(name, ".")
			out[prefix] = place{"#/components/schemas/" + name, node}
		}
	}
	return out
}

// checkRows holds rows to what the document says of their table.
func (s *spec) checkRows(op string, r *http.Request, sent []byte, a *answer, table map[string]place) error {
	which, read := "", false
	switch op {
	case "insertRows":
		which = "insert"
	case "putRow", "patchRow", "incrementRow":
		which = "change"
	case "getRow", "listRows":
		read = r.URL.Query().Get("select") == ""
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if a.status != http.StatusMultiStatus && strings.HasSuffix(kind, "json") && r.Header.Get("Content-Encoding") == "" {
		if err := s.eachRow(table[which], sent); err != nil {
			return fmt.Errorf("the request: %w", err)
		}
	}
	if read {
		return s.eachRow(table["row"], a.body)
	}
	var shown struct {
		Row  json.RawMessage
		Rows []json.RawMessage
	}
	if which == "" || len(a.body) == 0 {
		return nil
	}
	if err := json.Unmarshal(a.body, &shown); err != nil {
		return err
	}
	for _, row := range append(shown.Rows, shown.Row) {
		if err := s.eachRow(table["row"], row); err != nil {
			return err
		}
	}
	return nil
}

// eachRow holds the JSON objects of a text, alone, on lines or in arrays, to a
// schema.
func (s *spec) eachRow(p place, text []byte) error {
	if p.node == nil || len(text) > mostChecked {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	for {
		var value any
		err := d.Decode(&value)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		rows, many := value.([]any)
		if !many {
			rows = []any{value}
		}
		for _, row := range rows {
			if err := s.valid(p, row); err != nil {
				return err
			}
		}
	}
}

// TestCheckAgainstOpenAPI: the check sees what it is there to see.
func TestCheckAgainstOpenAPI(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v text not null)`)
	document, err := specOf(s.Handler())
	require.NoError(t, err)
	good := answer{202, http.Header{"Headpond-Durability": {"fsync"}, "Content-Type": {"application/json"}},
		[]byte(`{"key":"1","receipt":"t.0.1.1","durability":"fsync","row":{"id":1,"v":"x"}}`)}
	for name, change := range map[string]func(a *answer, sent *string){
		"":                               func(*answer, *string) {},
		"status 418":                     func(a *answer, _ *string) { a.status = 418 },
		"Headpond-Durability is missing": func(a *answer, _ *string) { a.header.Del("Headpond-Durability") },
		"header ETag":                    func(a *answer, _ *string) { a.header.Set("ETag", "weak") },
		"X-New is not":                   func(a *answer, _ *string) { a.header.Set("X-New", "1") },
		"text/plain is not":              func(a *answer, _ *string) { a.header.Set("Content-Type", "text/plain") },
		"'more' not allowed":             func(a *answer, _ *string) { a.body = []byte(`{"durability":"fsync","more":1}`) },
		"got string, want integer":       func(a *answer, _ *string) { a.body = []byte(`{"durability":"fsync","row":{"id":"1","v":"x"}}`) },
		"missing property 'v'":           func(a *answer, _ *string) { a.body = []byte(`{"durability":"fsync","row":{"id":1}}`) },
		"request: jsonschema":            func(_ *answer, sent *string) { *sent = `{"id":1}` },
		"/code':":                        func(a *answer, _ *string) { problemIs(a, 409, "draining") },
		"value must be one of 'no'": func(a *answer, _ *string) {
			problemIs(a, 409, "row_exists")
			a.body = bytes.Replace(a.body, []byte("no"), []byte("yes"), 1)
		},
		"additional properties 'sql' not": func(a *answer, _ *string) {
			problemIs(a, 409, "row_exists")
			a.body = append([]byte(`{"sql":"",`), a.body[1:]...)
		},
	} {
		a := answer{good.status, good.header.Clone(), good.body}
		sent := `{"id":1,"v":"x"}`
		change(&a, &sent)
		r := httptest.NewRequest(http.MethodPost, s.path("t"), nil)
		r.Header.Set("Content-Type", "application/json")
		err := document.check(r, []byte(sent), &a)
		if name == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, name)
		}
	}
}

func problemIs(a *answer, status int, code string) {
	a.status, a.header = status, http.Header{"Content-Type": {"application/problem+json"}}
	a.body = fmt.Appendf(nil, `{"applied":"no","type":"about:blank","title":"T","status":%d,"detail":"D","code":%q,"trace_id":%q}`,
		status, code, strings.Repeat("0", 32))
}
