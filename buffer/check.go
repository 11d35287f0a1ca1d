package buffer

import "fmt"

// Severity says how bad what a Check found is.
type Severity string

// The severities. With a CheckError something does not work, or a promise does
// not hold; a CheckWarning is a risk, or will be an error one day.
const (
	CheckOK      Severity = "ok"
	CheckWarning Severity = "warning"
	CheckError   Severity = "error"
)

// The groups of checks.
const (
	GroupRedis    = "redis"
	GroupPostgres = "postgres"
	GroupTables   = "tables"
	GroupHeadpond = "headpond"
)

// Check is one thing that the promise stands on, and how it is now. The status,
// /readyz?verbose and `headpond doctor` show the same checks.
type Check struct {
	Group    string   `json:"group"`
	Name     string   `json:"name"` // what was looked at: maxmemory-policy, fsync, orders
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`           // full sentences
	Mend     string   `json:"mend,omitempty"` // the command that mends it, or what else to do

	// Unsafe: an accepted row may be thrown away. Nobody starts on that, and
	// nobody who runs on it is ready.
	Unsafe bool `json:"unsafe,omitempty"`
}

// Fine is a check that found nothing.
func Fine(group, name, format string, args ...any) Check {
	return Check{Group: group, Name: name, Severity: CheckOK, Text: fmt.Sprintf(format, args...)}
}

// Risk is a check that found a risk; mend may be empty.
func Risk(group, name, mend, format string, args ...any) Check {
	return Check{Group: group, Name: name, Severity: CheckWarning, Mend: mend, Text: fmt.Sprintf(format, args...)}
}

// Wrong is a check that found something that is wrong; mend may be empty.
func Wrong(group, name, mend, format string, args ...any) Check {
	return Check{Group: group, Name: name, Severity: CheckError, Mend: mend, Text: fmt.Sprintf(format, args...)}
}

// Sentence is what was found with what mends it, for logs and the status.
func (c *Check) Sentence() string {
	if c.Mend == "" {
		return c.Text
	}
	return c.Text + " Mend: " + c.Mend + "."
}

// Sentences of the checks that are not ok.
func Sentences(checks []Check) (out []string) {
	for i := range checks {
		if checks[i].Severity != CheckOK {
			out = append(out, checks[i].Sentence())
		}
	}
	return out
}
