package main

import (
	"errors"
	"net/url"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// explanation is what an error of a driver means to people.
type explanation struct{ has, says, mend string }

var networkTroubles = []explanation{
	{"connection refused", "Nothing listens at this address.", "start the server, or correct the address in the URL"},
	{"no such host", "There is no machine of this name.", "correct the name in the URL"},
	{"no such file", "There is no socket of this name.", "start the server, or correct the path in the URL"},
	{"network is unreachable", "There is no way to this network.", "correct the address in the URL"},
	{"certificate", "The server's certificate is not one that this machine trusts.", "name the CA in the URL, or correct the certificate"},
	{"tls:", "The server does not speak TLS as the URL asks for it.", "correct the URL, or switch TLS on at the server"},
	{"refused tls", "The server does not speak TLS, and the URL asks for it.", "sslmode=disable in the URL, or switch TLS on at the server"},
	{"deadline exceeded", "The server takes the connection and does not answer: it hangs, or a firewall swallows packets.", "look at the server, and at what lies between"},
	{"timeout", "The server does not answer: it hangs, or a firewall swallows packets.", "look at the server, and at what lies between"},
}

var redisTroubles = append([]explanation{
	{"NOAUTH", "Redis wants a password, and REDIS_URL has none.", "REDIS_URL=redis://:PASSWORD@host:6379/0"},
	{"WRONGPASS", "Redis does not take the user or the password of REDIS_URL.", "correct them in REDIS_URL (what is not a letter or a digit is percent-encoded)"},
	{"called without any password", "REDIS_URL has a password, and Redis wants none.", "take it out of REDIS_URL"},
	{"NOPERM", "Redis does not let this user do what Headpond needs.", "ACL SETUSER … ~hp:* &hp:* +@all"},
	{"LOADING", "Redis is reading its log after a start; it takes nothing until it is done.", "wait"},
	{"max number of clients", "All connections that Redis takes are in use.", "CONFIG SET maxclients 10000"},
	{"DENIED", "Redis is in protected mode: from other machines it takes nobody without a password.", "give Redis a password (requirepass, or ACL SETUSER)"},
	{"cannot be parsed", "REDIS_URL is not a URL.", "REDIS_URL=redis://user:password@host:6379/0 (what is not a letter or a digit is percent-encoded)"},
	{"EOF", "Redis hung up: it may want TLS.", "rediss:// instead of redis:// in REDIS_URL"},
}, networkTroubles...)

// explainRedis says in plain words why Redis cannot be asked.
func explainRedis(err error) (why, mend string) {
	return explain("Redis cannot be asked", err, redisTroubles)
}

// Troubles of PostgreSQL by SQLSTATE. Source: PostgreSQL documentation, appendix A.
var sqlTroubles = map[string]explanation{
	"28P01": {"", "PostgreSQL does not take the user or the password of DATABASE_URL.", "correct them in DATABASE_URL, or ALTER ROLE … PASSWORD"},
	"28000": {"", "PostgreSQL does not let this user in from here.", "a line in pg_hba.conf, then SELECT pg_reload_conf()"},
	"3D000": {"", "The database of DATABASE_URL does not exist.", "CREATE DATABASE, or correct DATABASE_URL"},
	"53300": {"", "All connections that PostgreSQL takes are in use.", "ALTER SYSTEM SET max_connections = 200, restart PostgreSQL"},
	"57P03": {"", "PostgreSQL is starting, or recovering from a crash.", "wait"},
	"42501": {"", "The role may not do what Headpond needs.", "GRANT what the message names"},
}

var postgresTroubles = append([]explanation{
	{"read only connection", "This PostgreSQL takes no writes: it is a standby, or default_transaction_read_only is on.", "point DATABASE_URL at the primary"},
	{"read the database URL", "DATABASE_URL is not a URL.", "DATABASE_URL=postgres://user:password@host:5432/database (what is not a letter or a digit is percent-encoded)"},
}, networkTroubles...)

// explainPostgres says in plain words why Postgres cannot be asked.
func explainPostgres(err error) (why, mend string) {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		if x, known := sqlTroubles[pg.Code]; known {
			return x.says + " It says: " + pg.Message, x.mend
		}
	}
	return explain("PostgreSQL cannot be asked", err, postgresTroubles)
}

// answer is an error with which Postgres did answer.
type answer struct {
	error

	says string
}

// Answer is what the API tells of it.
func (a *answer) Answer() string { return a.says }

func (a *answer) Unwrap() error { return a.error }

// answered tells what Postgres said, when it was Postgres that said it.
func answered(err error) error {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pg):
		says := "PostgreSQL answers with an error: " + pg.Message + " (SQLSTATE " + pg.Code + ")."
		if x, known := sqlTroubles[pg.Code]; known {
			says = x.says
		}
		return &answer{err, says}
	case strings.Contains(err.Error(), postgresTroubles[0].has):
		return &answer{err, postgresTroubles[0].says}
	}
	return err
}

func explain(what string, err error, troubles []explanation) (why, mend string) {
	text := strings.ToLower(err.Error())
	for _, x := range troubles {
		if strings.Contains(text, strings.ToLower(x.has)) {
			return what + ". " + x.says, x.mend
		}
	}
	return what + ": " + err.Error(), ""
}

var passwordOf = regexp.MustCompile(`(?i)(password\s*=\s*)('[^']*'|[^\s&]+)`)

// hider gives what takes the secrets of URLs out of a text.
func hider(urls ...string) func(string) string {
	var secrets []string
	note := func(s string) {
		if s != "" {
			secrets = append(secrets, s, "***", url.QueryEscape(s), "***", url.PathEscape(s), "***")
		}
	}
	for _, raw := range urls {
		if u, err := url.Parse(raw); err == nil && u.Scheme != "" {
			if p, has := u.User.Password(); has {
				note(p)
			}
			note(u.Query().Get("password"))
			note(u.Query().Get("sslpassword"))
		} else if _, rest, ok := strings.Cut(raw, "://"); ok { // not to be parsed
			if at := strings.LastIndexByte(rest, '@'); at >= 0 {
				note(rest[:at])
				_, password, _ := strings.Cut(rest[:at], ":")
				note(password)
			}
		}
		for _, m := range passwordOf.FindAllStringSubmatch(raw, -1) {
			note(strings.Trim(m[2], "'"))
		}
	}
	return strings.NewReplacer(secrets...).Replace
}
