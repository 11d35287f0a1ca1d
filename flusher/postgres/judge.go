package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/headpond/headpond/buffer/table"
)

// A query takes at most judgeRows values and judgeBytes of JSON. A query that
// fails is cut into judgeFan parts, and all parts of a round go out together:
// one bad value among 1,000 costs three more round trips.
const (
	judgeRows  = 4096
	judgeBytes = 4 << 20
	judgeFan   = 16
	judgeBatch = 256 // queries in one round trip
)

// Judge lets Postgres read JSON values as jsonb_populate_record would read
// them into columns of their types: the types' own input functions, lengths
// refused and not cut, domains checked. Values that are good go in one query
// per type, all in one round trip. The answer is in the order of the items.
// Safe for concurrent use.
func (e *Edge) Judge(ctx context.Context, items []table.JudgeItem) ([]table.JudgeResult, error) {
	out := make([]table.JudgeResult, len(items))
	todo := gather(items, out)
	for len(todo) > 0 {
		now := todo[:min(len(todo), judgeBatch)]
		more, err := e.judge(ctx, items, out, now)
		if err != nil {
			return nil, err
		}
		todo = append(todo[len(now):len(todo):len(todo)], more...)
	}
	return out, nil
}

// ruling is values of one type that are asked for in one query: indexes into
// the items, in their order.
type ruling struct {
	t  *table.Type
	at []int
}

// gather sorts items by type and answers those that are not JSON at all: they
// must not get into the document that the others travel in.
func gather(items []table.JudgeItem, out []table.JudgeResult) []ruling {
	var all []ruling
	open := make(map[string]int, 4) // type name → its ruling that still has room
	size := make(map[string]int, 4)
	for i, it := range items {
		if !json.Valid(it.JSON) {
			out[i].Err = &table.FieldError{Code: "invalid_value", Detail: "The value is not valid JSON."}
			continue
		}
		name := it.Type.Name
		n, ok := open[name]
		if !ok || len(all[n].at) == judgeRows || size[name]+len(it.JSON) > judgeBytes {
			n, size[name] = len(all), 0
			open[name] = n
			all = append(all, ruling{t: it.Type})
		}
		all[n].at = append(all[n].at, i)
		size[name] += len(it.JSON)
	}
	return all
}

// judge asks once, and returns what must be asked again in smaller parts.
func (e *Edge) judge(ctx context.Context, items []table.JudgeItem, out []table.JudgeResult, now []ruling) ([]ruling, error) {
	questions := make([]question, len(now))
	for i, r := range now {
		questions[i] = r.question(items)
	}
	answers, err := e.ask(ctx, questions)
	if err != nil {
		return nil, storeError("judge values", err)
	}
	var more []ruling
	for i, a := range answers {
		r := now[i]
		switch {
		case a.err == nil && len(a.rows) == len(r.at):
			for j, at := range r.at {
				out[at].Text, out[at].Null = a.rows[j][0], a.rows[j][0] == nil
			}
		case a.err == nil:
			return nil, fmt.Errorf("judge values of type %s: %d answers to %d values", r.t.Name, len(a.rows), len(r.at))
		case !blamesData(a.err):
			return nil, storeError("judge values of type "+r.t.Name, a.err)
		default:
			if err := e.typeExists(ctx, r.t, a.err.Code); err != nil {
				return nil, err
			}
			if len(r.at) > 1 {
				more = append(more, r.split()...)
			} else {
				out[r.at[0]].Err = fieldError(r.t, a.err)
			}
		}
	}
	return more, nil
}

func (r ruling) split() []ruling {
	step := (len(r.at) + judgeFan - 1) / judgeFan
	var parts []ruling
	for from := 0; from < len(r.at); from += step {
		parts = append(parts, ruling{t: r.t, at: r.at[from:min(from+step, len(r.at))]})
	}
	return parts
}

// question packs the values into one document. json keeps what a json column
// keeps (spaces, order, a name twice); jsonb reads a number such as 1e2 into
// an integer. So values travel as json only where the type holds json.
func (r ruling) question(items []table.JudgeItem) question {
	kind, oid := "jsonb", uint32(oidJSONB)
	if holdsJSON(r.t) {
		kind, oid = "json", oidJSON
	}
	var doc bytes.Buffer
	for i, at := range r.at {
		doc.WriteByte("[,"[min(i, 1)])
		doc.WriteString(`{"v":`)
		doc.Write(items[at].JSON)
		doc.WriteByte('}')
	}
	doc.WriteByte(']')
	sql := fmt.Sprintf(`select r.v from rows from (pg_catalog.%s_to_recordset($1) as (v %s)) with ordinality as r (v, n) order by r.n`, kind, r.t.Name)
	return question{sql: sql, params: [][]byte{doc.Bytes()}, oids: []uint32{oid}}
}

// holdsJSON reports whether a json value is kept somewhere in t as it was written.
func holdsJSON(t *table.Type) bool {
	switch t.Kind {
	case table.KindJSON:
		return true
	case table.KindDomain:
		return t.Base != nil && holdsJSON(t.Base)
	case table.KindArray:
		return t.Elem != nil && holdsJSON(t.Elem)
	}
	for i := range t.Fields {
		if holdsJSON(t.Fields[i].Type) {
			return true
		}
	}
	return false
}

// typeExists tells a value that is at fault from a type that is gone or broken,
// where the SQLSTATE does not: regclass says 42P01 of an unknown name, ltree
// 42601, hstore XX000. NULL needs no input function.
func (e *Edge) typeExists(ctx context.Context, t *table.Type, code string) error {
	if code[:2] != "42" && code[:2] != "3F" && code[:2] != "XX" {
		return nil
	}
	null := ruling{t: t, at: []int{0}}.question([]table.JudgeItem{{Type: t, JSON: []byte("null")}})
	answers, err := e.ask(ctx, []question{null})
	if err == nil && answers[0].err != nil && answers[0].err.Code == code {
		err = answers[0].err
	}
	return storeError("judge values of type "+t.Name, err)
}
