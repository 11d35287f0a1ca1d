package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
)

// progress shows on stderr how far a command has come: one line that is written
// over on a terminal, elsewhere a line every ten seconds.
type progress struct {
	w        io.Writer
	terminal bool
	said     time.Time
}

func newProgress() *progress {
	return &progress{w: os.Stderr, terminal: isatty.IsTerminal(os.Stderr.Fd()), said: time.Now()}
}

// at tells that done of total (0: not known) are done. Not for concurrent use.
func (p *progress) at(done, total int64, text string) {
	every := 10 * time.Second
	if p.terminal {
		every = 100 * time.Millisecond
	}
	if time.Since(p.said) < every {
		return
	}
	p.said = time.Now()
	if !p.terminal {
		_, _ = fmt.Fprintf(p.w, "%d of %d %s\n", done, total, text)
		return
	}
	_, _ = fmt.Fprintf(p.w, "\r%s %d of %d %s\x1b[K", bar(done, total), done, total, text)
}

func (p *progress) end() {
	if p.terminal {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// bar of 24 characters, with the share in percent.
func bar(done, total int64) string {
	const width = 24
	share := 0.0
	if total > 0 {
		share = min(float64(done)/float64(total), 1)
	}
	full := int(share * width)
	return fmt.Sprintf("[%s%s] %3.0f%%", strings.Repeat("#", full), strings.Repeat(".", width-full), 100*share)
}
