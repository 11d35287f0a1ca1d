package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v3"
)

func readDocument(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, name))
	require.NoError(t, err)
	return string(text)
}

func TestDocumentsAreShort(t *testing.T) {
	require.Less(t, strings.Count(readDocument(t, "README.md"), "\n"), 250)
	require.LessOrEqual(t, strings.Count(readDocument(t, "ARCHITECTURE.md"), "\n"), 150)
}

var (
	fenced     = regexp.MustCompile("(?ms)^```.*?^```$")
	backticked = regexp.MustCompile("`([^`\n]+)`")
	testName   = regexp.MustCompile(`\bTest[A-Z]\w*`)
	identifier = regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)?$`)
	fileName   = regexp.MustCompile(`^[\w./-]+\.(go|lua|sql|md|yml|sh)$|^[a-z]+(/[a-z]+)+$`)
	redisKey   = regexp.MustCompile(`^(?:hp:\{[^}]*\}:)?(log|meta|commits|(?:row|dirty):<\w+>)$|^(hp:\w+)$`)
	sqlName    = regexp.MustCompile(`^headpond\.(\w+)$`)
	metricName = regexp.MustCompile(`\bheadpond_[a-z_]+\b`)
)

// What counts as a name in ARCHITECTURE.md: whatever stands in backticks,
// outside of fenced blocks, and is
//
//   - a test: TestSomething; a function of that name in a _test.go file
//   - a file or folder: has a known ending, or a slash; it exists
//   - a relation: headpond.something; a migration creates it
//   - a Redis key or channel: hp:…, row:<key>, dirty:<g>; keys.go builds it
//   - an identifier, with or without a qualifier: declared or used in Go code
//     (comments do not count), or a word of a string there, or a word of a script
//
// All else (commands, headers, expressions) is prose.
func TestDocumentNamesExist(t *testing.T) {
	c := readCode(t)
	text := fenced.ReplaceAllString(readDocument(t, "ARCHITECTURE.md"), "")
	names := 0
	for _, m := range backticked.FindAllStringSubmatch(text, -1) {
		counts, exists := c.look(m[1])
		if counts {
			names++
		}
		if counts && !exists {
			t.Errorf("ARCHITECTURE.md: `%s` is not in the code", m[1])
		}
	}
	require.Greater(t, names, 100, "the test does not see the names any more")
}

func TestNamedTestsExist(t *testing.T) {
	c := readCode(t)
	documents := []string{"README.md", "ARCHITECTURE.md"}
	for file := range c.files {
		if path.Base(file) == "doc.go" {
			documents = append(documents, file)
		}
	}
	named := 0
	for _, d := range documents {
		for _, name := range testName.FindAllString(readDocument(t, d), -1) {
			named++
			if !c.tests[name] {
				t.Errorf("%s names %s, and there is no such test", d, name)
			}
		}
	}
	require.Greater(t, named, 20, "the test does not see the names any more")
}

// sources is what names can refer to.
type sources struct {
	files map[string]bool // files and folders, by their path
	bases map[string]bool // the same by their last part
	words map[string]bool // identifiers, and words of strings and scripts
	tests map[string]bool
	keys  string // keys.go
	sql   string // the migrations
}

var word = regexp.MustCompile(`[A-Za-z_]\w*`)

func readCode(t *testing.T) *sources {
	t.Helper()
	c := &sources{
		files: make(map[string]bool), bases: make(map[string]bool), words: make(map[string]bool), tests: make(map[string]bool),
	}
	eachFile(t, func(file string) {
		for dir := file; dir != "."; dir = path.Dir(dir) {
			c.files[dir], c.bases[path.Base(dir)] = true, true
		}
		switch path.Ext(file) {
		case ".go":
			c.readGo(t, file)
		case ".sql":
			c.sql += readDocument(t, file)
			c.readScript(readDocument(t, file))
		case ".lua":
			c.readScript(readDocument(t, file))
		}
	})
	c.keys = readDocument(t, "buffer/keys.go")
	return c
}

func (c *sources) readGo(t *testing.T, file string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(repository, file), nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			c.words[n.Name] = true
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				for _, w := range word.FindAllString(n.Value, -1) {
					c.words[w] = true
				}
			}
		case *ast.FuncDecl:
			if n.Recv == nil && strings.HasSuffix(file, "_test.go") && testName.MatchString(n.Name.Name) {
				c.tests[n.Name.Name] = true
			}
		}
		return true
	})
}

func (c *sources) readScript(text string) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "--")
		for _, w := range word.FindAllString(line, -1) {
			c.words[w] = true
		}
	}
}

// look says whether a text counts as a name, and if so whether it exists.
func (c *sources) look(name string) (counts, exists bool) {
	if m := redisKey.FindStringSubmatch(name); m != nil {
		key, _, _ := strings.Cut(m[1]+m[2], "<")
		return true, strings.Contains(c.keys, `"`+key+`"`)
	}
	if m := sqlName.FindStringSubmatch(name); m != nil {
		return true, strings.Contains(c.sql, "create table headpond."+m[1]+" (")
	}
	switch {
	case testName.FindString(name) == name && name != "":
		return true, c.tests[name]
	case fileName.MatchString(name):
		return true, c.files[name] || c.bases[name]
	case identifier.MatchString(name):
		for _, part := range strings.Split(name, ".") {
			if !c.words[part] && !c.bases[part] {
				return true, false
			}
		}
		return true, true
	}
	return false, false
}

// Every setting is in REFERENCE, with its default, in the row of its table.
func TestReferenceNamesEverySetting(t *testing.T) {
	rows := make(map[string]string)
	for line := range strings.Lines(readDocument(t, "REFERENCE.md")) {
		if strings.HasPrefix(line, "| ") {
			name, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
			for _, m := range backticked.FindAllStringSubmatch(name, -1) {
				rows[m[1]] = line
			}
		}
	}
	defaults := make(map[string]string)
	settingsOf("", *defaultConfig(), defaults)
	settingsOf("", defaultTable, defaults)
	defaults["flusher.workers"] = "4"
	defaults["flusher.drain"] = "20s"
	require.Greater(t, len(defaults), 15)
	for key, value := range defaults {
		row, ok := rows[key]
		if !ok && key != "tables" { // its rows are tables.<name> and those of tables_default
			t.Errorf("REFERENCE does not tell of the setting `%s`", key)
			continue
		}
		if value != "" && !strings.Contains(row, "`"+value+"`") {
			t.Errorf("REFERENCE: the default of `%s` is %s, and its row says: %s", key, value, row)
		}
	}
}

// settingsOf collects yaml keys and how their values are written.
func settingsOf(prefix string, section any, into map[string]string) {
	v := reflect.ValueOf(section)
	for i := range v.NumField() {
		key := prefix + v.Type().Field(i).Tag.Get("yaml")
		switch f := v.Field(i); {
		case f.Type() == reflect.TypeFor[tableConfig]():
			into[key] = ""
		case f.Kind() == reflect.Struct:
			settingsOf(key+".", f.Interface(), into)
		default:
			into[key] = settingText(f.Interface())
		}
	}
}

func settingText(v any) string {
	switch v := v.(type) {
	case *time.Duration:
		return settingText(*v)
	case time.Duration:
		text := strings.TrimSuffix(v.String(), "0s")
		if v%time.Minute != 0 || v == 0 {
			text = v.String()
		}
		return text
	case size:
		for _, u := range units {
			if u.bytes <= int64(v) && int64(v)%u.bytes == 0 {
				return strconv.FormatInt(int64(v)/u.bytes, 10) + u.name
			}
		}
	case []string:
		return "[" + strings.Join(v, ", ") + "]"
	case map[string]tableConfig:
		return ""
	}
	return fmt.Sprint(v)
}

var environmentName = regexp.MustCompile(`\bHEADPOND_[A-Z_]+\b`)

// Every flag and variable of the command line is in REFERENCE, and every
// HEADPOND_ variable of it is in the code.
func TestReferenceNamesEveryFlag(t *testing.T) {
	reference := readDocument(t, "REFERENCE.md")
	var walk func(*cli.Command)
	walk = func(c *cli.Command) {
		if c.Name == "bench" {
			return // explains itself: --help
		}
		for _, f := range c.Flags {
			require.Contains(t, reference, "`--"+f.Names()[0]+"`", "a flag of %s", c.Name)
			if d, ok := f.(cli.DocGenerationFlag); ok {
				for _, name := range d.GetEnvVars() {
					require.Contains(t, reference, "`"+name+"`", "a variable of %s", c.Name)
				}
			}
		}
		for _, sub := range c.Commands {
			walk(sub)
		}
	}
	walk(command())
	c := readCode(t)
	for _, name := range environmentName.FindAllString(reference, -1) {
		require.True(t, c.words[name], "%s is in REFERENCE and not in the code", name)
	}
}

// metricsAgree compares REFERENCE's table with a scrape, both ways: names, types and
// labels; and units with names.
func metricsAgree(t *testing.T, scrape string) {
	t.Helper()
	inReference, inScrape := make(map[string]string), make(map[string]string)
	for _, row := range metricRow.FindAllStringSubmatch(readDocument(t, "REFERENCE.md"), -1) {
		labels := backticked.FindAllString(row[4], -1)
		slices.Sort(labels)
		for _, name := range backticked.FindAllString(row[1], -1) {
			name = strings.Trim(name, "`")
			inReference[name] = row[2] + " " + strings.ReplaceAll(strings.Join(labels, ","), "`", "")
			for _, unit := range []string{"seconds", "bytes"} {
				require.Equal(t, strings.Contains(name+"_", "_"+unit+"_"), row[3] == unit, "the unit of %s", name)
			}
			require.NotEmpty(t, row[3], name)
		}
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(scrape))
	require.NoError(t, err)
	for name, family := range parsed {
		if !strings.HasPrefix(name, "headpond_") && !strings.HasPrefix(name, "http_") {
			continue
		}
		var labels []string
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		inScrape[name] = strings.ToLower(family.GetType().String()) + " " + strings.Join(labels, ",")
	}
	require.Equal(t, inReference, inScrape, "the metrics of REFERENCE, and those of a scrape")
}

var (
	metricRow = regexp.MustCompile("(?m)^\\| (`(?:headpond|http)_[^|]*) \\| (\\w+) \\| ([^|]*?) *\\| ([^|]*)\\|")
)
