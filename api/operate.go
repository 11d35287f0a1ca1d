package api

import (
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/headpond/headpond/buffer"
)

// operationRoutes are what an operator sees and does.
func (s *Server) operationRoutes(e *echo.Echo) {
	e.Use(s.guardAdmin)
	e.GET("/admin/v1/status", s.getStatus)
	e.GET("/admin/v1/history", s.getHistory)
	e.GET("/admin/v1/events", s.getEvents)
	e.GET("/admin/v1/tables/:table/rows/:key", s.getRowState)
	e.GET("/admin/v1/writes/:receipt", s.getWrite)
	e.POST("/admin/v1/tables/:table/accept-gap", s.acceptGap)
	e.POST("/admin/v1/tables/:table/pause", s.pauseTable)
	e.POST("/admin/v1/tables/:table/resume", s.resumeTable)
	e.POST("/admin/v1/tables/:table/reload", s.reloadTable)
	e.POST("/admin/v1/local-stack/flusher/kill", s.killFlusher)
}

// guardAdmin refuses what changes something under /admin/v1: all of it in read-only
// mode, and always what a page of somebody else sends in a browser of ours.
func (s *Server) guardAdmin(next echo.HandlerFunc) echo.HandlerFunc {
	var origin http.CrossOriginProtection
	return func(c echo.Context) error {
		r := c.Request()
		if !strings.HasPrefix(r.URL.Path, "/admin/v1/") || r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions {
			return next(c)
		}
		if origin.Check(r) != nil {
			return fault(codeCrossOrigin, "A page of another origin asked for this, and was refused.")
		}
		if s.readOnly {
			return fault(codeReadOnly, "This process shows, and changes nothing: dashboard.read_only is set.")
		}
		return next(c)
	}
}

// paused is the answer to what pauses, resumes and reloads.
type pausedAnswer struct {
	Table  string     `json:"table"`
	Paused bool       `json:"paused"`
	Since  *time.Time `json:"since,omitempty"`
}

// pauseTable is POST /admin/v1/tables/{table}/pause. A table that is written directly
// has nothing to pause.
func (s *Server) pauseTable(c echo.Context) error {
	sv, err := s.served(segment(c.Request(), 4))
	if err != nil {
		return err
	}
	if sv.Target.Direct() {
		return fault(codeTableNotUsable, "This table is written directly (%s): there are no flushes to pause.", sv.Target.Strategy())
	}
	if err := s.buffer.Pause(c.Request().Context(), sv.Target.Table, buffer.Pause{Since: time.Now().UTC()}); err != nil {
		return err
	}
	return s.answerPaused(c, sv.Target.Table)
}

// resumeTable is POST /admin/v1/tables/{table}/resume.
func (s *Server) resumeTable(c echo.Context) error {
	ctx, name := c.Request().Context(), segment(c.Request(), 4)
	if _, err := s.served(name); err != nil {
		if all, _ := s.buffer.Pauses(ctx); all[name].Since.IsZero() {
			return err
		} // a table that is gone, or cannot be written any more, may have rows that wait
	}
	if err := s.buffer.Resume(ctx, name); err != nil {
		return err
	}
	return s.answerPaused(c, name)
}

func (s *Server) answerPaused(c echo.Context, name string) error {
	all, err := s.buffer.Pauses(c.Request().Context())
	if err != nil {
		return err
	}
	a := pausedAnswer{Table: name}
	if p, is := all[name]; is {
		a.Paused, a.Since = true, &p.Since
	}
	return c.JSON(http.StatusOK, a)
}

// reloadTable is POST /admin/v1/tables/{table}/reload: the catalog is read again now,
// of all tables. That the table is not known yet is what it is for.
func (s *Server) reloadTable(c echo.Context) error {
	name := segment(c.Request(), 4)
	if s.reload != nil {
		if err := s.reload(c.Request().Context()); err != nil {
			return storeUnavailable(err, "The catalog cannot be read now.")
		}
	}
	if _, err := s.served(name); err != nil {
		return err
	}
	return s.answerPaused(c, name)
}

// mostDown is how long the flusher may stay away in a drill.
const mostDown = 30 * time.Second

// killFlusher is POST /admin/v1/local-stack/flusher/kill: the drill of `headpond up
// --split`. The supervisor starts it again: at once, which hardly shows, or after
// ?down=.
func (s *Server) killFlusher(c echo.Context) error {
	if s.kill == nil {
		return fault(codeNoLocalFlusher, "The flusher is no process of its own here.").hint("headpond up --split makes it one.")
	}
	down := time.Duration(0)
	if text := c.QueryParam("down"); text != "" {
		var err error
		if down, err = time.ParseDuration(text); err != nil || down < 0 || down > mostDown {
			return fault(codeBadFilter, "down must be a duration up to %s, not %q.", mostDown, clip(text))
		}
	}
	pid, err := s.kill(down)
	if err != nil {
		return fault(codeNoLocalFlusher, "The flusher does not run at this moment; it is being started again.")
	}
	s.diary.killed(pid, time.Now())
	return c.JSON(http.StatusAccepted, map[string]int{"killed_pid": pid})
}
