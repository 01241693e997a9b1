package agent

import (
	"strings"
	"testing"
)

// The tests of a step are run at each measurement: what one says again is no news.
func TestATestThatSaysTheSameIsNotToldAgain(t *testing.T) {
	told := map[string]string{"smoke/login": "login passed", "smoke/pay": "pay passed"}
	got := untold(told, []testNews{{"smoke/login", "login passed"}, {"smoke/pay", "pay failed: 500"}, {"smoke/new", "new passed"}})
	if strings.Join(got, "; ") != "pay failed: 500; new passed" {
		t.Errorf("told: %q", got)
	}
}
