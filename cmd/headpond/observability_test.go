package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
)

// grafanaBoard is what the tests read of the Grafana dashboard.
type grafanaBoard struct {
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
	Templating struct {
		List []struct{ Query string }
	}
}

// alertRules is what the tests read of the alert rules.
type alertRules struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr string
			Annotations map[string]string
			Labels      map[string]string
		}
	}
}

var (
	namedLabel = regexp.MustCompile(`(?:by \(|\{)([a-z_, ]+?)(?:\)|=)`)
	ownCommand = regexp.MustCompile(`headpond ([a-z-]+)`)
)

// toolsAgree: each metric and label that a panel or an alert names is in a scrape,
// and each command that an alert names exists.
func toolsAgree(t *testing.T, scrape string) {
	t.Helper()
	var board grafanaBoard
	text, err := os.ReadFile("observability/grafana.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &board))
	require.Greater(t, len(board.Panels), 10)
	named := make(map[string]string) // expressions, and who has them
	for _, p := range board.Panels {
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			named[target.Expr] = "panel " + p.Title
		}
	}
	named[board.Templating.List[1].Query] = "variable"

	var rules alertRules
	text, err = os.ReadFile("observability/alerts.yaml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &rules))
	for _, r := range rules.Groups[0].Rules {
		named[r.Expr] = "alert " + r.Alert
		require.NotEmpty(t, r.Labels["severity"], r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		for _, m := range ownCommand.FindAllStringSubmatch(r.Annotations["description"], -1) {
			require.True(t, isCommand(m[1]), "alert %s names headpond %s", r.Alert, m[1])
		}
	}
	for expr, who := range named {
		names := metricName.FindAllString(expr, -1)
		require.NotEmpty(t, names, "%s: %s", who, expr)
		for _, name := range names {
			require.True(t, regexp.MustCompile(`(?m)^`+name+`[{ ]`).MatchString(scrape), "%s names %s, which no scrape has", who, name)
		}
		for _, m := range namedLabel.FindAllStringSubmatch(expr, -1) {
			for label := range strings.SplitSeq(m[1], ",") {
				if label = strings.TrimSpace(label); label != "le" {
					there := regexp.MustCompile(`(?m)^headpond_[a-z_]+\{[^}]*\b` + label + `="`).MatchString(scrape)
					require.True(t, there, "%s names the label %s, which no metric has", who, label)
				}
			}
		}
	}
	var collector map[string]any
	text, err = os.ReadFile("observability/collector.yaml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &collector))
}

func isCommand(name string) bool {
	for _, c := range command().Commands {
		if c.Name == name {
			return true
		}
	}
	return false
}
