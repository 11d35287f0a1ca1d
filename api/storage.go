package api

import "github.com/headpond/headpond/buffer"

// storageLine is one thing that the promise stands on, as it was at the last look.
type storageLine struct {
	Name    string `json:"name"`
	Level   string `json:"level"` // ok, warn, error
	Message string `json:"message"`
	Mend    string `json:"mend,omitempty"` // the command that mends it
}

func storageLines(checks []buffer.Check) []storageLine {
	level := map[buffer.Severity]string{buffer.CheckOK: "ok", buffer.CheckWarning: "warn", buffer.CheckError: "error"}
	out := make([]storageLine, 0, len(checks))
	for i := range checks {
		c := &checks[i]
		out = append(out, storageLine{Name: c.Group + " " + c.Name, Level: level[c.Severity], Message: c.Text, Mend: c.Mend})
	}
	return out
}

// pools are the connections of this process.
type pools struct {
	Redis    buffer.Pool  `json:"redis"`
	Postgres PostgresPool `json:"postgres"`
}

// PostgresPool is how many connections to Postgres a process has.
type PostgresPool struct {
	Total   int   `json:"total"`
	Idle    int   `json:"idle"`
	Max     int   `json:"max"`
	Waiting int64 `json:"waiting"` // that have waited for one, since the start of the process
}

func (s *Server) poolsNow() pools {
	p := pools{Redis: s.buffer.Pool()}
	if s.pool != nil {
		p.Postgres = s.pool()
	}
	return p
}
