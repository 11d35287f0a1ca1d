package api_test
import ("testing")
func TestSmoke(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v text, g int generated always as (id*2) stored); create table u (id uuid primary key, v text);
	create domain must as text not null; create table dn (id int primary key, v must); create table it (id int primary key, i interval, tm time, m money)`)
	for _, r := range []*answer{
		s.do("POST", s.path("t"), `{"id":1,"v":"x"}`, "Prefer", "return=representation"),
		s.do("POST", s.path("u"), `{"v":"x"}`),
		s.do("POST", s.path("dn"), `{"id":1}`),
		s.do("POST", s.path("it"), `{"id":1,"i":5}`),
		s.do("POST", s.path("it"), `{"id":2,"tm":5}`),
		s.get(s.path("it","1")),
		s.get(s.path("t","1")),
		s.get("/v1/"),
		s.do("POST", "/v1/", "{}"),
		s.do("DELETE", s.path("t"), "{}"),
		s.do("OPTIONS", s.path("t"), "{}"),
		s.do("POST", "/v1/../x", "{}"),
		s.do("POST", s.path("t"), `{"id":3}`, "Prefer", "wait=NaN, return=minimal"),
		s.do("POST", s.path("t"), `{"id":4}`, "Content-Encoding", "identity", "Content-Encoding", "gzip"),
		s.do("POST", s.path("t"), "\xff\xfe{\x00}\x00"),
		s.do("POST", s.path("t"), "\x00{\x00}"),
		s.get(s.path("t","1")+"?select=v,v"),
		s.do("HEAD", s.path("t", "_schema"), ""),
		s.do("POST", s.path("t"), `{"id":7.0}`),
	} {
		t.Log(r.status, r.header, string(r.body))
	}
	s.startFlusher()
	s.flushed()
	t.Log(s.get("/admin/v1/status").status, string(s.get("/admin/v1/status").body))
	t.Log(s.text("select coalesce(string_agg(table_name||key||sqlstate||message, ';'),'') from headpond.dead_letters"))
}
