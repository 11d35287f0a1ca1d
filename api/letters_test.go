package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/buffer"
)

const letterDDL = `
	create table owner (id int primary key);
	insert into owner values (1);
	create table l (id int primary key, name text not null default 'none', n bigint not null default 0 constraint low check (n < 100),
		code text constraint l_code_key unique, owner int constraint l_owner_fkey references owner, f float8, spot int4range,
		constraint apart exclude using gist (spot with &&));
	create function grumble() returns trigger language plpgsql as $$
		begin if new.name = 'bad' then raise exception 'no bad names' using errcode = 'P0001'; end if; return new; end $$;
	create trigger grumble before insert or update on l for each row execute function grumble();
	create table bag (a int check (a > 0));
	insert into l (id, code, spot) values (1, 'taken', '[1,5)');`

type letterJSON struct {
	ID                                          int64
	Receipt, Key, Operation, Group, SQLState    string
	Constraint, Column, Reason, Advice, Message string
	Replays, Parked                             int
	ParkedBehind                                string    `json:"parked_behind"`
	BehindID                                    int64     `json:"parked_behind_id"`
	Replayed                                    time.Time `json:"replayed_at"`
	Row                                         json.RawMessage
	Writes                                      map[string]*string
}

type lettersJSON struct {
	Groups []struct {
		Table, Group, Reason string
		Letters              int `json:"dead_letters"`
		Sample               letterJSON
	}
	Letters []letterJSON `json:"dead_letters"`
	Next    string
}

type replayJSON struct {
	Replayed, Failed int
	Again            int `json:"already_replayed"`
	Committed        bool
	Receipts         []string
	Errors           []struct {
		ID           int64
		Code, Detail string
	}
	Next string
}

const lettersPath = "/admin/v1/dead-letters"

// letters of a table of the stack.
func (s *stack) letters(tbl, query string) (out lettersJSON) {
	s.t.Helper()
	a := s.get(lettersPath + "?table=" + s.schema + "." + tbl + query)
	require.Equal(s.t, http.StatusOK, a.status, string(a.body))
	a.into(s.t, &out)
	return out
}

// only is the one dead letter of a table.
func (s *stack) only(tbl string) letterJSON {
	s.t.Helper()
	all := s.letters(tbl, "").Letters
	require.Len(s.t, all, 1)
	return all[0]
}

func letterPath(id int64, more string) string { return fmt.Sprintf("%s/%d%s", lettersPath, id, more) }

// replay one dead letter, with corrections unless the body is empty.
func (s *stack) replay(id int64, body string, headers ...string) *answer {
	s.t.Helper()
	if body == "" {
		headers = append(headers, "Content-Type", "-")
	}
	return s.do(http.MethodPost, letterPath(id, "/replay"), body, headers...)
}

func (a *answer) replayed(t testing.TB, want, failed int) (out replayJSON) {
	t.Helper()
	a.into(t, &out)
	require.Equal(t, [2]int{want, failed}, [2]int{out.Replayed, out.Failed}, string(a.body))
	return out
}

// balanced: the ledger of the table closes in Postgres.
func (s *stack) balanced() {
	s.t.Helper()
	require.Equal(s.t, "0", s.text(`select count(*)::text from headpond.watermarks where seq <> committed + coalesced + dead + lost`))
}

// TestDeadLetters: what only a flush can find bad becomes a dead letter with a
// reason in plain words; nobody is given its row any more; and when the reason is
// gone it is replayed.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	s := setupWith(t, letterDDL, options{listTTL: time.Hour})
	s.startFlusher()
	for _, x := range []struct{ name, row, group, says, mend string }{
		{"check", `{"id":2,"n":100}`, "23514:low", "The row breaks the constraint low.", `alter table l drop constraint low`},
		{"unique", `{"id":3,"code":"taken"}`, "23505:l_code_key", "is there already", `update l set code = null where id = 1`},
		{"foreign key", `{"id":4,"owner":7}`, "23503:l_owner_fkey", "refers to a row that is not there", `insert into owner values (7)`},
		{"exclusion", `{"id":5,"spot":"[2,3)"}`, "23P01:apart", "excludes", `alter table l drop constraint apart`},
		{"trigger", `{"id":6,"name":"bad"}`, "P0001", "A trigger or a function", `drop trigger grumble on l`},
	} {
		require.Equal(t, "[]\n", string(s.get(s.path("l")+"?id=gt.1&id=eq."+x.row[6:7]).body), x.name)
		s.post("l", x.row)
		s.flushed()
		d := s.only("l")
		require.Equal(t, x.group, d.Group, x.name)
		require.Contains(t, d.Reason, x.says)
		require.NotEmpty(t, d.Advice)
		require.Equal(t, "insert", d.Operation)
		s.gone("l", d.Key)
		require.Equal(t, "[]\n", string(s.get(s.path("l")+"?id=gt.1&id=eq."+d.Key).body), x.name)
		one := s.get(letterPath(d.ID, ""))
		require.Equal(t, 200, one.status)
		require.Contains(t, string(one.body), `"writes":{`)
		require.Equal(t, "dead-lettered", s.receipt(d.Receipt, "").State)

		again := s.replay(d.ID, "", "Prefer", "wait=50")
		require.Equal(t, map[bool]int{true: 409, false: 422}[d.SQLState == "23505"], again.status, string(again.body))
		now := s.only("l")
		require.NotEqual(t, d.ID, now.ID)
		require.Equal(t, 1, now.Replays)
		s.gone("l", d.Key)

		s.exec(x.mend)
		done := s.replay(now.ID, "", "Prefer", "wait=50")
		require.Equal(t, 200, done.status, string(done.body))
		require.True(t, done.replayed(t, 1, 0).Committed)
		require.Empty(t, s.letters("l", "").Letters)
		require.Equal(t, "1", s.text(`select count(*)::text from l where id = $1::int`, d.Key))
		require.Equal(t, 200, s.get(s.path("l", d.Key)).status)
		require.Contains(t, string(s.get(s.path("l")+"?id=gt.1&id=eq."+d.Key).body), `"id":`+d.Key)
		require.Equal(t, 404, s.replay(now.ID, "").status)
		s.exec(`delete from l where id = $1::int`, d.Key)
	}
	s.balanced()
}

// TestRefusedReplayIsNotCommitted: receipts of a refused row, and repeats of its
// request, tell what became of its last replay, however often that was refused.
func TestRefusedReplayIsNotCommitted(t *testing.T) {
	t.Parallel()
	s := setup(t, letterDDL)
	s.startFlusher()
	send := func() *answer {
		return s.do(http.MethodPost, s.path("l"), `{"id":7,"n":100}`, "Idempotency-Key", "k9", "Prefer", "wait=50")
	}
	life := func(r string) string {
		var out struct{ State, Detail string }
		s.get("/admin/v1/writes/"+r).into(t, &out)
		return out.State + ": " + out.Detail
	}
	require.Equal(t, 422, send().status)
	first := s.only("l").Receipt
	require.Empty(t, s.receipt(first, "").ReplayedAs)
	receipts := []string{first}
	for _, body := range []string{"", "", `{"id":8}`} { // as another key, perhaps of another partition
		a := s.replay(s.only("l").ID, body, "Prefer", "wait=50")
		require.Equal(t, 422, a.status, string(a.body))
		now := s.only("l").Receipt
		for _, before := range receipts {
			r := s.receipt(before, "")
			require.Equal(t, [3]string{"dead-lettered", "23514", now}, [3]string{r.State, r.SQLState, r.ReplayedAs}, before)
			require.Contains(t, life(before), "dead-lettered: Postgres refused it", before)
		}
		a = send()
		require.Equal(t, 422, a.status, string(a.body))
		require.Contains(t, string(a.body), "as "+now+".")
		require.Equal(t, first, a.header.Get("Headpond-Receipt"))
		receipts = append(receipts, now)
	}
	s.exec(`alter table l drop constraint low`)
	began := time.Now().Truncate(time.Millisecond)
	require.Equal(t, 200, s.replay(s.only("l").ID, `{"id":7}`, "Prefer", "wait=50").status)
	last := s.receipt(first, "").ReplayedAs
	for _, r := range receipts {
		got := s.receipt(r, "")
		require.Equal(t, [2]string{"committed", last}, [2]string{got.State, got.ReplayedAs}, r)
		require.False(t, got.CommittedAt.Before(began), "when the replay was, not when the row was refused")
		require.GreaterOrEqual(t, *got.Lag, began.Sub(got.AcceptedAt).Milliseconds()-1)
		require.Contains(t, life(r), "a replay wrote it", r)
	}
	require.Equal(t, 201, send().status)
	require.Equal(t, "100", s.text(`select n::text from l where id = 7`))
	s.balanced()
}

// TestDiscardedReplayIsNotCommitted: of a chain that ends as a discarded dead
// letter, and of a replay that was on its way when its letter was discarded.
func TestDiscardedReplayIsNotCommitted(t *testing.T) {
	t.Parallel()
	s := setup(t, letterDDL)
	stop := s.startFlusher()
	discard := func() {
		t.Helper()
		require.Equal(t, 200, s.do(http.MethodDelete, letterPath(s.only("l").ID, ""), "", "Content-Type", "-").status)
	}
	first := s.post("l", `{"id":7,"n":100}`).header.Get("Headpond-Receipt")
	s.flushed()
	require.Equal(t, 422, s.replay(s.only("l").ID, "", "Prefer", "wait=50").status)
	discard()
	require.Contains(t, s.receipt(first, "").Reason, "(discarded by an operator)")

	second := s.post("l", `{"id":8,"n":100}`).header.Get("Headpond-Receipt")
	s.flushed()
	stop()
	s.exec(`alter table l drop constraint low`)
	a := s.replay(s.only("l").ID, "")
	require.Equal(t, 202, a.status)
	var out replayJSON
	a.into(t, &out)
	discard()
	s.startFlusher()
	s.flushed()
	for _, r := range []string{first, second, out.Receipts[0]} {
		require.Equal(t, "dead-lettered", s.receipt(r, "").State, r)
	}
	require.Equal(t, 1, s.count("l"), "the row that was there")
	s.balanced()
}

// TestReceiptOfADirectReplay: what was written without the log has no receipt.
func TestReceiptOfADirectReplay(t *testing.T) {
	t.Parallel()
	s := setup(t, letterDDL)
	s.startFlusher()
	first := s.post("l", `{"id":7,"n":100}`).header.Get("Headpond-Receipt")
	s.flushed()
	require.Equal(t, 422, s.replay(s.only("l").ID, "", "Prefer", "wait=50").status)
	s.exec(`alter table l drop constraint low`)
	require.NoError(t, s.buf.SetStrategy(t.Context(), s.targets[s.schema+".l"], directly[0]))
	began := time.Now().Truncate(time.Millisecond)
	require.Equal(t, 200, s.replay(s.only("l").ID, "").status)
	r := s.receipt(first, "")
	require.Equal(t, [2]string{"committed", ""}, [2]string{r.State, r.ReplayedAs})
	require.False(t, r.CommittedAt.Before(began))
}

// TestReplayCountsOnce: many operators at once, marks that Redis lost in between,
// a flusher that comes later: the letter counts once.
func TestReplayCountsOnce(t *testing.T) {
	t.Parallel()
	s := setup(t, letterDDL)
	s.exec(`insert into l (id, n) values (7, 90)`)
	stop := s.startFlusher()
	s.do(http.MethodPost, s.path("l", "7", "increment"), `{"n":20}`).accept(t, 202)
	s.post("l", `{"id":8,"n":100}`)
	s.flushed()
	stop()
	s.exec(`alter table l drop constraint low`)
	letters := s.letters("l", "").Letters
	require.Len(t, letters, 2)
	for round := range 2 { // the second time without the marks: there the insert finds its own row
		var wait sync.WaitGroup
		for range 8 {
			for _, d := range letters {
				wait.Go(func() {
					if a := s.replay(d.ID, ""); a.status != 202 && (round == 0 || d.Operation != "insert") {
						t.Errorf("%d %s", a.status, a.body)
					}
				})
			}
		}
		wait.Wait()
		require.False(t, s.numbered("l", letters[0].ID).Replayed.IsZero())
		keys, err := s.rdb.Keys(t.Context(), "hp:{"+s.schema+".*marks:*").Result()
		require.NoError(t, err)
		require.NotEmpty(t, keys)
		require.NoError(t, s.rdb.Del(t.Context(), keys...).Err())
	}
	s.startFlusher()
	s.flushed()
	require.Equal(t, "110", s.text(`select n::text from l where id = 7`))
	require.Equal(t, "1", s.text(`select count(*)::text from l where id = 8`))
	require.Empty(t, s.letters("l", "").Letters)
	require.Equal(t, "2", s.text(`select sum(dead)::text from headpond.watermarks`))
	s.balanced()
	s.row(`{"id":7,"name":"none","n":110,"code":null,"owner":null,"f":null,"spot":null}`, "l", "7")
}

// numbered is the dead letter of a number.
func (s *stack) numbered(tbl string, id int64) (d letterJSON) {
	s.t.Helper()
	s.get(letterPath(id, "")).into(s.t, &d)
	return d
}

// TestReplayedBeforeAFlushThatFails: the flush that is to take the letter away
// cannot; the letter stays, and counts once when it can.
func TestReplayedBeforeAFlushThatFails(t *testing.T) {
	t.Parallel()
	s := setup(t, letterDDL)
	s.startFlusher()
	s.post("bag", `{"a":-1}`)
	s.flushed()
	d := s.only("bag")
	s.exec(`alter table bag drop constraint bag_a_check; alter table bag add column more int not null default 1`)
	s.exec(`alter table headpond.dead_letters add constraint stays check (table_name <> 'none')`)
	s.exec(`create function headpond.stay() returns trigger language plpgsql as $$ begin raise exception 'not now' using errcode = '57014'; end $$;
		create trigger stay before delete on headpond.dead_letters for each row execute function headpond.stay()`)
	s.refresh()
	require.Equal(t, 202, s.replay(d.ID, "").status)
	require.Eventually(t, func() bool { return s.flusher.Stats().Tables[s.schema+".bag"].Failures > 1 }, 30*time.Second, time.Millisecond)
	require.Equal(t, 202, s.replay(d.ID, "").status)
	require.Equal(t, d.ID, s.only("bag").ID)
	require.Zero(t, s.count("bag"))
	s.exec(`drop trigger stay on headpond.dead_letters`)
	s.flushed()
	require.Equal(t, 1, s.count("bag"))
	require.Empty(t, s.letters("bag", "").Letters)
	s.balanced()
}

// TestParked: changes that were computed on a refused one wait behind it, and
// follow it in their order; later ones do not wait for it.
func TestParked(t *testing.T) {
	t.Parallel()
	s := setup(t, letterDDL)
	s.exec(`insert into l (id, n, f) values (7, 90, 1)`)
	add := func(body string) { s.do(http.MethodPost, s.path("l", "7", "increment"), body).accept(t, 202) }
	add(`{"n":5}`)
	add(`{"n":20}`)
	add(`{"n":1,"f":0.5}`)
	s.do(http.MethodPatch, s.path("l", "7"), `{"name":"seven"}`).accept(t, 202)
	add(`{"n":2}`)
	require.Contains(t, string(s.get(s.path("l", "7")).body), `"n":118`)
	s.startFlusher()
	s.flushed()
	s.row(`{"id":7,"name":"none","n":95,"code":null,"owner":null,"f":1,"spot":null}`, "l", "7")
	all := s.letters("l", "").Letters
	require.Len(t, all, 4)
	first := all[3]
	require.Equal(t, "23514:low", first.Group)
	require.Equal(t, 3, first.Parked)
	for _, d := range all[:3] {
		require.Equal(t, "HP002", d.Group)
		require.Equal(t, first.Receipt, d.ParkedBehind)
		require.Equal(t, first.ID, d.BehindID)
		a := s.replay(d.ID, "")
		require.Equal(t, 409, a.status, string(a.body))
		require.Contains(t, string(a.body), `"code":"dead_letter_parked"`)
	}
	add(`{"n":1}`) // computed on what Postgres has
	s.flushed()
	require.Equal(t, "96", s.text(`select n::text from l where id = 7`))

	a := s.replay(first.ID, "", "Prefer", "wait=50") // refused again, and all parked again
	require.Equal(t, 422, a.status, string(a.body))
	all = s.letters("l", "").Letters
	require.Len(t, all, 4)
	require.Equal(t, 3, all[3].Parked)
	require.Equal(t, "96", s.text(`select n::text from l where id = 7`))

	s.exec(`alter table l drop constraint low`)
	require.Equal(t, 200, s.replay(all[3].ID, "", "Prefer", "wait=50").status)
	s.row(`{"id":7,"name":"seven","n":119,"code":null,"owner":null,"f":1.5,"spot":null}`, "l", "7")
	require.Equal(t, "119", s.text(`select n::text from l where id = 7`))
	require.Empty(t, s.letters("l", "").Letters)
	s.balanced()
}

// TestParkedIsSuperseded: a put or a delete on the key of a dead letter depends on
// nothing, nor does what is computed on it.
func TestParkedIsSuperseded(t *testing.T) {
	t.Parallel()
	s := setup(t, letterDDL)
	s.post("l", `{"id":7,"n":100}`)
	s.do(http.MethodPost, s.path("l", "7", "increment"), `{"n":1}`).accept(t, 202)
	s.do(http.MethodPut, s.path("l", "7"), `{"name":"put","n":1}`).accept(t, 202)
	s.do(http.MethodPost, s.path("l", "7", "increment"), `{"n":1}`).accept(t, 202)
	s.post("l", `{"id":8,"n":100}`)
	s.do(http.MethodPatch, s.path("l", "8"), `{"name":"eight"}`).accept(t, 202)
	s.startFlusher()
	s.flushed()
	require.Equal(t, "2", s.text(`select n::text from l where id = 7`))
	all := s.letters("l", "").Letters
	require.Len(t, all, 2, "of key 8")
	a := s.do(http.MethodDelete, letterPath(all[1].ID, ""), "", "Content-Type", "-")
	require.JSONEq(t, `{"discarded":1,"parked":1}`, string(a.body))
	require.Equal(t, 404, s.do(http.MethodDelete, letterPath(all[1].ID, ""), "", "Content-Type", "-").status)
	r := s.receipt(all[1].Receipt, "")
	require.Equal(t, "dead-lettered", r.State)
	require.Contains(t, r.Reason, "(discarded by an operator)")
	a = s.replay(all[0].ID, "") // by itself now; its row was never there
	require.Equal(t, 404, a.status, string(a.body))
	require.Contains(t, string(a.body), "row_not_found")
	s.exec(`insert into l (id) values (8)`)
	require.Equal(t, 200, s.replay(all[0].ID, "", "Prefer", "wait=50").status)
	require.Equal(t, "eight", s.text(`select name from l where id = 8`))
	s.balanced()
}

// TestReplayedWithoutItsFirst: when the first one is not accepted again, nothing
// that was parked behind it is.
func TestReplayedWithoutItsFirst(t *testing.T) {
	t.Parallel()
	for _, strategy := range append([]string{buffer.WriteBehind}, directly...) {
		s := setup(t, letterDDL)
		s.post("l", `{"id":7,"n":100}`)
		s.do(http.MethodPost, s.path("l", "7", "increment"), `{"n":1}`).accept(t, 202)
		s.do(http.MethodPatch, s.path("l", "7"), `{"name":"seven"}`).accept(t, 202)
		stop := s.startFlusher()
		s.flushed()
		if strategy == buffer.WriteBehind {
			stop() // the row that took the key stays in the buffer
		}
		s.post("l", `{"id":7,"n":1}`)
		if strategy != buffer.WriteBehind {
			s.flushed()
			require.NoError(t, s.buf.SetStrategy(t.Context(), s.targets[s.schema+".l"], strategy))
		}
		all := s.letters("l", "").Letters
		require.Len(t, all, 3)
		require.Equal(t, 409, s.replay(all[2].ID, "").status)
		a := s.do(http.MethodPost, lettersPath+"/replay?table="+s.schema+".l", "", "Content-Type", "-")
		require.Equal(t, 207, a.status, string(a.body))
		out := a.replayed(t, 0, 3)
		require.Equal(t, "row_exists", out.Errors[0].Code)
		require.Equal(t, "dead_letter_parked", out.Errors[1].Code)
		require.Equal(t, "dead_letter_parked", out.Errors[2].Code)
		if strategy == buffer.WriteBehind {
			s.startFlusher()
		}
		s.flushed()
		require.Equal(t, "none 1", s.text(`select name || ' ' || n from l where id = 7`))
		require.Len(t, s.letters("l", "").Letters, 3)
	}
}

// TestReplayGroup: the dead letters of a reason, when the reason is gone: page by
// page, and nothing twice.
func TestReplayGroup(t *testing.T) {
	t.Parallel()
	s := setup(t, letterDDL)
	s.startFlusher()
	const poison = 45
	var rows []string
	for i := range 300 {
		rows = append(rows, fmt.Sprintf(`{"id":%d,"n":%d}`, 100+i, map[bool]int{true: 100 + i, false: 1}[i < poison]))
	}
	rows = append(rows, `{"id":1}`, `{"id":2,"owner":9}`)
	s.do(http.MethodPost, s.path("l"), "["+strings.Join(rows, ",")+"]").accept(t, 202)
	s.flushed()
	page := s.letters("l", "&limit=20")
	require.Len(t, page.Groups, 3)
	require.Equal(t, "23514:low", page.Groups[0].Group)
	require.Equal(t, poison, page.Groups[0].Letters)
	seen := len(page.Letters)
	for page.Next != "" {
		before := page.Letters[len(page.Letters)-1].ID
		page = s.letters("l", "&limit=20&after="+page.Next)
		require.Nil(t, page.Groups)
		for _, d := range page.Letters {
			require.Less(t, d.ID, before)
			before = d.ID
		}
		seen += len(page.Letters)
	}
	require.Equal(t, poison+2, seen)
	require.Len(t, s.letters("l", "&group=23505").Letters, 1)
	require.Len(t, s.letters("l", "&group=23514:low&limit=500").Letters, poison)
	require.Empty(t, s.letters("l", "&group=23514:other").Letters)
	require.Empty(t, s.letters("l", "&group="+url.QueryEscape(`23514:low' or true --`)).Letters)

	s.exec(`alter table l drop constraint low`)
	done, next := 0, ""
	for first := true; first || next != ""; first = false {
		a := s.do(http.MethodPost, lettersPath+"/replay?table="+s.schema+".l&group=23514:low&limit=20&after="+next, "", "Content-Type", "-", "Prefer", "wait=50")
		require.Equal(t, 200, a.status, string(a.body))
		var out replayJSON
		a.into(t, &out)
		require.Zero(t, out.Failed)
		done += out.Replayed
		next = out.Next
	}
	require.Equal(t, poison, done)
	require.Equal(t, "300", s.text(`select count(*)::text from l where id >= 100`))
	require.Len(t, s.letters("l", "").Letters, 2)

	a := s.do(http.MethodDelete, lettersPath+"?table="+s.schema+".l&group=23505", "", "Content-Type", "-")
	require.JSONEq(t, `{"discarded":1,"more":false}`, string(a.body))
	require.Equal(t, "23503:l_owner_fkey", s.only("l").Group)
	for _, path := range []string{lettersPath + "/replay", lettersPath} {
		method := map[bool]string{true: http.MethodDelete, false: http.MethodPost}[path == lettersPath]
		require.Equal(t, 400, s.do(method, path, "", "Content-Type", "-").status, "not all of all tables")
	}
	s.balanced()
}

// TestReplayCorrected: columns in the body take the place of the letter's, and are
// checked as in any write.
func TestReplayCorrected(t *testing.T) {
	t.Parallel()
	s := setup(t, letterDDL)
	s.startFlusher()
	s.post("l", `{"id":7,"name":"seven","n":100}`)
	s.flushed()
	d := s.only("l")
	for body, want := range map[string]string{
		`{"n":"x"}`: `"code":"type_mismatch"`, `{"no":1}`: `"code":"unknown_column"`, `{"name":null}`: `"code":"null_not_allowed"`,
		`1`: `"code":"invalid_json_shape"`, `{`: `"code":"invalid_json"`, `{"name":"a\u0000b"}`: `"code":"nul_not_allowed"`,
	} {
		a := s.replay(d.ID, body)
		require.Contains(t, string(a.body), want, body)
		require.Contains(t, string(a.body), `"applied":"no"`)
	}
	require.Equal(t, d.ID, s.only("l").ID)
	require.Equal(t, 200, s.replay(d.ID, `{"id":9,"n":1}`, "Prefer", "wait=50").status)
	s.row(`{"id":9,"name":"seven","n":1,"code":null,"owner":null,"f":null,"spot":null}`, "l", "9")
	require.Empty(t, s.letters("l", "").Letters)

	s.post("l", `{"id":7,"n":100}`)
	s.flushed()
	s.post("l", `{"id":7,"n":7}`) // another row took the key
	a := s.replay(s.only("l").ID, `{"n":1}`)
	require.Contains(t, []int{409, 202}, a.status, string(a.body)) // it waits in the log, or Postgres has it already
	s.flushed()
	d = s.only("l")
	s.exec(`drop trigger grumble on l; alter table l rename column name to title`)
	s.refresh()
	require.Contains(t, string(s.replay(d.ID, "").body), `"code":"unknown_column"`)
	require.Equal(t, 200, s.replay(d.ID, `{"id":10,"n":1,"title":"ten"}`, "Prefer", "wait=50").status)
	require.Equal(t, "ten", s.text(`select title from l where id = 10`))

	s.do(http.MethodPost, s.path("l", "10", "increment"), `{"n":99}`).accept(t, 202)
	s.flushed()
	require.Contains(t, string(s.replay(s.only("l").ID, `{"title":"x"}`).body), `"code":"not_numeric"`)
	require.Equal(t, 200, s.replay(s.only("l").ID, `{"n":9}`, "Prefer", "wait=50").status)
	require.Equal(t, "10", s.text(`select n::text from l where id = 10`))
	s.balanced()
}

// TestReplayUpsert: a merge of a row that was not there adds it, as it would have.
func TestReplayUpsert(t *testing.T) {
	t.Parallel()
	s := setup(t, letterDDL)
	s.startFlusher()
	s.do(http.MethodPost, s.path("l"), `{"id":7,"n":100,"name":"merged"}`, "Prefer", "resolution=merge-duplicates").accept(t, 202)
	s.do(http.MethodPost, s.path("l"), `{"id":8,"n":100}`, "Prefer", "resolution=ignore-duplicates").accept(t, 202)
	s.flushed()
	s.exec(`alter table l drop constraint low; insert into l (id, n) values (8, 3)`)
	a := s.do(http.MethodPost, lettersPath+"/replay?table="+s.schema+".l", "", "Content-Type", "-", "Prefer", "wait=50")
	a.replayed(t, 2, 0)
	s.flushed()
	require.Equal(t, `[[1,0],[7,100],[8,3]]`, s.text(`select replace(json_agg(json_build_array(id, n) order by id)::text, ', ', ',') from l`))
	require.Empty(t, s.letters("l", "").Letters)
}

// TestReplayOtherTables: without a key, without an index, and written directly.
func TestReplayOtherTables(t *testing.T) {
	t.Parallel()
	s := setupWith(t, letterDDL, options{served: func(sv *api.Served) {
		sv.Target.Index = sv.Table.HasKey() && !strings.HasSuffix(sv.Target.Table, ".l")
	}})
	s.startFlusher()
	for range 3 {
		s.post("bag", `{"a":-1}`)
	}
	s.do(http.MethodPut, s.path("l", "7"), `{"n":100}`).accept(t, 202)
	s.post("l", `{"id":8,"n":100}`)
	s.flushed()
	s.exec(`alter table bag drop constraint bag_a_check; alter table l drop constraint low`)
	for _, tbl := range []string{"bag", "l"} {
		first := s.letters(tbl, "").Letters[0]
		require.Equal(t, 200, s.replay(first.ID, "", "Prefer", "wait=50").status)
		a := s.do(http.MethodPost, lettersPath+"/replay?table="+s.schema+"."+tbl, "", "Content-Type", "-", "Prefer", "wait=50")
		require.Equal(t, 200, a.status, string(a.body))
		require.Empty(t, s.letters(tbl, "").Letters)
	}
	require.Equal(t, 3, s.count("bag"))
	require.Equal(t, "2", s.text(`select count(*)::text from l where n = 100`))
	s.balanced()
}

func TestReplayDirectly(t *testing.T) {
	t.Parallel()
	for _, strategy := range directly {
		s := setup(t, letterDDL)
		s.startFlusher()
		s.exec(`insert into l (id, n) values (7, 90)`)
		for _, n := range []string{"20", "1", "2"} {
			s.do(http.MethodPost, s.path("l", "7", "increment"), `{"n":`+n+`}`).accept(t, 202)
		}
		s.post("bag", `[{"a":-1},{"a":-2}]`)
		s.flushed()
		for _, tbl := range []string{"l", "bag"} {
			require.NoError(t, s.buf.SetStrategy(t.Context(), s.targets[s.schema+"."+tbl], strategy))
		}
		first := s.letters("l", "").Letters
		head := first[len(first)-1]
		a := s.replay(head.ID, "")
		require.Equal(t, 422, a.status, string(a.body))
		require.Equal(t, len(first), len(s.letters("l", "").Letters), "what is refused stays as it is")
		a = s.do(http.MethodPost, lettersPath+"/replay?table="+s.schema+".bag", "", "Content-Type", "-")
		require.Equal(t, 207, a.status)
		a.replayed(t, 0, 2)
		require.Len(t, s.letters("bag", "").Letters, 2)
		s.exec(`alter table l drop constraint low; alter table bag drop constraint bag_a_check`)
		var wait sync.WaitGroup
		for range 6 {
			wait.Go(func() {
				if a := s.replay(head.ID, ""); a.status != 200 && a.status != 404 {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
			wait.Go(func() {
				s.do(http.MethodPost, lettersPath+"/replay?table="+s.schema+".bag", "", "Content-Type", "-")
			})
		}
		wait.Wait()
		require.Equal(t, "113", s.text(`select n::text from l where id = 7`))
		require.Equal(t, 2, s.count("bag"))
		require.Empty(t, s.letters("l", "").Letters)
		require.Empty(t, s.letters("bag", "").Letters)
	}
}

// TestNoDeadLetterTable (F18): a row that cannot be set aside is not passed over:
// its table halts, others go on, and it goes on by itself.
func TestNoDeadLetterTable(t *testing.T) {
	t.Parallel()
	s := setup(t, letterDDL)
	s.startFlusher()
	s.exec(`alter table headpond.dead_letters rename to hidden`)
	s.post("bag", `[{"a":1},{"a":-1},{"a":2}]`)
	name := s.schema + ".bag"
	require.Eventually(t, func() bool { return s.flusher.Stats().Tables[name].Halted }, 30*time.Second, time.Millisecond)
	require.Equal(t, "0", s.text(`select sum(seq)::text from headpond.watermarks where table_name = $1`, name))
	require.Zero(t, s.count("bag"))
	s.post("l", `{"id":7}`)
	require.Eventually(t, func() bool { return s.text(`select count(*)::text from l where id = 7`) == "1" }, 30*time.Second, time.Millisecond)
	require.Equal(t, 503, s.get(lettersPath).status)
	s.exec(`alter table headpond.hidden rename to dead_letters`)
	s.flushed()
	require.Equal(t, 2, s.count("bag"))
	require.Equal(t, "23514:bag_a_check", s.only("bag").Group)
	s.balanced()
}

// TestDeadLettersAreBounded: what a list holds of a letter does not grow with it.
func TestDeadLettersAreBounded(t *testing.T) {
	t.Parallel()
	s := setup(t, letterDDL)
	s.startFlusher()
	s.post("l", `{"id":7,"n":100,"name":"`+strings.Repeat("ü", 100_000)+`"}`)
	s.flushed()
	d := s.only("l")
	require.Nil(t, d.Row)
	s.get(letterPath(d.ID, "")).into(t, &d)
	require.Greater(t, len(d.Row), 200_000)
	require.Len(t, *d.Writes["name"], 200_000)
	for _, path := range []string{"/0", "/x", "/-1", "/99999999999999999999", "/9223372036854775807", "/1%00"} {
		require.Equal(t, 404, s.get(lettersPath+path).status, path)
	}
	for _, query := range []string{"?limit=0", "?limit=x", "?after=x", "?table=%00", "?group=%ff"} {
		require.Equal(t, 400, s.get(lettersPath+query).status, query)
	}
	require.EqualValues(t, 1, s.status().Letters)
	s.do(http.MethodDelete, letterPath(d.ID, ""), "", "Content-Type", "-")
	st := s.status()
	require.Zero(t, st.Letters)
	require.EqualValues(t, 1, st.Ledger.Dead, "the ledger counts what ever was")
	require.True(t, st.Ledger.closes())
}
