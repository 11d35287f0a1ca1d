package main

import (
	"fmt"
	"io"
	"os"

	"github.com/mattn/go-isatty"
)

// benchProgress tells on stderr what is being measured: one line that is
// written over on a terminal, a line each elsewhere.
type benchProgress struct {
	w        io.Writer
	terminal bool
	done     int
	steps    int
}

func newBenchProgress(f *os.File, steps int) *benchProgress {
	return &benchProgress{w: f, terminal: isatty.IsTerminal(f.Fd()), steps: steps}
}

func (p *benchProgress) step(title string) {
	p.done++
	if !p.terminal {
		_, _ = fmt.Fprintf(p.w, "[%d/%d] %s\n", p.done, p.steps, title)
		return
	}
	_, _ = fmt.Fprintf(p.w, "\r%s %s\x1b[K", bar(int64(p.done-1), int64(p.steps)), title)
}

func (p *benchProgress) say(text string) {
	if p.terminal {
		_, _ = fmt.Fprintf(p.w, "\r%s\x1b[K", text)
		return
	}
	_, _ = fmt.Fprintln(p.w, text)
}

func (p *benchProgress) clear() {
	if p.terminal {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
	}
}
