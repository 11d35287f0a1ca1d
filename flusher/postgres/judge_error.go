package postgres

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer/table"
)

// fieldCodes gives the codes of http-api.md for the SQLSTATEs of input
// functions and domain checks. All others are invalid_value.
var fieldCodes = map[string]string{
	"22001": "too_long",         // string_data_right_truncation
	"54000": "too_long",         // program_limit_exceeded: an array or tsvector too large
	"22003": "out_of_range",     // numeric_value_out_of_range
	"22007": "invalid_datetime", // invalid_datetime_format
	"22008": "invalid_datetime", // datetime_field_overflow
	"22009": "invalid_datetime", // invalid_time_zone_displacement_value
	"22015": "invalid_datetime", // interval_field_overflow
	"23502": "null_not_allowed",
	"22P05": "nul_not_allowed", // untranslatable_character: \u0000 is the only one in UTF-8
}

// fieldError puts the server's verdict on one value into words of the API.
func fieldError(t *table.Type, pg *pgconn.PgError) *table.FieldError {
	code, ok := fieldCodes[pg.Code]
	if !ok {
		code = "invalid_value"
	}
	const unknownZone = "22023" // invalid_parameter_value: time zone "x" not recognized
	if pg.Code == unknownZone && isTime(bottom(t)) {
		code = "invalid_datetime"
	}
	detail := sentence(pg.Message)
	if pg.Detail != "" {
		detail += " " + sentence(pg.Detail)
	}
	return &table.FieldError{Code: code, Detail: detail}
}

func isTime(t *table.Type) bool {
	const timeOID, timetz, interval = 1083, 1266, 1186
	switch t.Kind {
	case table.KindDate, table.KindTimestamp, table.KindTimestamptz:
		return true
	}
	return t.OID == timeOID || t.OID == timetz || t.OID == interval
}

// maxSentence keeps a long value, which messages quote, out of answers and logs.
const maxSentence = 160

// sentence makes one of a message: Postgres writes them without a capital and
// a full stop. It shows what a person can read, and no more than maxSentence.
func sentence(message string) string {
	s := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(message, "?"))
	if len(s) > maxSentence {
		cut := maxSentence
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + " …"
	}
	first, size := utf8.DecodeRuneInString(s)
	s = string(unicode.ToUpper(first)) + s[size:]
	if strings.HasSuffix(s, ".") || strings.HasSuffix(s, "…") {
		return s
	}
	return s + "."
}
