package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// answer is an HTTP response, read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// try sends a request; headers are name, value, name, value … . A body gets
// Content-Type: application/json unless another is given; "-" means none.
func (s *stack) try(method, path string, body io.Reader, headers ...string) (*answer, error) {
	r, err := http.NewRequestWithContext(context.Background(), method, s.url+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Content-Type" {
			r.Header.Del("Content-Type")
		}
		if headers[i+1] != "-" {
			r.Header.Add(headers[i], headers[i+1])
		}
	}
	res, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	a := &answer{res.StatusCode, res.Header, text}
	if err != nil {
		return a, err
	}
	return a, s.conforms(r, known(body), a)
}

// conforms holds an exchange to the OpenAPI document.
func (s *stack) conforms(r *http.Request, sent []byte, a *answer) error {
	document, err := specOf(s.Handler())
	if err == nil {
		err = document.check(r, sent, a)
	}
	if err != nil {
		return fmt.Errorf("%s %s, %d: this is not what openapi.yaml says: %w\n%.1000s", r.Method, r.URL, a.status, err, a.body)
	}
	return nil
}

// known is a request's body when it can be had again.
func known(body io.Reader) []byte {
	r, ok := body.(*strings.Reader)
	if !ok {
		return nil
	}
	text := make([]byte, r.Size())
	_, _ = r.ReadAt(text, 0)
	return text
}

func (s *stack) do(method, path, body string, headers ...string) *answer {
	s.t.Helper()
	return s.ask(s.t, method, path, body, headers...)
}

// ask is do for subtests.
func (s *stack) ask(t testing.TB, method, path, body string, headers ...string) *answer {
	t.Helper()
	var r io.Reader
	if method != http.MethodGet && method != http.MethodHead {
		r = strings.NewReader(body)
	}
	a, err := s.try(method, path, r, headers...)
	require.NoError(t, err)
	return a
}

func (s *stack) get(path string, headers ...string) *answer {
	s.t.Helper()
	return s.do(http.MethodGet, path, "", headers...)
}

// post must be accepted.
func (s *stack) post(tbl, body string, headers ...string) *answer {
	s.t.Helper()
	a := s.do(http.MethodPost, s.path(tbl), body, headers...)
	require.Contains(s.t, []int{200, 201, 202}, a.status, string(a.body))
	return a
}

// into reads the body as JSON, numbers exact.
func (a *answer) into(t testing.TB, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.UseNumber()
	require.NoError(t, d.Decode(v), string(a.body))
}

func (a *answer) fields(t testing.TB) map[string]json.RawMessage {
	t.Helper()
	var m map[string]json.RawMessage
	a.into(t, &m)
	return m
}

// key of a single accepted row, from its Location.
func (a *answer) location(t testing.TB) string {
	t.Helper()
	require.NotEmpty(t, a.header.Get("Location"), string(a.body))
	return a.header.Get("Location")
}

// accept is the answer to a write.
type accept struct {
	Key        string
	Receipt    string
	Durability string
	Row        json.RawMessage

	Accepted, Rejected int
	Receipts           []string
	Errors             []item
	Rows               []json.RawMessage
}

func (a *answer) accept(t testing.TB, status int) accept {
	t.Helper()
	require.Equal(t, status, a.status, string(a.body))
	var out accept
	a.into(t, &out)
	return out
}

type item struct {
	Index                 *int
	Pointer, Code, Detail string
}

// problem as the contract has it.
type problem struct {
	Type, Title, Detail, Code, Hint, Applied string
	Status                                   int
	TraceID                                  string `json:"trace_id"`
	Errors                                   []item
}

func (p *problem) pointers() (out []string) {
	for _, e := range p.Errors {
		out = append(out, e.Pointer)
	}
	return out
}

// leak finds what must never be in an answer: SQL, keys of Redis, files of Go.
var leak = regexp.MustCompile(`(?i)\b(insert into|select .* from|copy .* from|update .* set|goroutine \d|panic|hp:\{|EVALSHA|\w+\.go:\d+|pgx|redis: )`)

// problem checks all that is true of every error.
func (a *answer) problem(t testing.TB, status int, code string) *problem {
	t.Helper()
	require.Equal(t, status, a.status, string(a.body))
	require.Equal(t, "application/problem+json", a.header.Get("Content-Type"), string(a.body))
	members := a.fields(t)
	for _, name := range []string{"type", "title", "status", "detail", "code", "trace_id", "applied"} {
		require.Contains(t, members, name)
	}
	var p problem
	a.into(t, &p)
	require.Equal(t, code, p.Code, string(a.body))
	require.Equal(t, status, p.Status)
	require.Equal(t, "about:blank", p.Type)
	require.Equal(t, http.StatusText(status), p.Title)
	require.NotEmpty(t, p.Detail)
	require.Regexp(t, `^[0-9a-f]{32}$`, p.TraceID)
	require.Contains(t, []string{"no", "unknown"}, p.Applied)
	require.NotRegexp(t, leak, string(a.body))
	require.Less(t, len(a.body), 4096+300*len(p.Errors), "no value is echoed whole")
	return &p
}

func lines(n int, row func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(row(i) + "\n")
	}
	return b.String()
}

func array(n int, row func(i int) string) string {
	rows := make([]string, n)
	for i := range rows {
		rows[i] = row(i)
	}
	return "[" + strings.Join(rows, ",") + "]"
}

func row(format string, args ...any) string { return fmt.Sprintf(format, args...) }

func stringReader(s string) io.Reader { return strings.NewReader(s) }
