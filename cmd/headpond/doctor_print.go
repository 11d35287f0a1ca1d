package main

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/mattn/go-isatty"

	"github.com/headpond/headpond/buffer"
)

var groupTitles = []struct{ group, title string }{
	{buffer.GroupRedis, "Redis"},
	{buffer.GroupPostgres, "PostgreSQL"},
	{buffer.GroupTables, "Tables"},
	{buffer.GroupHeadpond, "Headpond"},
}

// Colours of a terminal, by severity: green, yellow, red.
var severityColours = map[buffer.Severity]string{
	buffer.CheckOK: "\x1b[32m", buffer.CheckWarning: "\x1b[33m", buffer.CheckError: "\x1b[31m",
}

// colourful reports whether w is a terminal that may be coloured. Source:
// no-color.org.
func colourful(w io.Writer) bool {
	f, is := w.(*os.File)
	return is && isatty.IsTerminal(f.Fd()) && os.Getenv("NO_COLOR") == ""
}

// print shows the checks by group. Tables that are well are counted: there may
// be hundreds.
func (d *diagnosis) print(out io.Writer) error {
	w, colours := bufio.NewWriter(out), colourful(out)
	count := make(map[buffer.Severity]int)
	for _, g := range groupTitles {
		title, well := g.title+"\n", 0
		for i := range d.Checks {
			c := &d.Checks[i]
			if c.Group != g.group {
				continue
			}
			count[c.Severity]++
			if c.Group == buffer.GroupTables && c.Severity == buffer.CheckOK {
				well++
				continue
			}
			_, _ = w.WriteString(title)
			title = ""
			line(w, colours, c)
		}
		if well > 0 {
			_, _ = w.WriteString(title)
			line(w, colours, &buffer.Check{Severity: buffer.CheckOK, Text: fmt.Sprintf("%d tables need nothing.", well)})
		}
	}
	_, _ = fmt.Fprintf(w, "\n%d checks are ok, %d warn, %d found something wrong.\n", count[buffer.CheckOK], count[buffer.CheckWarning], count[buffer.CheckError])
	_, _ = fmt.Fprintln(w, d.downText())
	return w.Flush()
}

func line(w io.Writer, colours bool, c *buffer.Check) {
	word := fmt.Sprintf("%-7s", c.Severity)
	if colours {
		word = severityColours[c.Severity] + word + "\x1b[0m"
	}
	_, _ = fmt.Fprintf(w, "  %s  %s\n", word, c.Text)
	if c.Mend != "" {
		_, _ = fmt.Fprintf(w, "           mend: %s\n", c.Mend)
	}
}
