package main_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPoisonLimit: a constraint is added that most rows break. The table is halted
// and nothing is dead-lettered, while another table goes on; when the constraint
// is gone it goes on by itself. A table with a higher limit fills its dead letters.
func TestPoisonLimit(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	config := writeConfig(t, "tables: { patient: { poison_limit: 100000 } }")
	h := startUp(t, program, "--ephemeral", "--config", config)
	h.create(t, `
		create table spans (id int primary key, v int not null);
		create table patient (id int primary key, v int not null);
		create table fine (id int primary key)`, "spans", "patient", "fine")
	execute(t, h.database, `
		alter table spans add constraint v_is_low check (v < 1000) not valid;
		alter table patient add constraint v_is_low check (v < 1000) not valid`)
	const rows = 600
	put := func(table string) {
		for from := 0; from < rows; from += 200 {
			var body []byte
			for i := from; i < from+200; i++ {
				body = fmt.Appendf(body, "{\"id\":%d,\"v\":%d}\n", i, 999+i%2)
			}
			a, err := h.post(table, typeNDJSON, string(body))
			require.NoError(t, err)
			require.Equal(t, http.StatusAccepted, a.code, "%s", a.body)
		}
	}
	put("spans")
	put("patient")
	await(t, "the table to be halted", func() bool { return h.get(t, "/admin/v1/status").field("verdict") == "blocked" })
	a := h.get(t, "/admin/v1/status")
	require.Contains(t, a.field("why"), "Table spans is halted: ")
	require.Contains(t, a.field("why"), "23514 v_is_low: that is more than poison_limit (100, or 1 %)")
	one, err := request(http.MethodPost, h.api+"/v1/fine", typeJSON, `{"id":1}`)
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, one.code)
	await(t, "the other tables", func() bool {
		return value[int64](t, h.database, `select (select count(*) from fine) + (select count(*) from patient)`) == 1+rows/2
	})
	require.EqualValues(t, rows/2, value[int64](t, h.database, `select count(*) from headpond.dead_letters where table_name = 'patient'`))

	// At most what the limit says may have been set aside, before it was reached.
	before := value[int64](t, h.database, `select count(*) from headpond.dead_letters where table_name = 'spans'`)
	require.LessOrEqual(t, before, int64(100))
	execute(t, h.database, `alter table spans drop constraint v_is_low`)
	h.settled(t)
	require.EqualValues(t, rows, before+value[int64](t, h.database, `select count(*) from spans`))
	require.Equal(t, before, value[int64](t, h.database, `select count(*) from headpond.dead_letters where table_name = 'spans'`))
}
