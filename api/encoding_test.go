package api_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
)

// encoders by the name of the encoding.
var encoders = map[string]func(io.Writer) io.WriteCloser{
	"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"zstd": func(w io.Writer) io.WriteCloser {
		e, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			panic(err)
		}
		return e
	},
}

func encode(t testing.TB, encoding, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := encoders[encoding](&b)
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

// zstdFrame is text in a frame that wants a window of 1 KiB << window
// (RFC 8878, section 3.1.1).
func zstdFrame(window byte, text string) string {
	return "\x28\xb5\x2f\xfd\x00" + string([]byte{window << 3, byte(len(text)<<3 | 1), 0, 0}) + text
}

// TestEncodings: every format in every encoding, in members one after another
// too, from many clients at once.
func TestEncodings(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v text)`)
	var clients sync.WaitGroup
	post := func(encoding, body, kind string, rows int) {
		clients.Go(func() {
			a, err := s.try("POST", s.path("t"), strings.NewReader(body), "Content-Encoding", encoding, "Content-Type", kind)
			if err != nil || a.status != http.StatusAccepted {
				t.Errorf("%s %s: %v %+v", encoding, kind, err, a)
			}
			if kind != "application/json" && a.accept(t, 202).Accepted != rows {
				t.Errorf("%s %s: %s", encoding, kind, a.body)
			}
		})
	}
	id := 0
	for range 10 {
		for name := range encoders {
			post(name, encode(t, name, row(`{"id":%d,"v":"x"}`, id)), "application/json", 1)
			post(name, encode(t, name, lines(400, func(i int) string { return row(`{"id":%d,"v":"%d"}`, id+1+i, i) })), "application/x-ndjson", 400)
			post(name, encode(t, name, "id,v\n")+encode(t, name, lines(400, func(i int) string { return row(`%d,x`, id+401+i) })), "text/csv", 400)
			id += 801
		}
	}
	clients.Wait()
	require.EqualValues(t, id, s.accepted("t"))
	body := row(`{"id":%d}`, id)
	s.post("t", encode(t, "gzip", body), "Content-Encoding", "X-GZIP")
	s.post("t", row(`{"id":%d}`, id+1), "Content-Encoding", "Identity")
	s.post("t", row(`{"id":%d}`, id+2), "Content-Encoding", "")
}

// TestBadEncodings: an encoded body that is cut off or altered is never taken
// for another.
func TestBadEncodings(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v text)`)
	for name := range encoders {
		encoding := []string{"Content-Encoding", name}
		text := `[{"id":"x"},{"id":"` + strings.Repeat("xy", 100) + `"}]` // never accepted
		whole := encode(t, name, text)
		s.do("POST", s.path("t"), whole, encoding...).problem(t, 422, "invalid_rows")
		for n := 2; n < len(whole); n++ {
			s.do("POST", s.path("t"), whole[:n], encoding...).problem(t, 400, "bad_encoding")
		}
		for i := range whole {
			altered := []byte(whole)
			altered[i] ^= 0x10
			a := s.do("POST", s.path("t"), string(altered), encoding...)
			if a.status == http.StatusUnprocessableEntity { // a bit that says nothing, such as the time in gzip's header
				require.Len(t, a.problem(t, 422, "invalid_rows").Errors, 2)
				continue
			}
			a.problem(t, 400, "bad_encoding")
		}
		s.do("POST", s.path("t"), text, encoding...).problem(t, 400, "bad_encoding")
		s.do("POST", s.path("t"), whole+"more", encoding...).problem(t, 400, "bad_encoding")
		s.do("POST", s.path("t"), "", encoding...).problem(t, 400, "empty_body")
		s.do("POST", s.path("t"), encode(t, name, ""), encoding...).problem(t, 400, "empty_body")
		s.do("POST", s.path("t"), encode(t, name, whole), encoding...).problem(t, 400, "invalid_json")
		s.post("t", encode(t, name, row(`{"id":%d}`, s.accepted("t"))), encoding...) // the decoders are none the worse
	}
	s.do("POST", s.path("t"), encode(t, "gzip", "{}"), "Content-Encoding", "zstd").problem(t, 400, "bad_encoding")
	s.do("POST", s.path("t"), zstdFrame(13, `{"id":"x"}`), "Content-Encoding", "zstd").problem(t, 422, "type_mismatch") // 8 MiB: RFC 9659
	s.do("POST", s.path("t"), zstdFrame(14, `{"id":"x"}`), "Content-Encoding", "zstd").problem(t, 400, "bad_encoding")
	for _, headers := range [][]string{
		{"Content-Encoding", "gzip, gzip"}, {"Content-Encoding", "gzip", "Content-Encoding", "zstd"}, {"Content-Encoding", "br"},
		{"Content-Encoding", "deflate"}, {"Content-Encoding", "gzip;q=1"}, {"Content-Encoding", strings.Repeat("x", 5000)},
	} {
		a := s.do("POST", s.path("t"), encode(t, "gzip", encode(t, "gzip", "{}")), headers...)
		a.problem(t, 415, "unsupported_encoding")
		require.Equal(t, "gzip, zstd, identity", a.header.Get("Accept-Encoding"))
	}
	require.EqualValues(t, 2, s.accepted("t"))
}

// TestEncodedBodyLimit: to the byte, on the wire and decoded.
func TestEncodedBodyLimit(t *testing.T) {
	t.Parallel()
	const limit = 4096
	s := setupWith(t, `create table t (id int primary key, v text)`, options{limits: api.Limits{Body: limit}})
	for name := range encoders {
		encoding := []string{"Content-Encoding", name}
		body := func(size int) string {
			head := row(`{"id":%d,"v":"`, s.accepted("t"))
			return encode(t, name, head+strings.Repeat("x", size-len(head)-2)+`"}`)
		}
		s.post("t", body(8*limit), encoding...)
		s.do("POST", s.path("t"), body(8*limit+1), encoding...).problem(t, 413, "body_too_large")
		s.do("POST", s.path("t"), body(100*limit), encoding...).problem(t, 413, "body_too_large")
		s.do("POST", s.path("t"), strings.Repeat(encode(t, name, " "), limit), encoding...).problem(t, 413, "body_too_large") // on the wire
	}
	require.EqualValues(t, 2, s.accepted("t"))
}

// TestBombs: a gibibyte in some kilobytes costs no more than a body that is
// as large as it may be: its buffers, those it outgrew, and a window. Not
// parallel, or others would be counted.
func TestBombs(t *testing.T) {
	const limit = 1 << 20
	const atMost = 48 << 20
	s := setupWith(t, `create table t (id int primary key, v text)`, options{limits: api.Limits{Body: limit}})
	bomb := func(encoding string) string {
		part := encode(t, encoding, strings.Repeat(" ", 16<<20))
		return strings.Repeat(part, min(64, limit/len(part)))
	}
	giant := "\x28\xb5\x2f\xfd\xe0" + string(binary.LittleEndian.AppendUint64(nil, 1<<40)) // says that a tebibyte follows
	for _, c := range []struct {
		name, encoding, body string
		status               int
		code                 string
	}{
		{"gzip", "gzip", bomb("gzip"), 413, "body_too_large"},
		{"zstd", "zstd", bomb("zstd"), 413, "body_too_large"},
		{"giant window", "zstd", zstdFrame(20, ""), 400, "bad_encoding"},
		{"giant size", "zstd", giant + strings.Repeat("x", 100), 400, "bad_encoding"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		a := s.do("POST", s.path("t"), c.body, "Content-Encoding", c.encoding)
		runtime.ReadMemStats(&after)
		a.problem(t, c.status, c.code)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(atMost), c.name)
	}
	require.Zero(t, s.accepted("t"))
}
