package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// A request with an Idempotency-Key counts once, however often it is sent, to
// whichever process. First the sum of its payload is claimed under the key: so
// another payload is noticed. Then what it writes carries marks, set in the same
// step as the rows: whoever sends it again finds them, and gets the answer
// that they tell. A request that was cut short is completed by its repeat.

// idempotency is the key of a request. A nil one is none.
type idempotency struct {
	key      string
	replayed atomic.Bool // something of the request was done before
}

const mostIdempotencyKey = 255

// claimKey reads the header and claims the payload under its key.
func (s *Server) claimKey(r *http.Request, p buffer.Place, parts int, body []byte) (*idempotency, error) {
	fields := r.Header.Values("Idempotency-Key")
	if len(fields) == 0 {
		return nil, nil //nolint:nilnil // there is none
	}
	key := fields[0]
	visible := func(c rune) bool { return c >= '!' && c <= '~' }
	if len(fields) > 1 || key == "" || len(key) > mostIdempotencyKey || strings.IndexFunc(key, func(c rune) bool { return !visible(c) }) >= 0 {
		return nil, fault(codeBadIdempotencyKey, "The Idempotency-Key must be one, of 1 to 255 visible ASCII characters.")
	}
	h := sha256.New()
	for _, part := range []string{r.Method, r.URL.EscapedPath(), string(body)} {
		h.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	sum := hex.EncodeToString(h.Sum(nil)[:16])
	p.Partition = table.Partition([]byte(key), parts)
	first, err := s.buffer.Claim(r.Context(), p, parts, key, sum)
	if err != nil {
		return nil, err
	}
	if first != sum {
		return nil, fault(codeIdempotencyReused, "This Idempotency-Key was used for another request. Nothing was applied.").
			hint("Take a new key for each request, and the same one for its repeats.")
	}
	return &idempotency{key: key}, nil
}

// home is the partition where rows of the request go whose key Headpond makes:
// its repeat looks for them there.
func (i *idempotency) home(partitions int) int { return table.Partition([]byte(i.key), partitions) }

// name of the mark of a part of the request.
func (i *idempotency) name(part int) string { return i.key + "#" + strconv.Itoa(part) }

// header tells a client that the answer is that of an earlier request.
func (i *idempotency) header(h http.Header) {
	if i != nil && i.replayed.Load() {
		h.Set("Idempotency-Replayed", "true")
	}
}

// remembered is what the mark of an operation tells its repeat.
func (o *operation) remembered(t *table.Table) string {
	created := "0"
	if o.created {
		created = "1"
	}
	if o.row == nil {
		return created
	}
	return created + string(t.Header()) + "\n" + string(t.AppendLine(nil, o.row))
}

// remember notes the outcome of an operation that wrote nothing, so that its
// repeat gets the same. If an earlier request with the same key was before,
// its outcome is the operation's.
func (s *Server) remember(t *task, o *operation) {
	if o.idem == nil {
		return
	}
	if o.letter != nil { // a replay that fails may be tried again
		s.recallReplay(t, o)
		return
	}
	value := nothingWritten + rememberedRow + o.there.String() + " " + o.remembered(t.sv.Table)
	if o.err != nil {
		p := problemOf(o.err)
		if p.Code.status() >= http.StatusInternalServerError {
			return
		}
		text, _ := json.Marshal(p) // it holds nothing but texts
		value = nothingWritten + rememberedError + string(text)
	}
	first, err := s.buffer.Claim(context.Background(), t.place, t.sv.Target.Partitions, o.idem.name(o.part), value)
	if err != nil {
		o.err = err
	} else if first != value {
		id, value, _ := strings.Cut(first, " ")
		r := buffer.Replay{Value: value}
		r.ID, _ = table.ParseID(id)
		o.recall(t.sv.Table, r)
	}
}

// A mark's value begins with the id of its row.
const (
	nothingWritten  = "0-0 "
	rememberedError = "E"
	rememberedRow   = "R" // then the id of the row that was there
)

// rememberChunk notes that none of a chunk's rows was taken.
func (s *Server) rememberChunk(ctx context.Context, idem *idempotency, c *buffer.Chunk, part int) error {
	r := c.Result()
	if idem == nil || r.Err != nil || r.Rows > 0 || len(r.Replays) > 0 || len(r.Failed) == 0 {
		return nil
	}
	value := nothingWritten + "0"
	for _, n := range r.Failed {
		value += " " + strconv.Itoa(n)
	}
	p := buffer.Place{Table: c.Target.Table, Partition: c.Partition}
	_, err := s.buffer.Claim(ctx, p, c.Target.Partitions, idem.name(part), value+"\n")
	return err
}

// recall gives the operation the outcome that was remembered.
func (o *operation) recall(t *table.Table, r buffer.Replay) {
	o.done, o.err, o.id = true, nil, r.ID
	o.idem.replayed.Store(true)
	if text, failed := strings.CutPrefix(r.Value, rememberedError); failed {
		p := &Problem{}
		_ = json.Unmarshal([]byte(text), p) // ours
		o.err = p
		return
	}
	value := r.Value
	if text, idle := strings.CutPrefix(value, rememberedRow); idle {
		var id string
		id, value, _ = strings.Cut(text, " ")
		o.there, _ = table.ParseID(id)
	}
	o.created = strings.HasPrefix(value, "1")
	o.row = nil
	if columns, line, ok := strings.Cut(value[min(1, len(value)):], "\n"); ok {
		o.row, _ = byColumns(t, []byte(columns), []byte(line))
	}
}

// recall takes the rows of an answer that is told again: they were made once,
// with the keys and defaults of then.
func (in *incoming) recall(rows []int, r *buffer.Result) {
	in.idem.replayed.Store(true)
	lines := strings.SplitAfter(r.Replays[0].Value, "\n")
	for n, j := range rows {
		if n >= len(lines) || lines[n] == "" {
			return
		}
		cells := table.ParseLine([]byte(lines[n]))
		for i, c := range in.t.Stored() {
			if i < len(cells) {
				in.rows[j].cells[c] = cells[i]
			}
		}
	}
}

// begun reports whether an earlier request with the same key got as far as one
// of these chunks.
func (s *Server) begun(ctx context.Context, in *incoming, chunks []*buffer.Chunk) (bool, error) {
	if in.idem == nil {
		return false, nil
	}
	names := make(map[buffer.Place][]string)
	for _, c := range chunks {
		p := buffer.Place{Table: c.Target.Table, Partition: c.Partition}
		names[p] = append(names[p], in.idem.name(len(names[p])))
	}
	return s.anyMarked(ctx, names)
}

func (s *Server) anyMarked(ctx context.Context, names map[buffer.Place][]string) (bool, error) {
	for p, those := range names {
		if found, err := s.buffer.Marked(ctx, p, those); err != nil || len(found) > 0 {
			return len(found) > 0, err
		}
	}
	return false, nil
}
