package table

// parseMoment reads YYYY-MM-DD or YYYY/MM/DD, then T or a blank and
// HH:MM[:SS[.fraction]], then Z or ±HH[[:]MM[:SS]], with or without a blank
// before. ErrJudge for every other form, for the year 0 and for the leap
// second and 24:00, which Postgres has its own mind about.
func parseMoment(s []byte) (m moment, err error) {
	const longest = 48 // the server stops reading somewhere; do not find out where
	if len(s) < len("YYYY-MM-DD") || len(s) > longest {
		return m, ErrJudge
	}
	sep := s[4]
	ok := sep == '-' || sep == '/'
	ok = ok && s[7] == sep && allDigits(s[:4]) && allDigits(s[5:7]) && allDigits(s[8:10])
	if !ok {
		return m, ErrJudge
	}
	m.year, m.month, m.day = two(s)*100+two(s[2:]), two(s[5:]), two(s[8:])
	rest := s[10:]
	if len(rest) > 0 {
		if rest, ok = m.parseTime(rest); !ok || !m.parseZone(rest) {
			return m, ErrJudge
		}
	}
	return m, m.check(s)
}

func two(s []byte) int { return int(s[0]-'0')*10 + int(s[1]-'0') }

// twoDigits reads two digits after lead.
func twoDigits(s []byte, lead byte) (n int, rest []byte, ok bool) {
	if len(s) < 3 || s[0] != lead || !isDigit(s[1]) || !isDigit(s[2]) {
		return 0, s, false
	}
	return two(s[1:]), s[3:], true
}

func (m *moment) parseTime(s []byte) (rest []byte, ok bool) {
	if s[0] != 'T' && s[0] != ' ' {
		return s, false
	}
	if m.hour, s, ok = twoDigits(s, s[0]); !ok {
		return s, false
	}
	if m.minute, s, ok = twoDigits(s, ':'); !ok {
		return s, false
	}
	if m.second, rest, ok = twoDigits(s, ':'); !ok {
		return s, len(s) == 0 || s[0] != ':' && s[0] != '.'
	}
	if len(rest) > 0 && rest[0] == '.' {
		n := digitsOf(rest[1:])
		if n == 0 {
			return rest, false
		}
		m.micros = roundFraction(rest[1 : 1+n])
		rest = rest[1+n:]
	}
	return rest, true
}

func (m *moment) parseZone(s []byte) bool {
	if len(s) > 1 && s[0] == ' ' {
		s = s[1:]
	}
	switch {
	case len(s) == 0:
		return true
	case len(s) == 1 && s[0] == 'Z':
		m.zone = zoneUTC
		return true
	case s[0] != '+' && s[0] != '-':
		return false
	}
	sign := s[0]
	hours, rest, ok := twoDigits(s, sign)
	if !ok {
		return false
	}
	minutes, seconds := 0, 0
	if len(rest) == 2 && allDigits(rest) { // +0530
		minutes, rest = two(rest), nil
	} else if len(rest) > 0 {
		if minutes, rest, ok = twoDigits(rest, ':'); !ok {
			return false
		}
		if len(rest) > 0 {
			if seconds, rest, ok = twoDigits(rest, ':'); !ok {
				return false
			}
		}
	}
	m.setOffset(sign, hours, minutes, seconds)
	return len(rest) == 0
}

const badOffset = 1 << 30

func (m *moment) setOffset(sign byte, hours, minutes, seconds int) {
	m.zone, m.offset = zoneOffset, hours*3600+minutes*60+seconds
	const most = 15 // MAX_TZDISP_HOUR
	switch {
	case hours > most || minutes > 59 || seconds > 59:
		m.offset = badOffset
	case m.offset == 0:
		m.zone = zoneUTC
	case sign == '-':
		m.offset = -m.offset
	}
}

// check refuses what no calendar has.
func (m *moment) check(s []byte) error {
	switch {
	case m.year == 0:
		return ErrJudge
	case m.month < 1 || m.month > 12 || m.day < 1 || m.day > daysIn(m.year, m.month):
		return refuse(codeInvalidDatetime, "%q is not a day of the calendar.", piece(s))
	case m.hour > 24 || m.minute > 59 || m.second > 60:
		return refuse(codeInvalidDatetime, "%q has no valid time of day.", piece(s))
	case m.offset == badOffset:
		return refuse(codeInvalidDatetime, "%q has no valid offset from UTC.", piece(s))
	case m.hour == 24 || m.second == 60:
		return ErrJudge
	}
	return nil
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}
