package api

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// preferences of a request (RFC 7240), as far as they are known here.
type preferences struct {
	Return string   // "", minimal, representation
	Strict *bool    // handling
	Exists onExists // resolution
	Wait   time.Duration
	waits  bool
	known  []preference // in the order of the request
}

// preference as Preference-Applied names it.
type preference struct{ name, value string }

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
			p.know(name, value)
		}
		return true
	case "handling=strict", "handling=lenient":
		if p.Strict == nil {
			strict := value == "strict"
			p.Strict = &strict
			p.know(name, value)
		}
		return true
	}
	if name == "resolution" && (value == "merge-duplicates" || value == "ignore-duplicates") {
		if p.Exists == refuseExisting {
			p.Exists = ignoreExisting
			if value == "merge-duplicates" {
				p.Exists = mergeExisting
			}
			p.know(name, value)
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
		if p.Wait = time.Duration(n * float64(time.Second)); p.Wait > most {
			p.Wait, value = most, strconv.FormatFloat(most.Seconds(), 'f', -1, 64) // what is done is named, not what was asked
		}
		p.know(name, value)
		return true
	}
	return false
}

func (p *preferences) know(name, value string) { p.known = append(p.known, preference{name, value}) }

// write names the preferences that the answer follows, of those that the
// request has. A wait that ended with its time was followed: it is a bound
// (RFC 7240, section 4.3), and a 202 is what it asks for then.
func (p *preferences) write(h http.Header, followed ...string) {
	var named []string
	for _, k := range p.known {
		if slices.Contains(followed, k.name) {
			named = append(named, k.name+"="+k.value)
		}
	}
	if len(named) > 0 {
		h.Set("Preference-Applied", strings.Join(named, ", "))
	}
}

func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}
