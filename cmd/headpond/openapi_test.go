package main

import (
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
)

// TestOpenAPIExamples runs the curl lines of the OpenAPI document as they
// stand there, in its order, on a machine of its own. Every operation has one.
func TestOpenAPIExamples(t *testing.T) {
	r := startReadme(t)
	var document struct{ Paths yaml.MapSlice }
	require.NoError(t, yaml.Unmarshal([]byte(r.get("/openapi.yaml")), &document))
	require.NotEmpty(t, document.Paths)
	// Dead letters 1 to 3, which examples are about.
	r.run(t, example{commands: `curl -s http://127.0.0.1:8080/v1/orders -H "Content-Type: application/json" -H "Prefer: wait=50" \
		-d '[{"id":901,"customer":"x","total":-1},{"id":902,"customer":"y","total":-1},{"id":903,"customer":"z","total":-1}]'`})
	for _, path := range document.Paths {
		methods, _ := path.Value.(map[string]any)
		for _, method := range []string{"post", "put", "get", "head", "patch", "delete"} { // what is read was written before
			operation, ok := methods[method].(map[string]any)
			if !ok {
				continue
			}
			samples, _ := operation["x-codeSamples"].([]any)
			require.NotEmpty(t, samples, "%s %v has no example", method, path.Key)
			for _, s := range samples {
				source, _ := s.(map[string]any)["source"].(string)
				require.Contains(t, source, "curl -s")
				r.run(t, example{commands: strings.ReplaceAll(source, "curl -s", "curl -fsS")})
			}
		}
	}
}
