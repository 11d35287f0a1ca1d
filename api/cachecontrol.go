package api

import (
	"net/http"
	"strings"
)

// cacheControl reads what a request says about caches (RFC 9111, section
// 5.2.1): Postgres is not to be asked, or it is to be asked. What is not here is
// ignored: nothing that is cached is older than its table allows anyway.
func cacheControl(h http.Header) (only, fresh bool) {
	for _, field := range h["Cache-Control"] {
		for item := range strings.SplitSeq(field, ",") {
			name, value, _ := strings.Cut(item, "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "only-if-cached":
				only = true
			case "no-cache":
				fresh = true
			case "max-age":
				value = strings.Trim(strings.TrimSpace(value), `"`)
				fresh = fresh || value != "" && strings.Trim(value, "0") == ""
			}
		}
	}
	return only, fresh && !only
}
