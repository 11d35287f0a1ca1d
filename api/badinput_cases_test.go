package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// The cases of badInput, in the order of the matrix.

// column is a row of bad with one more member, which is refused.
func column(name, value, code string) badCase {
	return badCase{
		name: name + "=" + value[:min(len(value), 30)], body: `{"id":1,"must":"m","` + name + `":` + value + `}`,
		status: 422, code: code, pointers: []string{"/" + name},
	}
}

// columns are cases of one code: name, value, name, value, …
func columns(code string, pairs ...string) (out []badCase) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, column(pairs[i], pairs[i+1], code))
	}
	return out
}

// inEach is every value in every column.
func inEach(code, names string, values ...string) (out []badCase) {
	for _, name := range strings.Fields(names) {
		for _, value := range values {
			out = append(out, column(name, value, code))
		}
	}
	return out
}

// wholes are bodies of one code, which are refused as such: name, body, …
func wholes(code string, pairs ...string) (out []badCase) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, badCase{name: pairs[i], body: pairs[i+1], status: 400, code: code})
	}
	return out
}

// one is a row that is refused for what is at the pointers.
func one(name, tbl, body, code string, pointers ...string) badCase {
	return badCase{name: name, table: tbl, body: body, status: 422, code: code, pointers: pointers}
}

// get is a read of a path.
func get(name, path string, status int, code string) badCase {
	return badCase{name: name, method: http.MethodGet, path: path, status: status, code: code}
}

var ndjson = []string{"Content-Type", "application/x-ndjson"}

// writes are all the requests that take a body, for tables, keys and bodies
// that are well: what is given on top is what is wrong.
func writes() []badCase {
	row := `{"id":1,"must":"m"}`
	return []badCase{
		{name: "POST", path: "/v1/{s}.bad", body: row},
		{name: "PUT", method: http.MethodPut, path: "/v1/{s}.bad/1", body: row},
		{name: "PATCH", method: http.MethodPatch, path: "/v1/{s}.bad/1", body: `{"must":"m"}`},
		{name: "increment", path: "/v1/{s}.bad/1/increment", body: `{"i4":1}`},
		{name: "_bulk", path: "/v1/_bulk", body: `{"op":"insert","table":"{s}.bad","row":` + row + `}`, headers: ndjson},
	}
}

// every gives each of the writes the same headers, and perhaps another body.
func every(name, body string, status int, code string, headers ...string) (out []badCase) {
	for _, w := range writes() {
		w.name = w.name + " " + name
		w.headers = slices.Concat(w.headers, headers)
		if len(headers) > 0 && headers[0] == "Content-Type" {
			w.headers = headers
		}
		if body != "same" {
			w.body = body
		}
		w.status, w.code = status, code
		out = append(out, w)
	}
	return out
}

func badNames() []badCase {
	var out []badCase
	for name, path := range map[string]string{
		"unknown table": "nothing", "system table": "pg_catalog.pg_user", "system table 2": "pg_user", "table of Headpond": "headpond.watermarks",
		"injection": "%22a%22;%20drop%20table%20x", "up": "..%2Fx", "up 2": "%2E%2E", "NUL": "%00", "invalid UTF-8": "%ff", "long": strings.Repeat("x", 5000),
		"another case": "{s}.BAD", "another schema": "public.bad", "word": "_schema",
	} {
		key := "/v1/" + path + "/1"
		out = append(out,
			badCase{name: "POST " + name, path: "/v1/" + path, body: `{"id":1}`, status: 404, code: "table_not_found"},
			badCase{name: "PUT " + name, method: http.MethodPut, path: key, body: `{}`, status: 404, code: "table_not_found"},
			badCase{name: "PATCH " + name, method: http.MethodPatch, path: key, body: `{}`, status: 404, code: "table_not_found"},
			badCase{name: "DELETE " + name, method: http.MethodDelete, path: key, status: 404, code: "table_not_found"},
			badCase{name: "increment " + name, path: key + "/increment", body: `{}`, status: 404, code: "table_not_found"},
			badCase{name: "flush " + name, path: "/v1/" + path + "/flush", status: 404, code: "table_not_found"},
			get("GET "+name, key, 404, "table_not_found"), get("list "+name, "/v1/"+path, 404, "table_not_found"),
			get("schema "+name, "/v1/"+path+"/_schema", 404, "table_not_found"))
	}
	return append(out,
		badCase{name: "no table", path: "/v1/", body: `{"id":1}`, status: 404, code: "not_found"},
		get("unknown path", "/v2/x", 404, "not_found"), get("unknown path 2", "/admin/v1/nothing", 404, "not_found"),
		badCase{name: "unknown table in _bulk", path: "/v1/_bulk", body: `{"op":"insert","table":"nothing","row":{}}`, headers: ndjson, status: 422, code: "invalid_rows", pointers: []string{"/0"}},
		get("receipt that is none", "/v1/receipts/x", 404, "receipt_not_found"),
		get("receipt of no table", "/v1/receipts/nothing.0.1.1", 404, "receipt_not_found"),
		get("receipt of no partition", "/v1/receipts/{s}.bad.99.1.1", 404, "receipt_not_found"),
		get("receipt of a giant partition", "/v1/receipts/{s}.bad.99999999999.1.1", 404, "receipt_not_found"),
		get("receipt of no epoch", "/v1/receipts/{s}.bad.0.7.1", 404, "receipt_not_found"),
		get("receipt of epoch 0", "/v1/receipts/{s}.bad.0.0.1", 404, "receipt_not_found"),
		get("receipt of no seq", "/v1/receipts/{s}.bad.0.1.1", 404, "receipt_not_found"),
		get("receipt of seq 0", "/v1/receipts/{s}.bad.0.1.0", 404, "receipt_not_found"),
		get("receipt of a negative seq", "/v1/receipts/{s}.bad.0.1.-1", 404, "receipt_not_found"),
		get("receipt of a giant seq", "/v1/receipts/{s}.bad.0.1.99999999999999999999", 404, "receipt_not_found"),
		get("receipt of a view", "/v1/receipts/{s}.looks.0.1.1", 404, "receipt_not_found"),
		get("wait that is no time", "/v1/receipts/{s}.bad.0.1.1?wait=soon", 400, "bad_filter"),
		get("negative wait", "/v1/receipts/{s}.bad.0.1.1?wait=-1s", 400, "bad_filter"))
}

func badMethods() []badCase {
	method := func(method, path string) badCase {
		return badCase{name: method + " " + path, method: method, path: path, status: 405, code: "method_not_allowed"}
	}
	return []badCase{
		method("DELETE", "/v1/{s}.bad"), method("PUT", "/v1/{s}.bad"), method("PATCH", "/v1"), method("POST", "/livez"),
		method("POST", "/v1/{s}.bad/1"), method("DELETE", "/v1/{s}.bad/_schema"), method("PUT", "/v1/receipts/x.0.1.1"),
		method("POST", "/admin/v1/status"), method("GET", "/v1/{s}.bad/1/increment"), method("PUT", "/v1"), method("BREW", "/v1/{s}.bad"),
	}
}

func badKeys() (out []badCase) {
	key := func(name, path string, status int, code string) {
		path = "/v1/{s}." + path
		out = append(out, get("GET "+name, path, status, code),
			badCase{name: "HEAD " + name, method: http.MethodHead, path: path, status: status},
			badCase{name: "PUT " + name, method: http.MethodPut, path: path, body: `{}`, status: status, code: code},
			badCase{name: "PATCH " + name, method: http.MethodPatch, path: path, body: `{}`, status: status, code: code},
			badCase{name: "DELETE " + name, method: http.MethodDelete, path: path, status: status, code: code},
			badCase{name: "increment " + name, path: path + "/increment", body: `{}`, status: status, code: code})
	}
	key("of a wrong type", "bad/x", 422, "invalid_key")
	key("out of range", "bad/9223372036854775808", 422, "invalid_key")
	key("with a fraction", "bad/1.5", 422, "invalid_key")
	key("that is no uuid", "byuuid/x", 422, "invalid_key")
	key("with too few parts", "pair/1", 400, "bad_key")
	key("with too many parts", "pair/1,2,3", 400, "bad_key")
	key("with a part of a wrong type", "pair/x,y", 422, "invalid_key")
	key("with NUL", "bytext/a%00b", 400, "bad_key")
	key("with a control character", "bytext/a%0Ab", 400, "bad_key")
	key("with DEL", "bytext/a%7Fb", 400, "bad_key")
	key("with invalid UTF-8", "bytext/a%ffb", 400, "bad_key")
	key("with overlong UTF-8", "bytext/%c0%af", 400, "bad_key")
	key("with a surrogate", "bytext/%ed%a0%80", 400, "bad_key")
	key("too long", "bytext/"+strings.Repeat("k", 1025), 422, "invalid_key")
	key("empty", "bad/", 400, "bad_key")
	key("empty, of a text", "bytext/", 400, "bad_key")
	key("empty, of two columns", "pair/", 400, "bad_key")
	out = append(out, one("empty in a row", "bytext", `{"id":""}`, "invalid_key", ""), one("with a control character in a row", "bytext", `{"id":"a\nb"}`, "invalid_key", ""))
	return append(out, get("unknown column selected", "/v1/{s}.bad/1?select=id,nope", 400, "bad_filter"),
		badCase{name: "_bulk key of a wrong type", path: "/v1/_bulk", body: `{"op":"delete","table":"{s}.bad","key":"x"}`, headers: ndjson, status: 422, code: "invalid_rows", pointers: []string{"/0"}})
}

// takes is where and how a write tells the media types that it takes.
var takes = map[string][2]string{
	"POST": {"Accept-Post", "application/json, application/x-ndjson, text/csv"}, "PUT": {"Accept", "application/json"},
	"PATCH": {"Accept-Patch", "application/json"}, "increment": {"Accept-Post", "application/json"}, "_bulk": {"Accept-Post", "application/x-ndjson"},
}

func badMedia() (out []badCase) {
	for name, kind := range map[string]string{
		"without": "-", "form": "application/x-www-form-urlencoded", "multipart": "multipart/form-data; boundary=x", "text": "text/plain",
		"CSV without a header": "text/csv; header=absent", "merge patch": "application/merge-patch+json", "any": "*/*", "XML": "application/xml",
		"latin-1": "application/json; charset=iso-8859-1", "UTF-16": "application/json; charset=utf-16", "broken": "application/json; charset",
	} {
		out = append(out, every(name, "same", 415, "unsupported_media_type", "Content-Type", kind)...)
	}
	for _, c := range every("of many rows", "same", 415, "unsupported_media_type", "Content-Type", "application/x-ndjson")[1:4] { // PUT, PATCH, increment
		out = append(out, c)
		c.name, c.headers = c.name+" as CSV", []string{"Content-Type", "text/csv"}
		out = append(out, c)
	}
	for i := range out {
		write, _, _ := strings.Cut(out[i].name, " ")
		told := takes[write]
		out[i].tells = told[:]
		for _, other := range []string{"Accept", "Accept-Patch", "Accept-Post"} {
			if other != told[0] {
				out[i].tells = append(out[i].tells, other, "")
			}
		}
	}
	bulk := every("as one document", "same", 415, "unsupported_media_type", "Content-Type", "application/json")[4]
	bulk.tells = []string{takes["_bulk"][0], takes["_bulk"][1]}
	return append(out, bulk)
}

func badEncodings() (out []badCase) {
	for name, headers := range map[string][]string{
		"deflate": {"Content-Encoding", "deflate"}, "br": {"Content-Encoding", "br"}, "two": {"Content-Encoding", "identity, gzip"},
		"two fields": {"Content-Encoding", "identity", "Content-Encoding", "gzip"}, "gzip twice": {"Content-Encoding", "gzip, gzip"},
	} {
		out = append(out, every(name, "same", 415, "unsupported_encoding", headers...)...)
	}
	for i := range out {
		out[i].tells = []string{"Accept-Encoding", "gzip, zstd, identity", "Accept-Post", ""}
	}
	return out
}

func brokenEncodings() (out []badCase) {
	const gz = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\xaaV\xcaLQ\xb22\xac\x05\x04\x00\x00\xff\xff\x0f\x07\xc3\x4d\x08\x00\x00\x00"
	for name, body := range map[string]string{"not gzip": `{"id":1}`, "truncated": gz[:20], "header alone": gz[:10], "wrong sum": gz[:27] + "\x00\x00\x00\x00\x08\x00\x00\x00"} {
		out = append(out, every(name, body, 400, "bad_encoding", "Content-Encoding", "gzip")...)
	}
	return append(out, every("not zstd", `{"id":1}`, 400, "bad_encoding", "Content-Encoding", "zstd")...)
}

func badSizes() []badCase {
	giant := `{"must":"` + strings.Repeat("x", 64<<10) + `"}`
	return every("over the limit", giant, 413, "body_too_large")
}

func badEmpties() []badCase {
	return slices.Concat(every("empty", "", 400, "empty_body"), wholes("empty_body", "blank", " \r\n\t"), []badCase{
		{name: "NDJSON", headers: ndjson, status: 400, code: "empty_body"},
		{name: "CSV", headers: []string{"Content-Type", "text/csv"}, status: 400, code: "empty_body"},
		{name: "gzip", headers: []string{"Content-Encoding", "gzip"}, status: 400, code: "empty_body"},
	})
}

func badSyntax() []badCase {
	return append(wholes("invalid_json",
		"not JSON", "id=1", "html", "<a/>",
		"truncated", `{"id":1,"must":"m"`, "truncated string", `{"id":1,"must":"m`,
		"truncated array", `[{"id":1,"must":"m"},`, "open array", `[{"id":1,"must":"m"}`,
		"trailing", `{"id":1,"must":"m"}x`, "trailing bracket", `{"id":1,"must":"m"}]`,
		"two documents", `{"id":1,"must":"m"}{"id":2,"must":"m"}`,
		"two documents, two lines", "{\"id\":1,\"must\":\"m\"}\n{\"id\":2,\"must\":\"m\"}",
		"two arrays", `[{"id":1,"must":"m"}][]`, "no comma", `[{"id":1,"must":"m"}{"id":2,"must":"m"}]`,
		"BOM", "\xef\xbb\xbf{\"id\":1,\"must\":\"m\"}", "BOM, array", "\xef\xbb\xbf[]",
		"UTF-16LE", "\xff\xfe{\x00}\x00", "UTF-16BE", "\xfe\xff\x00{\x00}", "UTF-16LE without BOM", "{\x00\"\x00i\x00", "NUL bytes", "\x00\x00",
		"trailing comma", `{"id":1,}`, "comment", `{"id":1/*x*/}`, "single quotes", `{'id':1}`, "bare name", `{id:1}`,
		"leading zero", `{"id":01}`, "plus", `{"id":+1}`, "hex", `{"id":0x1}`, "bare point", `{"id":.5}`,
		"raw newline", "{\"id\":1,\"must\":\"a\nb\"}", "bad escape", `{"id":1,"must":"\x41"}`, "True", `{"id":1,"b":True}`),
		badCase{name: "PUT truncated", method: http.MethodPut, path: "/v1/{s}.bad/1", body: `{"must":"m"`, status: 400, code: "invalid_json"},
		badCase{name: "PATCH trailing", method: http.MethodPatch, path: "/v1/{s}.bad/1", body: `{"must":"m"} x`, status: 400, code: "invalid_json"},
		badCase{name: "increment twice", path: "/v1/{s}.bad/1/increment", body: `{"i4":1}{"i4":1}`, status: 400, code: "invalid_json"},
		badCase{name: "_bulk, every line", path: "/v1/_bulk", body: "{\n{}x\n\xff\nnull x", headers: ndjson, status: 422, code: "invalid_rows", pointers: []string{"/0", "/1", "/2", "/3"}})
}

func badShapes() []badCase {
	return append(wholes("invalid_json_shape", "null", `null`, "number", `1`, "string", `"x"`, "true", `true`,
		"array of numbers", `[1]`, "array of null", `[null]`, "array of arrays", `[[]]`),
		badCase{name: "PUT of an array", method: http.MethodPut, path: "/v1/{s}.bad/1", body: `[{"must":"m"}]`, status: 400, code: "invalid_json_shape"},
		badCase{name: "PATCH with null", method: http.MethodPatch, path: "/v1/{s}.bad/1", body: `null`, status: 400, code: "invalid_json_shape"},
		badCase{name: "increment by a number", path: "/v1/{s}.bad/1/increment", body: `1`, status: 400, code: "invalid_json_shape"},
		badCase{name: "_bulk, every line", path: "/v1/_bulk", headers: ndjson, status: 422, code: "invalid_rows",
			body: lines(8, func(i int) string {
				return []string{
					`[]`, `null`, `{"op":"upsert","table":"{s}.bad"}`, `{"op":"insert","table":"{s}.bad"}`, `{"op":"delete","table":"{s}.bad","key":"1","row":{}}`,
					`{"op":"patch","table":"{s}.bad","row":{}}`, `{"op":"put","table":"{s}.bad","key":"1","row":[]}`, `{"op":"put","table":"{s}.bad","more":1}`,
				}[i]
			}),
			pointers: []string{"/0", "/1", "/2/op", "/3/row", "/4/row", "/5/key", "/6", "/7"}})
}

func badUTF8() []badCase {
	return wholes("invalid_utf8", "value", "{\"id\":1,\"must\":\"a\xffb\"}", "name", "{\"id\":1,\"m\xff\":1}",
		"overlong", "{\"id\":1,\"must\":\"\xc0\xaf\"}", "CESU surrogate", "{\"id\":1,\"must\":\"\xed\xa0\x80\"}",
		"truncated", "{\"id\":1,\"must\":\"\xe2\x82\"}", "nested", "{\"id\":1,\"jb\":{\"a\":[\"\xff\"]}}",
		"in an array's row", "[{\"id\":1,\"must\":\"a\"},{\"id\":2,\"must\":\"\xff\"}]")
}

func badDuplicates() []badCase {
	return append(wholes("duplicate_field", "twice", `{"id":1,"id":1,"must":"m"}`, "escaped", `{"id":1,"\u0069d":2,"must":"m"}`,
		"nested", `{"id":1,"must":"m","jb":{"a":{"b":1,"b":2}}}`, "in json", `{"id":1,"must":"m","j":{"a":1,"a":1}}`,
		"unknown name", `{"id":1,"must":"m","x":1,"x":1}`, "in an array's row", `[{"id":1,"must":"m"},{"id":2,"id":3,"must":"m"}]`),
		badCase{name: "CSV header", body: "id,must,id\n1,m,1", headers: []string{"Content-Type", "text/csv"}, status: 400, code: "duplicate_field"},
		badCase{name: "_bulk line", path: "/v1/_bulk", body: `{"op":"insert","op":"delete","table":"{s}.bad","key":"1"}`, headers: ndjson, status: 422, code: "invalid_rows", pointers: []string{"/0"}},
		one("another case is another name", "bad", `{"ID":1,"id":1,"must":"m"}`, "unknown_column", "/ID"))
}

func badDepths() []badCase {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	names := make([]string, 4000)
	for i := range names {
		names[i] = fmt.Sprintf(`"n%d":%d`, i, i)
	}
	return append(wholes("too_deep", "arrays", `{"id":1,"must":"m","jb":`+deep(33)+`}`, "far too deep", `{"id":1,"must":"m","jb":`+deep(20_000)+`}`,
		"never closed", `{"id":1,"must":"m","jb":`+strings.Repeat("[", 20_000), "objects", `{"id":1,"must":"m","jb":`+strings.Repeat(`{"a":`, 40)+"1"+strings.Repeat("}", 40)+`}`,
		"in an unknown column", `{"id":1,"must":"m","nope":`+deep(40)+`}`),
		one("4,000 names", "bad", "{"+strings.Join(names, ",")+"}", "unknown_column"),
		one("long name", "bad", `{"id":1,"must":"m","`+strings.Repeat("n", 2000)+`":1}`, "unknown_column"))
}

func badColumns() []badCase {
	return []badCase{
		one("unknown", "bad", `{"id":1,"must":"m","nope":1}`, "unknown_column", "/nope"),
		one("another case", "bad", `{"id":1,"must":"m","Tx":"x"}`, "unknown_column", "/Tx"),
		one("pointer is escaped", "bad", `{"id":1,"must":"m","x/y~z":1}`, "unknown_column", "/x~1y~0z"),
		one("pointer of a column is escaped", "bad", `{"id":1,"must":"m","a/b~c":"x"}`, "type_mismatch", "/a~1b~0c"),
		one("empty name", "bad", `{"id":1,"must":"m","":1}`, "unknown_column"),
		one("system column", "bad", `{"id":1,"must":"m","ctid":"(0,1)"}`, "unknown_column", "/ctid"),
		one("NUL in a name", "bad", `{"id":1,"must":"m","a\u0000":1}`, "unknown_column"),
		one("several things at once", "bad", `{"id":"x","must":null,"nope":1,"i4":"x"}`, "type_mismatch", "/id", "/must", "/nope", "/i4"),
		{name: "CSV header", body: "id,must,nope\n1,m,1", headers: []string{"Content-Type", "text/csv"}, status: 422, code: "unknown_column", pointers: []string{"/nope"}},
		{name: "increment", path: "/v1/{s}.bad/1/increment", body: `{"nope":1}`, status: 422, code: "unknown_column", pointers: []string{"/nope"}},
	}
}

func badReadOnly() []badCase {
	return []badCase{
		one("generated", "bad", `{"id":1,"must":"m","twice":2}`, "read_only_column", "/twice"),
		one("generated, null", "bad", `{"id":1,"must":"m","twice":null}`, "read_only_column", "/twice"),
		one("identity always", "ident", `{"id":1,"v":"x"}`, "read_only_column", "/id"),
		{name: "CSV header", body: "id,must,twice\n1,m,1", headers: []string{"Content-Type", "text/csv"}, status: 422, code: "read_only_column", pointers: []string{"/twice"}},
		{name: "increment", path: "/v1/{s}.bad/1/increment", body: `{"twice":1}`, status: 422, code: "read_only_column", pointers: []string{"/twice"}},
	}
}

func badNulls() []badCase {
	return []badCase{
		one("required", "bad", `{"id":1}`, "required", "/must"),
		one("required, several", "bad", `{}`, "required", "/id", "/must"),
		one("null", "bad", `{"id":1,"must":null}`, "null_not_allowed", "/must"),
		one("null key", "bad", `{"id":null,"must":"m"}`, "null_not_allowed", "/id"),
		one("domain that is NOT NULL", "lacks", `{"id":1,"v":null}`, "null_not_allowed", "/v"),
		one("domain that is NOT NULL, left out", "lacks", `{"id":1}`, "required", "/v"),
		one("default that is null", "nulls", `{"id":1}`, "null_not_allowed", "/v"),
		{name: "PUT without", method: http.MethodPut, path: "/v1/{s}.bad/1", body: `{"i4":1}`, status: 422, code: "required", pointers: []string{"/must"}},
		{name: "PATCH to null", method: http.MethodPatch, path: "/v1/{s}.bad/1", body: `{"must":null}`, status: 422, code: "null_not_allowed", pointers: []string{"/must"}},
		{name: "CSV NULL", body: "id,must\n1,NULL", headers: []string{"Content-Type", "text/csv"}, status: 422, code: "invalid_rows", pointers: []string{"/0/must"}},
	}
}

func badNULs() []badCase {
	return append(slices.Concat(inEach("nul_not_allowed", "tx vc ch u d tz by en co j jb ip r", `"a\u0000"`),
		columns("nul_not_allowed", "ta", `["a\u0000"]`, "sp", `{"label":"\u0000"}`, "j", `{"a":"\u0000"}`, "jb", `{"a":["\u0000"]}`, "jb", `{"\u0000":1}`)),
		one("in a key", "bytext", `{"id":"a\u0000"}`, "nul_not_allowed", "/id"))
}

func badSurrogates() []badCase {
	return wholes("invalid_unicode", "high", `{"id":1,"must":"\ud800"}`, "low", `{"id":1,"must":"\udc00"}`,
		"reversed", `{"id":1,"must":"\udc00\ud800"}`, "high and text", `{"id":1,"must":"\ud800A"}`,
		"nested", `{"id":1,"must":"m","jb":{"a":["\ud800"]}}`, "in a name", `{"id":1,"\ud800":1}`)
}

func badTypes() []badCase {
	return slices.Concat(
		inEach("type_mismatch", "i2 i4 i8 f4 f8 n n52 dm", `"x"`, `true`, `{}`, `[]`, `[1]`, `""`),
		inEach("type_mismatch", "i2 i4 i8", `1.5`, `1e-1`),
		inEach("type_mismatch", "tx vc ch u d ts tz by en co", `5`, `true`, `{}`, `[]`, `["x"]`),
		inEach("type_mismatch", "tm iv ip cd mc r", `true`, `{}`, `[]`),
		columns("type_mismatch", "b", `1`, "b", `"true"`, "b", `[]`, "i4", `"5"`,
			"ia", `5`, "ia", `{"a":1}`, "ia", `["x"]`, "ia", `[1.5]`, "ta", `[5]`, "sp", `5`, "sp", `{"x":"a"}`),
		[]badCase{{name: "increment by a string", path: "/v1/{s}.bad/1/increment", body: `{"i4":"1"}`, status: 422, code: "type_mismatch", pointers: []string{"/i4"}},
			{name: "increment of a text", path: "/v1/{s}.bad/1/increment", body: `{"tx":"1"}`, status: 422, code: "not_numeric", pointers: []string{"/tx"}},
			{name: "increment of the key", path: "/v1/{s}.bad/1/increment", body: `{"id":1}`, status: 422, code: "not_numeric", pointers: []string{"/id"}}})
}

func badInts() []badCase {
	return slices.Concat(inEach("out_of_range", "i2 i4 i8", `1e400`, `-1e400`, `9223372036854775808`, `-9223372036854775809`),
		columns("out_of_range", "i2", `32768`, "i2", `-32769`, "i4", `2147483648`, "i4", `-2147483649`, "i8", `"9223372036854775808"`, "dm", `2147483648`, "ia", `[2147483648]`))
}

func badNumerics() []badCase {
	return slices.Concat(columns("out_of_range", "f8", `1e400`, "f8", `-1e400`, "f4", `1e39`, "n", `1e131072`, "n", `1e999999999999`,
		"n52", `1000`, "n52", `999.995`, "n52", `"-1000"`, "n52", `"Infinity"`, "jb", `1e1000000`, "jb", `{"a":[1e-20000]}`),
		wholes("invalid_json", "bare NaN", `{"id":1,"must":"m","f8":NaN}`, "bare Infinity", `{"id":1,"must":"m","f8":-Infinity}`),
		[]badCase{{name: "increment by NaN", path: "/v1/{s}.bad/1/increment", body: `{"n":"NaN"}`, status: 422, code: "out_of_range", pointers: []string{"/n"}}})
}

func badLengths() []badCase {
	return append(columns("too_long", "vc", `"abcd"`, "vc", `"äöüß"`, "vc", `"abc d"`, "ch", `"abcd"`, "co", `"abcd"`),
		one("digits, once they are written out", "bad", `{"id":1,"must":"m","jb":`+array(600, func(int) string { return "1e131071" })+"}", "too_long", "/jb"),
		one("key", "bytext", `{"id":"`+strings.Repeat("k", 1025)+`"}`, "invalid_key", ""))
}

func badTimes() []badCase {
	return columns("invalid_datetime", "d", `"2026-02-30"`, "d", `"2026-13-01"`, "d", `"tomorrow-ish"`, "d", `""`, "d", `"2025-02-29"`, "d", `"1900-02-29"`,
		"ts", `"2026-02-30T00:00:00"`, "ts", `"2026-01-01T25:00:00"`, "ts", `"2026-01-01T00:00:00+05:00"`,
		"tz", `"2026-01-01T00:00:00"`, "tz", `"2026-01-01"`, "tz", `"294277-01-01T00:00:00Z"`, "tz", `"2026-01-01T00:60:00Z"`,
		"tz", `"2026-01-01T00:00:61Z"`, "tz", `"2026-01-01T00:00:00+99:00"`, "tz", `"2026-01-01 00:00 Mars/Base"`, "tm", `"25:00"`, "iv", `"1 dayz"`)
}

func badForms() []badCase {
	return columns("invalid_value", "u", `"x"`, "u", `""`, "u", `"{"`, "u", `"00000000-0000-0000-0000-00000000000"`, "u", `"g0000000-0000-0000-0000-000000000000"`,
		"ip", `"10.0.0.300"`, "ip", `5`, "ip", `""`, "cd", `"10.0.0.1/8"`, "mc", `"zz"`, "by", `"\\xabc"`, "by", `"\\xzz"`, "by", `"\\9"`,
		"en", `"happy"`, "en", `"SAD"`, "en", `""`, "ia", `[[1],[2,3]]`, "ia", `[1,[2]]`, "ia", `[[[[[[[1]]]]]]]`, "ia", `"x"`,
		"r", `"[5,1]"`, "r", `"1,5"`, "r", `5`, "dm", `0`, "dm", `-5`, "co", `"AB"`, "sp", `{"z":1}`)
}

func goodRow(i int) string { return row(`{"id":%d,"must":"m"}`, i) }

func badBatches() []badCase {
	strict := []string{"Content-Type", "application/x-ndjson", "Prefer", "handling=strict"}
	csv := []string{"Content-Type", "text/csv"}
	op := func(i int) string { return `{"op":"insert","table":"{s}.bad","row":` + goodRow(i) + `}` }
	return []badCase{
		{name: "empty array", body: `[]`, status: 400, code: "empty_batch"},
		{name: "empty NDJSON", body: "\n \n\r\n", headers: ndjson, status: 400, code: "empty_batch"},
		{name: "empty NDJSON, strict", body: "\n", headers: strict, status: 400, code: "empty_batch"},
		{name: "CSV with a header alone", body: "id,must\n", headers: csv, status: 400, code: "empty_batch"},
		{name: "empty _bulk", path: "/v1/_bulk", body: "\n\n", headers: ndjson, status: 400, code: "empty_batch"},
		{name: "101 rows", body: array(101, goodRow), status: 413, code: "batch_too_large"},
		{name: "101 lines", body: lines(101, goodRow), headers: ndjson, status: 413, code: "batch_too_large"},
		{name: "101 records", body: "id,must\n" + lines(101, func(i int) string { return row("%d,m", i) }), headers: csv, status: 413, code: "batch_too_large"},
		{name: "101 operations", path: "/v1/_bulk", body: lines(101, op), headers: ndjson, status: 413, code: "batch_too_large"},
	}
}

func badAmongMany() []badCase {
	bad57 := func(i int) string {
		if i == 57 {
			return row(`{"id":%d,"must":"m","i4":"x","nope":1}`, i)
		}
		return goodRow(i)
	}
	op := func(i int) string { return `{"op":"put","table":"{s}.bad","row":` + bad57(i) + `}` }
	strict := []string{"Content-Type", "application/x-ndjson", "Prefer", "handling=strict"}
	lenient := []string{"Prefer", "handling=lenient"}
	applied := func(how string) []string { return []string{"Preference-Applied", "handling=" + how} }
	return []badCase{
		{name: "1 of 100", body: array(100, bad57), status: 422, code: "invalid_rows", pointers: []string{"/57/i4", "/57/nope"}, tells: []string{"Preference-Applied", ""}},
		{name: "1 line of 100, strict", body: lines(100, bad57), headers: strict, status: 422, code: "invalid_rows", pointers: []string{"/57/i4", "/57/nope"}, tells: applied("strict")},
		{name: "1 operation of 100, strict", path: "/v1/_bulk", body: lines(100, op), headers: strict, status: 422, code: "invalid_rows", pointers: []string{"/57/row/i4", "/57/row/nope"}, tells: applied("strict")},
		{name: "1 record of 3, strict", body: "id,must,i4\n1,m,1\n2,m,x\n3,m,", headers: []string{"Content-Type", "text/csv", "Prefer", "handling=strict"}, status: 422, code: "invalid_rows", pointers: []string{"/1/i4"}, tells: applied("strict")},
		{name: "all, lenient", body: `[{"id":"x","must":"m"},{}]`, headers: lenient, status: 422, code: "invalid_rows", pointers: []string{"/0/id", "/1/id", "/1/must"}, tells: applied("lenient")},
		{name: "all lines", body: "{\n[1]\n{}x\n\xff\n{\"id\":1,\"id\":2}\n", headers: ndjson, status: 422, code: "invalid_rows", pointers: []string{"/0", "/1", "/2", "/3", "/4"}},
		{name: "a line that is no JSON, strict", body: goodRow(1) + "\n{\"id\":2\n", headers: strict, status: 422, code: "invalid_rows", pointers: []string{"/1"}},
		{name: "only Postgres sees it", body: `[{"id":1,"must":"m","ip":"10.0.0.1"},{"id":2,"must":"m","ip":"10.0.0.300"}]`, status: 422, code: "invalid_rows", pointers: []string{"/1/ip"}},
		{name: "BOM on the first line", body: "\xef\xbb\xbf" + goodRow(1), headers: ndjson, status: 422, code: "invalid_rows", pointers: []string{"/0"}},
		{name: "merged, strict", body: `[{"id":1,"must":"m"},{"id":2}]`, headers: []string{"Prefer", "resolution=merge-duplicates, handling=strict"}, status: 422, code: "invalid_rows", pointers: []string{"/1/must"}, tells: applied("strict")},
		{name: "unknown preference", body: `{"id":1,"must":"m"}`, headers: []string{"Prefer", "handling=strict, respond-async"}, status: 400, code: "bad_preference"},
		{name: "unknown preference first", body: `{"id":1,"must":"m"}`, headers: []string{"Prefer", "respond-async", "Prefer", "handling=strict"}, status: 400, code: "bad_preference"},
		{name: "bad return", body: `{"id":1,"must":"m"}`, headers: []string{"Prefer", "handling=strict, return=everything"}, status: 400, code: "bad_preference"},
		{name: "bad wait", body: `{"id":1,"must":"m"}`, headers: []string{"Prefer", "handling=strict, wait=soon"}, status: 400, code: "bad_preference"},
		{name: "negative wait", body: `{"id":1,"must":"m"}`, headers: []string{"Prefer", "handling=strict, wait=-1"}, status: 400, code: "bad_preference"},
		{name: "wait=NaN", body: `{"id":1,"must":"m"}`, headers: []string{"Prefer", "handling=strict, wait=NaN"}, status: 400, code: "bad_preference"},
		{name: "PUT with an unknown preference", method: http.MethodPut, path: "/v1/{s}.bad/1", body: `{"must":"m"}`, headers: []string{"Prefer", "handling=strict, x"}, status: 400, code: "bad_preference"},
	}
}

func badTwice() []badCase {
	twice := `[{"id":1,"must":"m"},{"id":2,"must":"m"},{"id":1,"must":"n"}]`
	return []badCase{{name: "inserts", body: twice, status: 422, code: "invalid_rows", pointers: []string{"/2/id"}}}
}

func badIdempotencyKeys() []badCase {
	return slices.Concat(every("too long", "same", 400, "bad_idempotency_key", "Idempotency-Key", strings.Repeat("k", 256)),
		every("empty", "same", 400, "bad_idempotency_key", "Idempotency-Key", ""),
		every("with a blank", "same", 400, "bad_idempotency_key", "Idempotency-Key", "a b"),
		every("not ASCII", "same", 400, "bad_idempotency_key", "Idempotency-Key", "ä"),
		every("two", "same", 400, "bad_idempotency_key", "Idempotency-Key", "a", "Idempotency-Key", "b"),
		[]badCase{{name: "DELETE not ASCII", method: http.MethodDelete, path: "/v1/{s}.bad/1", headers: []string{"Idempotency-Key", "ä"}, status: 400, code: "bad_idempotency_key"}})
}

func badConditions() []badCase {
	on := func(name, method, body string, headers ...string) badCase {
		return badCase{name: name, method: method, path: "/v1/{s}.bad/1", body: body, headers: headers, status: 412, code: "version_mismatch"}
	}
	increment := on("increment", http.MethodPost, `{"i4":1}`, "If-Match", `"other"`)
	increment.path += "/increment"
	return []badCase{on("PUT", http.MethodPut, `{"must":"m"}`, "If-Match", `"other"`), on("PUT, any", http.MethodPut, `{"must":"m"}`, "If-Match", "*"), increment}
}

func badChanges() []badCase {
	on := func(name, method, body string, headers ...string) badCase {
		return badCase{name: name, method: method, path: "/v1/{s}.bad/1", body: body, headers: headers, status: 404, code: "row_not_found"}
	}
	increment := on("increment of a row that needs more", http.MethodPost, `{"i4":1}`)
	increment.path += "/increment"
	return []badCase{
		on("PATCH", http.MethodPatch, `{"i4":1}`), on("PATCH of nothing", http.MethodPatch, `{}`), on("PATCH, If-Match", http.MethodPatch, `{}`, "If-Match", `"x"`), on("DELETE", http.MethodDelete, ""), increment,
		{name: "_bulk", path: "/v1/_bulk", body: `{"op":"patch","table":"{s}.bad","key":1,"row":{"i4":1}}` + "\n" + `{"op":"delete","table":"{s}.bad","key":"2"}`, headers: ndjson, status: 422, code: "invalid_rows", pointers: []string{"/0", "/1"}},
		{name: "key in the body is another", method: http.MethodPut, path: "/v1/{s}.bad/1", body: `{"id":2,"must":"m"}`, status: 422, code: "key_mismatch", pointers: []string{"/id"}},
	}
}

func badTargets() (out []badCase) {
	for _, name := range []string{"looks", "guarded", "fleeting"} { // view, row-level security, unlogged
		path := "/v1/{s}." + name
		out = append(out, badCase{name: "POST " + name, path: path, body: `{"id":1}`, status: 409, code: "table_not_usable"},
			badCase{name: "PUT " + name, method: http.MethodPut, path: path + "/1", body: `{}`, status: 409, code: "table_not_usable"},
			badCase{name: "DELETE " + name, method: http.MethodDelete, path: path + "/1", status: 409, code: "table_not_usable"},
			get("GET "+name, path+"/1", 409, "table_not_usable"), get("list "+name, path, 409, "table_not_usable"), get("schema "+name, path+"/_schema", 409, "table_not_usable"))
	}
	return append(out, get("GET without a key", "/v1/{s}.keyless/1", 409, "no_primary_key"),
		badCase{name: "PUT without a key", method: http.MethodPut, path: "/v1/{s}.keyless/1", body: `{}`, status: 409, code: "no_primary_key"},
		badCase{name: "merge without a key", table: "keyless", body: `{"v":1}`, headers: []string{"Prefer", "resolution=merge-duplicates"}, status: 409, code: "no_primary_key"})
}

func badMisses() []badCase {
	return []badCase{
		get("GET", "/v1/{s}.bad/404", 404, "row_not_found"), {name: "HEAD", method: http.MethodHead, path: "/v1/{s}.bad/404", status: 404},
		{name: "from the cache alone", method: http.MethodGet, path: "/v1/{s}.bad/405", headers: []string{"Cache-Control", "only-if-cached"}, status: 504, code: "not_cached"},
	}
}

func badMarkup() []badCase {
	const markup = `<script>alert(1)</script>`
	return []badCase{
		{name: "table", path: "/v1/%3Cscript%3Ealert(1)%3C%2Fscript%3E", body: `{}`, status: 404, code: "table_not_found"},
		get("key", "/v1/{s}.bad/%3Cscript%3E", 422, "invalid_key"),
		one("name", "bad", `{"id":1,"must":"m","`+markup+`":1}`, "unknown_column", "/<script>alert(1)<~1script>"),
		column("i4", `"`+markup+`"`, "type_mismatch"),
	}
}
