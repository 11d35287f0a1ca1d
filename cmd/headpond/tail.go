package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/redis/go-redis/v9"
	"github.com/urfave/cli/v3"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

func tailCommand() *cli.Command {
	return &cli.Command{
		Name:      "tail",
		Usage:     "follow the log: a line for each operation, as it is accepted",
		ArgsUsage: "[TABLE…]",
		Description: "Reads Redis and changes nothing; PostgreSQL is not asked. It goes on until Ctrl-C, also while Redis is away.\n" +
			"A line: when it was accepted, its receipt, the operation, its bytes. Exit codes: 0 stopped, 2 wrong flags, or no such table.",
		Flags: []cli.Flag{
			urlFlags()[1], outputFlag(),
			&cli.BoolFlag{Name: "rows", Usage: "show the rows too"},
			&cli.StringFlag{Name: "from", Usage: "now, or oldest: what the log still has", Value: "now"},
		},
		Action: tail,
	}
}

func tail(ctx context.Context, c *cli.Command) error {
	url, from := c.String("redis-url"), c.String("from")
	switch {
	case url == "":
		return usage(errors.New("tail needs REDIS_URL (or --redis-url)"))
	case from != "now" && from != "oldest":
		return usage(fmt.Errorf("--from takes now or oldest, not %q", from))
	}
	redis.SetLogger(driverLog{slog.New(slog.DiscardHandler)})
	rdb, err := buffer.Open(url)
	if err != nil {
		return usage(errors.New(hider("", url)(err.Error())))
	}
	defer func() { _ = rdb.Close() }()
	b, err := buffer.New(buffer.Config{}, rdb, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	f := &follower{
		b: b, out: c.Root().Writer, told: os.Stderr, hide: hider("", url), tables: c.Args().Slice(),
		oldest: from == "oldest", rows: c.Bool("rows"), json: c.String("output") == "json", at: make(map[buffer.Place]table.ID),
	}
	return f.run(ctx)
}

// A look at 800 partitions costs about a millisecond. New partitions are rare, and
// to find them all keys are walked.
const (
	tailEvery  = 250 * time.Millisecond
	tailPlaces = time.Minute
	tailRows   = 1000 // of a partition, in one look
	tailBytes  = 4 << 20
)

// follower reads the logs of all partitions from where it was.
type follower struct {
	b          *buffer.Buffer
	out, told  io.Writer
	hide       func(string) string
	tables     []string // none: all
	oldest     bool     // begin there
	rows, json bool
	at         map[buffer.Place]table.ID // read up to there
	walked     time.Time
	away       bool
}

func (f *follower) run(ctx context.Context) error {
	for ctx.Err() == nil {
		more, err := f.look(ctx)
		var exit cli.ExitCoder
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &exit):
			return err
		case err != nil && !f.away:
			f.away = true
			_, _ = fmt.Fprintf(f.told, "Redis cannot be read, trying again: %s\n", f.hide(err.Error()))
		case err == nil && f.away:
			f.away = false
			_, _ = fmt.Fprintln(f.told, "Redis can be read again.")
		}
		if !more {
			pause(ctx, tailEvery)
		}
	}
	return nil
}

// look prints what is new, in the order in which it was accepted. more: there is
// more than one look takes.
func (f *follower) look(ctx context.Context) (more bool, err error) {
	if time.Since(f.walked) > tailPlaces {
		if err := f.walk(ctx); err != nil {
			return false, err
		}
		f.walked = time.Now()
	}
	places := make([]buffer.Place, 0, len(f.at))
	for p := range f.at {
		places = append(places, p)
	}
	tails, err := f.b.Tails(ctx, places)
	if err != nil {
		return false, err
	}
	var lines []tailLine
	for _, t := range tails {
		if !t.Last.After(f.at[t.Place]) {
			continue
		}
		got, err := f.read(ctx, t.Place)
		if err != nil {
			return false, err
		}
		more = more || t.Last.After(f.at[t.Place])
		lines = append(lines, got...)
	}
	slices.SortStableFunc(lines, func(a, b tailLine) int { return a.Accepted.Compare(b.Accepted) })
	for i := range lines {
		if err := f.print(&lines[i]); err != nil {
			return false, err
		}
	}
	return more && len(lines) > 0, nil
}

// walk finds the partitions that are there.
func (f *follower) walk(ctx context.Context) error {
	first := f.walked.IsZero()
	var fresh []buffer.Place
	err := f.b.WalkNames(ctx, func(names []buffer.Name, _ int64) error {
		for _, n := range names {
			_, known := f.at[n.Place]
			if n.Kind == "meta" && !known && (len(f.tables) == 0 || slices.Contains(f.tables, n.Place.Table)) {
				f.at[n.Place] = table.ID{}
				fresh = append(fresh, n.Place)
			}
		}
		return nil
	})
	if err != nil || !first {
		return err
	}
	for _, name := range f.tables {
		if !slices.ContainsFunc(fresh, func(p buffer.Place) bool { return p.Table == name }) {
			return usage(fmt.Errorf("there is no table %q that Headpond serves from this Redis", name))
		}
	}
	if f.oldest {
		return nil
	}
	tails, err := f.b.Tails(ctx, fresh)
	for _, t := range tails {
		f.at[t.Place] = t.Last
	}
	return err
}

// tailLine is one operation.
type tailLine struct {
	Accepted  time.Time          `json:"accepted_at"`
	Receipt   string             `json:"receipt"`
	Operation string             `json:"operation"`
	Bytes     int                `json:"bytes"`
	Row       map[string]*string `json:"row,omitempty"`
}

func (f *follower) read(ctx context.Context, p buffer.Place) (lines []tailLine, err error) {
	at := f.at[p]
	frames, err := f.b.Frames(ctx, p, at, tailRows, tailBytes)
	if err != nil {
		return nil, err
	}
	for _, frame := range frames {
		if frame.Lost > 0 {
			_, _ = fmt.Fprintf(f.told, "%s: %d acknowledged rows are lost here\n", plain(p.String()), frame.Lost)
		} else if missed := int64(frame.First().Seq) - int64(at.Seq) - 1; missed > 0 && at != (table.ID{}) { //nolint:gosec // below 2^53
			_, _ = fmt.Fprintf(f.told, "%s: %d rows were trimmed before they could be read\n", plain(p.String()), missed)
		}
		names := table.HeaderNames(frame.Columns)
		for i := range frame.Len() {
			l := tailLine{
				Accepted: frame.Accepted(i).UTC(), Operation: frame.Op(i).String(), Bytes: len(frame.Line(i)),
				Receipt: fmt.Sprintf("%s.%d.%d.%d", p.Table, p.Partition, frame.Last.Epoch, frame.First().Seq+uint64(i)), //nolint:gosec // a row of the frame
			}
			if f.rows {
				l.Row = namedCells(names, table.ParseLine(frame.Line(i)))
			}
			lines = append(lines, l)
		}
		at = frame.Last
	}
	f.at[p] = at
	return lines, nil
}

// namedCells are the columns that the row has; null for NULL. What a change says
// beside its row is left out.
func namedCells(names []string, row table.Row) map[string]*string {
	cells := make(map[string]*string, len(names))
	for i, name := range names {
		if i >= len(row) || row[i].State == table.Missing {
			continue
		}
		cells[name] = nil
		if row[i].State == table.Set {
			text := string(row[i].Text)
			cells[name] = &text
		}
	}
	return cells
}

func (f *follower) print(l *tailLine) error {
	if f.json {
		return json.NewEncoder(f.out).Encode(l)
	}
	line := fmt.Sprintf("%s  %-28s %-9s %6d B", l.Accepted.Format("15:04:05.000"), plain(l.Receipt), l.Operation, l.Bytes)
	if l.Row != nil {
		text, err := json.Marshal(l.Row) // control characters of the rows are escaped there
		if err != nil {
			return err
		}
		line += "  " + plain(string(text))
	}
	_, err := fmt.Fprintln(f.out, line)
	return err
}

// plain is text that a terminal shows and does not obey.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '·'
		}
		return r
	}, s)
}
