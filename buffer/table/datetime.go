package table

import (
	"bytes"
	"math"
	"strconv"
)

// moment is a date, a time of day and a zone as they were written.
type moment struct {
	year, month, day     int
	hour, minute, second int
	micros               int // may be 1,000,000 after rounding
	zone                 zoneKind
	offset               int // seconds east of UTC
}

type zoneKind uint8

const (
	zoneNone zoneKind = iota
	zoneUTC           // Z or an offset of zero
	zoneOffset
)

// appendDatetime reads date, timestamp and timestamptz in the ISO 8601 forms;
// all others are for Postgres.
func (t *Type) appendDatetime(dst, s []byte) ([]byte, error) {
	if equalFold(s, "infinity") || equalFold(s, "-infinity") {
		return append(dst, bytes.ToLower(s)...), nil
	}
	m, err := parseMoment(s)
	if err != nil {
		return dst, err
	}
	switch {
	case t.Kind == KindTimestamptz && m.zone == zoneNone:
		return dst, refuse(codeInvalidDatetime, "%q needs a zone, such as Z or +02:00.", piece(s))
	case t.Kind != KindTimestamptz && m.zone == zoneOffset:
		return dst, refuse(codeInvalidDatetime, "%q has an offset, which a column of type %s would drop silently; give it in UTC.", piece(s), t.Name)
	case t.Kind == KindDate:
		return appendDate(dst, m.year, m.month, m.day), nil
	}
	us := roundMicros(m.micros2000(), t.Digits)
	if us < firstMicro || us > lastMicro {
		return dst, ErrJudge
	}
	dst = appendTimestamp(dst, us)
	if t.Kind == KindTimestamptz {
		dst = append(dst, '+', '0', '0')
	}
	return dst, nil
}

const (
	microsPerDay = 24 * 3600 * 1e6
	firstMicro   = -730119 * microsPerDay       // 0001-01-01
	lastMicro    = (2921939+1)*microsPerDay - 1 // 9999-12-31 23:59:59.999999
	daysTo2000   = 730425                       // from 0000-03-01 to 2000-01-01
)

// micros2000 counts as Postgres does: microseconds since 2000-01-01 in UTC.
func (m *moment) micros2000() int64 {
	seconds := int64(m.hour*3600 + m.minute*60 + m.second - m.offset)
	return int64(daysFromCivil(m.year, m.month, m.day))*microsPerDay + seconds*1e6 + int64(m.micros)
}

// roundMicros rounds to digits after the second's point, half away from the
// epoch. Source: AdjustTimestampForTypmod.
func roundMicros(us int64, digits int) int64 {
	if digits < 0 || digits >= 6 {
		return us
	}
	scale := int64(1)
	for range 6 - digits {
		scale *= 10
	}
	if us < 0 {
		return -((-us + scale/2) / scale * scale)
	}
	return (us + scale/2) / scale * scale
}

// daysFromCivil counts the days since 2000-01-01. The year begins in March, so
// that the leap day is its last. Source: H. Hinnant, "chrono-Compatible
// Low-Level Date Algorithms".
func daysFromCivil(year, month, day int) int {
	if month <= 2 {
		year--
		month += 12
	}
	return 365*year + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 1 - daysTo2000
}

// civilFromDays is its inverse, for years from 1 on.
func civilFromDays(days int) (year, month, day int) {
	days += daysTo2000
	era := days / 146097
	doe := days % 146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	year, month, day = yoe+era*400, mp+3, doy-(153*mp+2)/5+1
	if month > 12 {
		year, month = year+1, month-12
	}
	return year, month, day
}

func appendDate(dst []byte, year, month, day int) []byte {
	dst = append2(append2(dst, year/100), year%100)
	dst = append2(append(dst, '-'), month)
	return append2(append(dst, '-'), day)
}

// append2 appends two digits.
func append2(dst []byte, n int) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }

// appendTimestamp prints the fraction without trailing zeros.
func appendTimestamp(dst []byte, us int64) []byte {
	days := us / microsPerDay
	us %= microsPerDay
	if us < 0 {
		days, us = days-1, us+microsPerDay
	}
	dst = append(appendDays(dst, int(days)), ' ')
	seconds := int(us / 1e6)
	dst = append(append2(dst, seconds/3600), ':')
	dst = append(append2(dst, seconds/60%60), ':')
	dst = append2(dst, seconds%60)
	fraction := int(us % 1e6)
	if fraction == 0 {
		return dst
	}
	dst = append(dst, '.')
	for place := 100000; fraction > 0; place /= 10 {
		dst = append(dst, byte('0'+fraction/place))
		fraction %= place
	}
	return dst
}

func appendDays(dst []byte, days int) []byte {
	year, month, day := civilFromDays(days)
	return appendDate(dst, year, month, day)
}

// roundFraction turns the digits after the point into microseconds. Postgres
// goes through a double here, rint(strtod(".ddd") * 1e6), so this does too;
// up to six digits that is exact.
func roundFraction(digits []byte) int {
	if len(digits) <= 6 {
		n := 0
		for i := range 6 {
			n *= 10
			if i < len(digits) {
				n += int(digits[i] - '0')
			}
		}
		return n
	}
	f, _ := strconv.ParseFloat("0."+string(digits), 64)
	return int(math.RoundToEven(f * 1e6))
}

func equalFold(s []byte, lower string) bool {
	return len(s) == len(lower) && bytes.EqualFold(s, []byte(lower))
}
