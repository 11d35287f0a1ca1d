package api

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// listTables is GET /v1.
func (s *Server) listTables(c echo.Context) error {
	type entry struct {
		Table    string `json:"table"`
		Usable   bool   `json:"usable"`
		Reason   string `json:"reason,omitempty"`
		Strategy string `json:"strategy,omitempty"`
		Schema   string `json:"schema,omitempty"`
	}
	tables := s.tables.Load()
	if tables == nil {
		_, err := s.served("")
		return err
	}
	out := make([]entry, 0, len(*tables))
	for _, name := range tables.names() {
		sv := (*tables)[name]
		e := entry{Table: name, Usable: sv.Table.Unusable == "", Reason: sv.Table.Unusable}
		if e.Usable {
			e.Strategy, e.Schema = sv.Target.Strategy(), "/v1/"+pathSegment(name)+"/_schema"
		}
		out = append(out, e)
	}
	return c.JSON(http.StatusOK, map[string]any{"tables": out})
}

// getSchema is GET /v1/{table}/_schema.
func (s *Server) getSchema(c echo.Context) error {
	sv, err := s.served(segment(c.Request(), 2))
	if err != nil {
		return err
	}
	type column struct {
		Name     string   `json:"name"`
		Type     string   `json:"type"`
		Nullable bool     `json:"nullable"`
		Default  string   `json:"default,omitempty"`
		ReadOnly bool     `json:"read_only,omitempty"`
		Labels   []string `json:"labels,omitempty"`
	}
	t := sv.Table
	columns := make([]column, len(t.Columns))
	for i := range t.Columns {
		x := &t.Columns[i]
		columns[i] = column{
			Name: x.Name, Type: x.Type.Name, Nullable: !x.NotNull,
			Default: defaultText(x), ReadOnly: x.ReadOnly(), Labels: x.Type.Labels,
		}
	}
	key := make([]string, len(t.Key))
	for i, k := range t.Key {
		key[i] = t.Columns[k].Name
	}
	return c.JSON(http.StatusOK, map[string]any{
		"table": sv.Target.Table, "columns": columns, "key": key, "strategy": sv.Target.Strategy(),
		"ttl": sv.TTL.String(), "partitions": sv.Target.Partitions, "cache": sv.Cache,
		"linger": sv.Linger.String(), "target_lag": sv.Lag.String(), "fingerprint": t.Fingerprint,
	})
}

func defaultText(c *table.Column) string {
	switch {
	case c.Default.SQL != "":
		return c.Default.SQL
	case c.Default.Kind == table.DefaultSequence:
		return "identity"
	}
	return ""
}

// livez says that the process runs: it looks at nothing else, because a
// restart mends nothing else.
func (s *Server) livez(c echo.Context) error { return c.String(http.StatusOK, "ok\n") }

// readyz says whether requests should be sent here. Postgres being away does
// not make the API unready: to take writes meanwhile is what it is for.
func (s *Server) readyz(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), 2*time.Second)
	defer cancel()
	checks := map[string]string{"redis": "ok", "postgres": "ok", "catalog": "ok", "draining": "no"}
	status := http.StatusOK
	if err := s.buffer.Ping(ctx); err != nil {
		checks["redis"], status = "Redis does not answer; no write can be accepted", http.StatusServiceUnavailable
	}
	d := s.buffer.Durability()
	if unsafe := d.Unsafe(); unsafe != nil {
		checks["redis"], status = unsafe.Sentence(), http.StatusServiceUnavailable
	}
	if why := s.whyUnread(); why != "" {
		checks["catalog"], status = why, http.StatusServiceUnavailable
	}
	if s.draining.Load() {
		checks["draining"], status = "yes: the process is shutting down", http.StatusServiceUnavailable
	}
	if trouble := s.postgresTrouble(ctx); trouble != "" {
		checks["postgres"] = trouble + " " + s.fateNow() + "; reads come from the cache alone."
	}
	var lost int64
	for _, b := range s.Books() {
		lost += b.Lost
	}
	checks["lost"] = "nothing"
	if lost > 0 {
		checks["lost"] = lossWarning(lost)
	}
	if c.QueryParams().Has("verbose") {
		return c.JSON(status, map[string]any{
			"ready": status == http.StatusOK, "checks": checks, "durability": d.Level, "safety": s.safety(d),
		})
	}
	if status == http.StatusOK {
		return c.String(status, "ok\n")
	}
	return c.String(status, "not ready\n")
}

// safety is all that is checked of the servers once a minute.
func (s *Server) safety(d buffer.Durability) []buffer.Check {
	all := append([]buffer.Check{}, d.Checks...)
	if s.checks != nil {
		all = append(all, s.checks()...)
	}
	return all
}
