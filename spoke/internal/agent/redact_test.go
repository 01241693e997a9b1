package agent

import (
	"strings"
	"testing"
)

// Law 10.
func TestMessagesCarryNoValues(t *testing.T) {
	for in, want := range map[string]string{
		"two\nlines\tand  more": "two lines and more",
		`Secret app/db: data.password: Invalid value: "hunter2": must be base64`:         `Secret app/db: data.password: Invalid value: …: must be base64`,
		`spec.replicas: Invalid value: -1: must be positive`:                             `spec.replicas: Invalid value: …: must be positive`,
		`clone https://user:pa55@git.example.com/x: refused`:                             `clone https://…@git.example.com/x: refused`,
		`cannot patch {"password":"hunter2","user":"shop","host":"db.example.com"} here`: `cannot patch {…} here`,
		`parse "redis://u:p@cache" failed`:                                               `parse "redis://…@cache" failed`,
	} {
		if got := oneLine(in); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if n := len([]rune(oneLine(strings.Repeat("x", 1000)))); n != longest {
		t.Errorf("%d characters", n)
	}
}
