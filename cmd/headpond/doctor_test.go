package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDoctorShowsWhatTheAPISays: the API knows the limits that are in force, not
// the doctor's own configuration.
func TestDoctorShowsWhatTheAPISays(t *testing.T) {
	t.Parallel()
	for down, want := range map[string]string{
		"20000":             "Postgres may be down for 20s at",
		"0":                 "Writes are refused now",
		"null":              "nothing fills the backlog",
		"99999000000000000": "more than a year",
	} {
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"verdict":"ok","tables":{"t":{"rates":{"in_rows_per_s":1000}}},"pressure":{"postgres_may_be_down_for_ms":` + down + `}}`))
		}))
		t.Cleanup(api.Close)
		d := &diagnosis{}
		d.lookAtAPI(t.Context(), api.URL)
		require.Contains(t, d.downText(), want)
	}
	d := &diagnosis{}
	d.lookAtAPI(t.Context(), "http://127.0.0.1:1")
	require.Contains(t, d.downText(), "no API answers")
}
