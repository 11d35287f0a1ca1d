package client

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// kind of a call, a bit each: an option knows which calls it is for.
type kind uint

const (
	kindInsert kind = 1 << iota
	kindInsertMany
	kindChange // Put, Patch, Increment, Delete
	kindBulk
	kindWriter // the batches of a Writer
	kindGet
	kindList
	kindOther // Flush, Receipt: they take no options

	kindWrite = kindInsert | kindInsertMany | kindChange | kindBulk | kindWriter
	kindMany  = kindInsertMany | kindBulk | kindWriter
)

// call is one request, however often it is sent.
type call struct {
	kind   kind
	method string
	path   string // under the base URL, encoded
	query  url.Values
	header http.Header
	prefer []string
	body   []byte
	wait   time.Duration // what the server is asked to wait
	into   any           // where the rows of the answer go; nil for nowhere
	keyed  bool          // it has an Idempotency-Key
}

// safe reports whether sending the call twice does what sending it once does.
func (r *call) safe() bool { return r.kind&kindWrite == 0 || r.keyed }

// CallOption is an option of one call. A call refuses an option that has no
// meaning for it.
type CallOption struct {
	name string
	on   kind
	set  func(*call)
}

func newCall(k kind, method, path string, opts []CallOption) (*call, error) {
	r := &call{kind: k, method: method, path: path, query: make(url.Values), header: make(http.Header)}
	if k&kindWrite != 0 {
		IdempotencyKey(rand.Text()).set(r)
	}
	for _, o := range opts {
		if o.on&k == 0 {
			return nil, fmt.Errorf("client: %s has no meaning for %s %s", o.name, method, path)
		}
		o.set(r)
	}
	return r, nil
}

// IfMatch makes Put, Patch, Increment and Delete write only if the row has this
// ETag, or exists at all if it is "*"; else the error is ErrVersionMismatch. It
// is checked in the same step as the write.
func IfMatch(etag string) CallOption {
	return CallOption{"IfMatch", kindChange, func(r *call) { r.header.Set("If-Match", etag) }}
}

// IfNoneMatch makes Put, Patch, Increment and Delete write only if the row does
// not have this ETag, or does not exist if it is "*"; else the error is
// ErrVersionMismatch. With Get, a row that still has this ETag is not sent
// again: see Read.NotModified.
func IfNoneMatch(etag string) CallOption {
	return CallOption{"IfNoneMatch", kindChange | kindGet, func(r *call) { r.header.Set("If-None-Match", etag) }}
}

// Wait makes a write return when it is committed in Postgres, or after d: then
// its Durability is not "committed". A row that Postgres refuses meanwhile is
// ErrDeadLettered, or ErrRowExists if its key exists. List flushes first what
// was accepted before: see Read.Flushed. The server caps d, at 60 s by default.
func Wait(d time.Duration) CallOption {
	return CallOption{"Wait", kindWrite | kindList, func(r *call) {
		r.wait = d
		r.prefer = append(r.prefer, "wait="+strconv.FormatFloat(d.Seconds(), 'f', -1, 64))
	}}
}

// Return decodes the row as it will be stored into dst, a pointer. For many
// rows dst points to a slice: of the accepted rows in their order, null for a
// deleted one. When a generated column cannot be computed now, dst is left as
// it is.
func Return(dst any) CallOption {
	return CallOption{"Return", kindWrite &^ kindWriter, func(r *call) { r.into = dst }}
}

// MergeDuplicates makes an insert of a key that exists change the columns that
// are given.
func MergeDuplicates() CallOption {
	return preference("MergeDuplicates", kindInsert|kindInsertMany|kindWriter, "resolution=merge-duplicates")
}

// IgnoreDuplicates makes an insert of a key that exists change nothing.
func IgnoreDuplicates() CallOption {
	return preference("IgnoreDuplicates", kindInsert|kindInsertMany|kindWriter, "resolution=ignore-duplicates")
}

// Strict makes InsertMany and Bulk apply all or nothing. It is InsertMany's
// default.
func Strict() CallOption {
	return preference("Strict", kindInsertMany|kindBulk, "handling=strict")
}

// Lenient makes InsertMany and Bulk apply the good rows. It is Bulk's default.
func Lenient() CallOption {
	return preference("Lenient", kindInsertMany|kindBulk, "handling=lenient")
}

func preference(name string, on kind, prefer string) CallOption {
	return CallOption{name, on, func(r *call) { r.prefer = append(r.prefer, prefer) }}
}

// headerKey is Idempotency-Key, which servers read in any case. Spelled as usual
// it would make net/http send a request again by itself when its connection
// ends: nobody would know of the first, which may have been applied, and the
// answer to the second may be that nothing was.
const headerKey = "idempotency-key"

// IdempotencyKey names a write, 1 to 255 visible ASCII characters: one that is
// sent again under its key, even by another process, changes nothing and gets
// the answer of the first. Without this option it is 128 random bits for each
// call. "" sends none: the call is then repeated only when it was certainly not
// applied.
func IdempotencyKey(key string) CallOption {
	return CallOption{"IdempotencyKey", kindWrite &^ kindWriter, func(r *call) {
		delete(r.header, headerKey)
		if r.keyed = key != ""; r.keyed {
			r.header[headerKey] = []string{key}
		}
	}}
}

// Select makes Get give only these columns.
func Select(columns ...string) CallOption {
	return CallOption{"Select", kindGet, func(r *call) { r.query.Set("select", strings.Join(columns, ",")) }}
}
