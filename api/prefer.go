package api

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// preferences of a request (RFC 7240), as far as they are known here.
type preferences struct {
	Return  string   // "", minimal, representation, headers-only
	Strict  *bool    // handling
	Exists  onExists // resolution
	Wait    time.Duration
	waits   bool
	applied []string
}

// readPreferences parses all Prefer fields. What is not known is ignored,
// unless handling=strict asks for it not to be.
func readPreferences(h http.Header, most time.Duration) (preferences, error) {
	var p preferences
	var unknown string
	for _, field := range h.Values("Prefer") {
		for _, item := range strings.Split(field, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(item), "=")
			value, _, _ = strings.Cut(value, ";")
			value = strings.Trim(strings.TrimSpace(value), `"`)
			if !p.set(strings.ToLower(strings.TrimSpace(name)), value, most) && unknown == "" {
				unknown = strings.TrimSpace(item)
			}
		}
	}
	if unknown != "" && p.Strict != nil && *p.Strict {
		return p, fault(codeBadPreference, "The preference %q is not known.", clip(unknown)).
			hint("Known: return=minimal|representation, handling=strict|lenient, resolution=merge-duplicates|ignore-duplicates, wait=seconds.")
	}
	return p, nil
}

func (p *preferences) set(name, value string, most time.Duration) bool {
	switch name + "=" + value {
	case "=":
		return true
	case "return=minimal", "return=representation":
		if p.Return == "" {
			p.Return = value
			p.applied = append(p.applied, "return="+value)
		}
		return true
	case "handling=strict", "handling=lenient":
		if p.Strict == nil {
			strict := value == "strict"
			p.Strict = &strict
			p.applied = append(p.applied, "handling="+value)
		}
		return true
	}
	if name == "resolution" && (value == "merge-duplicates" || value == "ignore-duplicates") {
		if p.Exists == refuseExisting {
			p.Exists = ignoreExisting
			if value == "merge-duplicates" {
				p.Exists = mergeExisting
			}
			p.applied = append(p.applied, "resolution="+value)
		}
		return true
	}
	if name == "wait" {
		n, err := strconv.ParseFloat(value, 64)
		if err != nil || !(n >= 0 && n <= 1e9) { // NaN is neither
			return false
		}
		if p.waits {
			return true // the first one counts (RFC 7240)
		}
		p.waits = true
		p.Wait = min(time.Duration(n*float64(time.Second)), most)
		p.applied = append(p.applied, "wait="+value)
		return true
	}
	return false
}

func (p *preferences) write(h http.Header) {
	if len(p.applied) > 0 {
		h.Set("Preference-Applied", strings.Join(p.applied, ", "))
	}
}

func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}
