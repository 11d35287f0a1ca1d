package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/urfave/cli/v3"
)

func deadLettersCommand() *cli.Command {
	table := &cli.StringFlag{Name: "table", Usage: "only those of this `TABLE`"}
	group := &cli.StringFlag{Name: "group", Usage: "only those with this reason: a SQLSTATE, or `SQLSTATE:CONSTRAINT`"}
	yes := &cli.BoolFlag{Name: "yes", Usage: "do not ask before many are changed"}
	return &cli.Command{
		Name:  "dead-letters",
		Usage: "rows that were accepted and that PostgreSQL refused: list, show, replay and discard them",
		Description: "Exit codes: 0 done, 1 the API cannot be reached, there is no such dead letter, or some were not replayed,\n" +
			"2 wrong flags, or many would be changed and nobody could be asked (--yes).",
		Commands: []*cli.Command{
			{
				Name: "ls", Usage: "list them by reason, and the newest one by one", Action: listDeadLetters,
				Flags: []cli.Flag{apiFlag(), outputFlag(), table, group, &cli.IntFlag{Name: "limit", Usage: "at most so many one by one", Value: 20}},
			},
			{
				Name: "show", Usage: "show one, and what a replay would write", ArgsUsage: "ID", Action: showDeadLetter,
				Flags: []cli.Flag{apiFlag(), outputFlag()},
			},
			{
				Name: "replay", Usage: "write them again: one, or those of a table", ArgsUsage: "[ID]", Action: replayDeadLetters,
				Description: "What is parked behind a dead letter follows it. Replays count once, however often they are asked for.",
				Flags: []cli.Flag{
					apiFlag(), outputFlag(), table, group, yes,
					&cli.StringFlag{Name: "row", Usage: "columns of the one that are corrected, as `JSON`"},
					&cli.DurationFlag{Name: "wait", Usage: "wait so long for the commit, to tell what is refused again", Value: 10 * time.Second},
				},
			},
			{
				Name: "rm", Usage: "discard them: one, or those of a table", ArgsUsage: "[ID]", Action: removeDeadLetters,
				Flags: []cli.Flag{apiFlag(), outputFlag(), table, group, yes},
			},
		},
	}
}

// letters asks the API about dead letters.
type letters struct {
	c    *cli.Command
	base string
}

func lettersOf(c *cli.Command) *letters {
	return &letters{c: c, base: strings.TrimSuffix(c.String("api"), "/") + "/admin/v1/dead-letters"}
}

// query of the flags.
func (l *letters) query(more ...string) string {
	q := url.Values{}
	for _, name := range []string{"table", "group"} {
		if v := l.c.String(name); v != "" {
			q.Set(name, v)
		}
	}
	for i := 0; i+1 < len(more); i += 2 {
		if more[i+1] != "" {
			q.Set(more[i], more[i+1])
		}
	}
	return "?" + q.Encode()
}

// ask sends a request and gives the text of a good answer. What the API says is
// wrong is the error.
func (l *letters) ask(ctx context.Context, method, path, body string, wait time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+60*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, l.base+path, strings.NewReader(body))
	if err != nil {
		return nil, cli.Exit("ask the API: "+err.Error(), exitUsage)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if wait > 0 {
		r.Header.Set("Prefer", fmt.Sprintf("wait=%d", int((wait+time.Second-1)/time.Second)))
	}
	a, text, err := answerOf(r)
	if err != nil {
		return nil, cli.Exit(err.Error(), exitFailed)
	}
	if a.StatusCode >= http.StatusMultipleChoices {
		return nil, cli.Exit(problemText(a.Status, text), exitFailed)
	}
	return text, nil
}

// answerOf a request to the API, whatever its status; the body is read and closed.
func answerOf(r *http.Request) (a *http.Response, text []byte, err error) {
	if a, err = http.DefaultClient.Do(r); err != nil {
		return nil, nil, fmt.Errorf("the API cannot be reached: %w", err)
	}
	defer func() { _ = a.Body.Close() }()
	if text, err = io.ReadAll(io.LimitReader(a.Body, 64<<20)); err != nil {
		return nil, nil, fmt.Errorf("the API broke off: %w", err)
	}
	return a, text, nil
}

func problemText(status string, text []byte) string {
	var p struct {
		Detail, Hint, Code string
		Errors             []struct{ Pointer, Detail string }
	}
	if json.Unmarshal(text, &p) != nil || p.Detail == "" {
		return "the API answered " + status
	}
	out := p.Detail + " (" + p.Code + ")"
	for _, e := range p.Errors {
		out += "\n  " + e.Pointer + ": " + e.Detail
	}
	if p.Hint != "" {
		out += "\n" + p.Hint
	}
	return out
}

// one is the number of the dead letter that is named; 0 when the flags choose.
func (l *letters) one() (string, error) {
	id := l.c.Args().First()
	switch {
	case l.c.Args().Len() > 1:
		return "", usage(errors.New("name one dead letter, or a table with --table"))
	case id != "" && (l.c.String("table") != "" || l.c.String("group") != ""):
		return "", usage(errors.New("name a dead letter or --table, not both"))
	case id == "" && l.c.String("table") == "":
		return "", usage(fmt.Errorf("name a dead letter (%s 17), or a table with --table", l.c.FullName()))
	case id == "":
		return "", nil
	}
	if n, err := strconv.ParseUint(id, 10, 63); err != nil || n == 0 {
		return "", usage(fmt.Errorf("%q is not the number of a dead letter", id))
	}
	return id, nil
}

// confirm asks before many are changed. Where nobody can be asked the answer is
// no, unless --yes says otherwise.
func (l *letters) confirm(ctx context.Context, verb string) error {
	if l.c.Bool("yes") {
		return nil
	}
	if !isatty.IsTerminal(os.Stdin.Fd()) {
		return usage(errors.New("many dead letters would be changed, and nobody can be asked: say --yes"))
	}
	page, err := l.page(ctx, 1)
	if err != nil {
		return err
	}
	n := int64(0)
	for _, g := range page.Groups {
		n += g.Letters
	}
	_, _ = fmt.Fprintf(os.Stderr, "%s %d dead letters of %s? [y/N] ", verb, n, l.c.String("table"))
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return cli.Exit("nothing was done", exitFailed)
	}
	return nil
}

// replayed is the answer to a replay, and the sum of several.
type replayed struct {
	Replayed  int      `json:"replayed"`
	Again     int      `json:"already_replayed"`
	Failed    int      `json:"failed"`
	Committed bool     `json:"committed"`
	Receipts  []string `json:"receipts"`
	Errors    []struct {
		ID     int64  `json:"id"`
		Code   string `json:"code"`
		Detail string `json:"detail"`
	} `json:"errors"`
	Next string `json:"next,omitempty"`
}

func replayDeadLetters(ctx context.Context, c *cli.Command) error {
	l, wait := lettersOf(c), c.Duration("wait")
	id, err := l.one()
	if err != nil {
		return err
	}
	sum := replayed{Committed: true}
	switch row := c.String("row"); {
	case wait < 0:
		return usage(errors.New("--wait must not be negative"))
	case row != "" && !json.Valid([]byte(row)):
		return usage(errors.New("--row is not JSON"))
	case row != "" && id == "":
		return usage(errors.New("--row corrects one dead letter: name it"))
	case id != "":
		err = l.replay(ctx, "/"+id+"/replay", row, wait, &sum)
	default:
		if err := l.confirm(ctx, "Replay"); err != nil {
			return err
		}
		bar := newProgress()
		for more := true; more && err == nil; more = sum.Next != "" {
			err = l.replay(ctx, "/replay"+l.query("after", sum.Next), "", wait, &sum)
			bar.at(int64(sum.Replayed), 0, "dead letters")
		}
		bar.end()
	}
	if err != nil {
		return err
	}
	if err := printReplayed(c, &sum); err != nil {
		return err
	}
	if sum.Failed > 0 {
		return cli.Exit("", exitFailed)
	}
	return nil
}

// replay sends one request, and adds its outcome.
func (l *letters) replay(ctx context.Context, path, row string, wait time.Duration, sum *replayed) error {
	text, err := l.ask(ctx, http.MethodPost, path, row, wait)
	if err != nil {
		return err
	}
	var one replayed
	if err := json.Unmarshal(text, &one); err != nil {
		return fmt.Errorf("the API's answer cannot be read: %w", err)
	}
	sum.Replayed, sum.Again, sum.Failed = sum.Replayed+one.Replayed, sum.Again+one.Again, sum.Failed+one.Failed
	sum.Committed = sum.Committed && one.Committed
	sum.Receipts, sum.Errors, sum.Next = append(sum.Receipts, one.Receipts...), append(sum.Errors, one.Errors...), one.Next
	return nil
}

func removeDeadLetters(ctx context.Context, c *cli.Command) error {
	l := lettersOf(c)
	id, err := l.one()
	if err != nil {
		return err
	}
	var sum struct {
		Discarded int64 `json:"discarded"`
		Parked    int   `json:"parked"`
		More      bool  `json:"more,omitempty"`
	}
	path := "/" + id
	if id == "" {
		if err := l.confirm(ctx, "Discard"); err != nil {
			return err
		}
		path = l.query()
	}
	for total, more := int64(0), true; more; more = sum.More {
		text, err := l.ask(ctx, http.MethodDelete, path, "", 0)
		if err != nil {
			return err
		}
		sum.More = false
		if err := json.Unmarshal(text, &sum); err != nil {
			return fmt.Errorf("the API's answer cannot be read: %w", err)
		}
		total += sum.Discarded
		sum.Discarded = total
	}
	if c.String("output") == "json" {
		return json.NewEncoder(c.Root().Writer).Encode(sum)
	}
	_, err = fmt.Fprintf(c.Root().Writer, "discarded %d\n", sum.Discarded)
	if err == nil && sum.Parked > 0 {
		_, err = fmt.Fprintf(c.Root().Writer, "%d changes were parked behind it; they can be replayed by themselves now\n", sum.Parked)
	}
	return err
}
