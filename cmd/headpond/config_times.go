package main

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// wrongTimes finds the times of a file that cannot be read, all of them. The decoder
// tells of one, without its place and without what would be right.
func wrongTimes(text []byte) (errs []error) {
	f, err := parser.ParseBytes(text, 0)
	if err != nil || len(f.Docs) == 0 {
		return nil // the decoder says so
	}
	eachTime(f.Docs[0].Body, reflect.TypeFor[config](), "", func(where string, n ast.Node) {
		if value := n.GetToken().Value; !isTime(n) {
			if n.Type() == ast.StringType {
				value = fmt.Sprintf("%q", value)
			}
			errs = append(errs, fmt.Errorf("line %d: `%s` must be a time with its unit, such as 500ms, 10s or 24h, not %s",
				n.GetToken().Position.Line, where, value))
		}
	})
	return errs
}

// isTime is true too of what is no plain value, which the decoder judges.
func isTime(n ast.Node) bool {
	switch n.Type() {
	case ast.StringType:
		_, err := time.ParseDuration(n.GetToken().Value)
		return err == nil
	case ast.IntegerType, ast.FloatType, ast.BoolType:
		return false
	}
	return true
}

// eachTime goes through a file as the decoder does: what is a time is told by the
// type that it is decoded into.
func eachTime(n ast.Node, into reflect.Type, where string, do func(where string, n ast.Node)) {
	if a, ok := n.(*ast.AnchorNode); ok {
		n = a.Value
	}
	if into.Kind() == reflect.Pointer {
		into = into.Elem()
	}
	m, _ := n.(*ast.MappingNode)
	switch {
	case n == nil:
	case into == reflect.TypeFor[time.Duration]():
		do(strings.TrimPrefix(where, "."), n)
	case m == nil:
	case into.Kind() == reflect.Map:
		for _, v := range m.Values {
			eachTime(v.Value, into.Elem(), where+"."+v.Key.GetToken().Value, do)
		}
	case into.Kind() == reflect.Struct:
		for _, v := range m.Values {
			key := v.Key.GetToken().Value
			for i := range into.NumField() {
				if f := into.Field(i); f.Tag.Get("yaml") == key {
					eachTime(v.Value, f.Type, where+"."+key, do)
				}
			}
		}
	}
}
