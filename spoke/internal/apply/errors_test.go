package apply

import (
	"strings"
	"testing"
)

func TestWithoutValue(t *testing.T) {
	for in, want := range map[string]string{
		`Required value`: `Required value`,
		`Required value: name or generateName is required`:                    `Required value: name or generateName is required`,
		`Invalid value: "hunter2": must be base64`:                            `Invalid value: must be base64`,
		`Invalid value: "a \"quoted\": trap": must be short`:                  `Invalid value: must be short`,
		`Invalid value: 123456: must be between 1 and 65535, inclusive`:       `Invalid value: must be between 1 and 65535, inclusive`,
		`Invalid value: {"matchLabels":{"a":"b: c"}}: field is immutable`:     `Invalid value: field is immutable`,
		`Invalid value: v1.LabelSelector{A:"b: c"}: field is immutable`:       `Invalid value: field is immutable`,
		`Unsupported value: "hunter2": supported values: "ClusterIP", "None"`: `Unsupported value: supported values: "ClusterIP", "None"`,
		`Duplicate value: "hunter2"`:                                          `Duplicate value`,
		`Not found: "hunter2"`:                                                `Not found`,
	} {
		if got := withoutValue(in); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"a\n\tb\x00 c":                         "a b c",
		`pull https://bob:hunter2@reg.io/x`:    `pull https://…@reg.io/x`,
		`Authorization: Bearer abcdefgh.ijkl`:  `Authorization: …`,
		`GET /x?password=hunter2&a=1`:          `GET /x?…&a=1`,
		`Back-off pulling image "ghcr.io/a:1"`: `Back-off pulling image "ghcr.io/a:1"`,
	} {
		if got := oneLine(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := []rune(oneLine(strings.Repeat("ä", 1000))); len(got) != maxMessage {
		t.Errorf("%d characters", len(got))
	}
}
