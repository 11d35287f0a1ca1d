package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
)

// drillLive shows on stderr what happens: one line that is written over on a
// terminal, elsewhere a line every few seconds and one for each fault.
type drillLive struct {
	w        *os.File
	terminal bool
	colour   bool

	mu   sync.Mutex // guards the rest, and writing
	task string
}

func newDrillLive(f *os.File) *drillLive {
	terminal := isatty.IsTerminal(f.Fd())
	return &drillLive{w: f, terminal: terminal, colour: terminal && os.Getenv("NO_COLOR") == ""}
}

// say what is being done now.
func (l *drillLive) say(task string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.task = task
	if l.terminal {
		_, _ = fmt.Fprintf(l.w, "\r%s\x1b[K", task)
		return
	}
	_, _ = fmt.Fprintln(l.w, task)
}

// follow shows a drill until ctx ends.
func (l *drillLive) follow(ctx context.Context, w *drillWatch, lasts time.Duration) {
	every := 5 * time.Second
	if l.terminal {
		every = 200 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	before := w.last()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := w.last()
		l.show(before, now, lasts, w.normal())
		before = now
	}
}

func (l *drillLive) show(before, now drillSample, lasts time.Duration, calm float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rate := 0.0
	if now.At > before.At {
		rate = float64(now.Acked-before.Acked) / (now.At - before.At)
	}
	lag := fmt.Sprintf("lag %5.2f s", now.Lag)
	if l.colour && calm > 0 {
		colour := 32 // green
		if now.Lag > calm {
			colour = 31
		}
		lag = fmt.Sprintf("\x1b[%dm%s\x1b[0m", colour, lag)
	}
	at := seconds(now.At)
	line := fmt.Sprintf("%s %s of %s | %5.0f writes/s | %s | backlog %6d | %s",
		bar(int64(at), int64(lasts)), at.Round(time.Second), lasts, rate, lag, now.Backlog, l.task)
	if l.terminal {
		_, _ = fmt.Fprintf(l.w, "\r%s\x1b[K", line)
		return
	}
	_, _ = fmt.Fprintln(l.w, line)
}

// clear takes the line away.
func (l *drillLive) clear() {
	if l.terminal {
		_, _ = fmt.Fprint(l.w, "\r\x1b[K")
	}
}
