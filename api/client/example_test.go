package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/url"
	"time"

	"github.com/headpond/headpond/api/client"
)

// Order is a row. Numbers that must be exact are json.Number, or string.
type Order struct {
	ID       int64       `json:"id,omitempty"`
	Customer string      `json:"customer"`
	Status   string      `json:"status,omitempty"`
	Total    json.Number `json:"total"`
}

// A row is accepted, read at once, and waited for until it is in Postgres.
func Example() {
	ctx := context.Background()
	c, err := client.New(address)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	w, err := c.Insert(ctx, "orders", Order{ID: 1001, Customer: "ada", Total: "99.90"})
	if err != nil {
		log.Fatal(err)
	}
	var o Order
	if _, err := c.Get(ctx, "orders", w.Key, &o); err != nil {
		log.Fatal(err)
	}
	r, err := c.WaitFor(ctx, w.Receipt)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(w.Key, w.Durability, o.Status, o.Total, r.State)
	// Output: 1001 fsync new 99.90 committed
}

// A write that is sent again under its IdempotencyKey, even by another process,
// counts once.
func ExampleClient_Increment() {
	ctx := context.Background()
	c, err := client.New(address)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	for range 2 {
		var row struct{ Views int }
		w, err := c.Increment(ctx, "page_views", client.Key{"/pricing"}, map[string]int{"views": 1},
			client.IdempotencyKey("visit-4711"), client.Return(&row))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(row.Views, w.Replayed)
	}
	// Output:
	// 1 false
	// 1 true
}

// Changing a row that nobody else has changed since it was read.
func ExampleIfMatch() {
	ctx := context.Background()
	c, err := client.New(address)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	key := client.KeyOf(1002)
	if _, err := c.Put(ctx, "orders", key, Order{Customer: "bob", Total: "5"}); err != nil {
		log.Fatal(err)
	}
	read, err := c.Get(ctx, "orders", key, &Order{})
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		_, err := c.Patch(ctx, "orders", key, map[string]string{"status": "paid"}, client.IfMatch(read.ETag))
		fmt.Println(err == nil, errors.Is(err, client.ErrVersionMismatch))
	}
	// Output:
	// true false
	// false true
}

// Bad rows are told apart by their place in the slice.
func ExampleClient_InsertMany() {
	ctx := context.Background()
	c, err := client.New(address)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	rows := []map[string]any{{"kind": "view", "user_id": 1}, {"kind": "view", "user_id": "x"}}
	w, err := c.InsertMany(ctx, "events", rows, client.Lenient())
	if errors.Is(err, client.ErrSomeRejected) {
		for _, e := range w.Errors {
			fmt.Println(e.Index, e.Code, e.Detail)
		}
	}
	fmt.Println(w.Accepted, w.Rejected)
	// Output:
	// 1 type_mismatch "x" is not a whole number.
	// 1 1
}

// Operations of all kinds on several tables.
func ExampleClient_Bulk() {
	ctx := context.Background()
	c, err := client.New(address)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	w, err := c.Bulk(ctx, []client.Operation{
		{Op: client.OpPut, Table: "page_views", Key: client.Key{"/about"}, Row: map[string]int{"views": 5}},
		{Op: client.OpIncrement, Table: "page_views", Key: client.Key{"/about"}, Row: map[string]int{"views": 2}},
		{Op: client.OpInsert, Table: "events", Row: map[string]any{"kind": "edit"}},
	}, client.Strict())
	if err != nil {
		log.Fatal(err)
	}
	var page struct{ Views int }
	if _, err := c.Get(ctx, "page_views", client.Key{"/about"}, &page); err != nil {
		log.Fatal(err)
	}
	fmt.Println(w.Accepted, page.Views)
	// Output: 3 7
}

// Lists come from Postgres. With Wait, what was accepted before is in them.
func ExampleClient_List() {
	ctx := context.Background()
	c, err := client.New(address)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	rows := []Order{{ID: 1010, Customer: "eve", Total: "3"}, {ID: 1011, Customer: "eve", Total: "20.5"}}
	if _, err := c.InsertMany(ctx, "orders", rows); err != nil {
		log.Fatal(err)
	}
	var orders []Order
	read, err := c.List(ctx, "orders", url.Values{"customer": {"eq.eve"}, "order": {"total.desc"}}, &orders, client.Wait(30*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(read.Flushed)
	for _, o := range orders {
		fmt.Println(o.ID, o.Total)
	}
	// Output:
	// true
	// 1011 20.50
	// 1010 3.00
}

// A row that only Postgres can refuse is a dead letter.
func ExampleClient_WaitFor() {
	ctx := context.Background()
	c, err := client.New(address)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	w, err := c.Insert(ctx, "orders", Order{ID: 1020, Customer: "mal", Total: "-1"})
	if err != nil {
		log.Fatal(err)
	}
	r, err := c.WaitFor(ctx, w.Receipt)
	fmt.Println(errors.Is(err, client.ErrDeadLettered), r.SQLState)
	// Output: true 23514
}

// Rows that come one by one are sent many at a time.
func ExampleClient_NewWriter() {
	ctx := context.Background()
	c, err := client.New(address)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	w, err := c.NewWriter("events", client.WriterConfig{
		Rejected: func(row any, err *client.Error) { fmt.Println(row, err.Errors[0].Pointer, err.Code) },
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, row := range []map[string]any{{"kind": "view"}, {"knd": "buy"}, {"kind": "buy"}} {
		if err := w.Write(ctx, row); err != nil {
			log.Fatal(err)
		}
	}
	if err := w.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: map[knd:buy] /knd unknown_column
}
