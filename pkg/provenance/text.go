package provenance

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxTime is the end of the year 9999, in seconds.
const maxTime = 253402300799

// header takes the first line, which must be of this key.
func header(raw []byte, key string) (value string, rest []byte, err error) {
	line, rest, ok := bytes.Cut(raw, []byte("\n"))
	if !ok {
		return "", nil, errors.New("it ends too early")
	}
	v, ok := bytes.CutPrefix(line, []byte(key+" "))
	if !ok {
		return "", nil, fmt.Errorf("no %q line where it belongs", key)
	}
	return string(v), rest, nil
}

func isID(s string) bool {
	if len(s) != 40 || s == strings.Repeat("0", 40) {
		return false
	}
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// parseIdent reads "name <mail> seconds zone" in the one form that git's own readers, which look for the
// first and for the last bracket, all read alike.
func parseIdent(v string) (time.Time, error) {
	bad := func(what string) (time.Time, error) {
		return time.Time{}, fmt.Errorf("%q is not a name, a mail address and a time: %s", v, what)
	}
	if strings.ContainsFunc(v, isControl) {
		return bad("it holds a control character")
	}
	name, rest, ok := strings.Cut(v, "<")
	if !ok || !strings.HasSuffix(name, " ") || strings.Contains(name, ">") {
		return bad("no name before the address")
	}
	mail, rest, ok := strings.Cut(rest, "> ")
	if !ok || strings.ContainsAny(mail, "<>") {
		return bad("no address")
	}
	digits, zone, ok := strings.Cut(rest, " ")
	if !ok || !isDigits(digits) || len(digits) > len("253402300799") || (digits[0] == '0' && digits != "0") {
		return bad("no time")
	}
	if len(zone) != 5 || (zone[0] != '+' && zone[0] != '-') || !isDigits(zone[1:]) {
		return bad("no time zone")
	}
	seconds, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || seconds > maxTime {
		return bad("a time after the year 9999")
	}
	return time.Unix(seconds, 0).UTC(), nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
