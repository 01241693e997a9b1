package fleet

import "testing"

func TestTally(t *testing.T) {
	for _, c := range []struct {
		name  string
		tally Tally
		sum   Sum
		brief string
	}{
		{"nobody", nil, Sum{}, "no cluster is to run 1.2.0"},
		{"zeroes", Tally{"Succeeded": 0, "RolledBack": 0}, Sum{}, "no cluster is to run 1.2.0"},
		{"all", Tally{"Succeeded": 4}, Sum{Done: 4}, "4 of 4 clusters run 1.2.0"},
		{"on the way", Tally{"Succeeded": 2, "Progressing": 3, CountWaiting: 4, CountOffered: 1}, Sum{Done: 2, UnderWay: 8}, "2 of 10 clusters run 1.2.0; 8 under way"},
		{"asked and in windows", Tally{"AwaitingApproval": 1, "AwaitingWindow": 2}, Sum{UnderWay: 3}, "0 of 3 clusters run 1.2.0; 3 under way"},
		{"each failure by its name", Tally{"Succeeded": 7, "RolledBack": 1, "Refused": 1, "RollbackFailed": 1}, Sum{Done: 7, Failed: 3},
			"7 of 10 clusters run 1.2.0; 1 Refused; 1 RollbackFailed; 1 RolledBack"},
		{"held back", Tally{"Succeeded": 5, CountPinned: 1, CountSilent: 2, CountDeclined: 1, "AwaitingConfig": 1}, Sum{Done: 5, Held: 5},
			"5 of 10 clusters run 1.2.0; 1 AwaitingConfig; 1 Declined; 1 Pinned; 2 Silent"},
		{"a word of tomorrow", Tally{"Succeeded": 1, "Levitating": 1}, Sum{Done: 1, UnderWay: 1}, "1 of 2 clusters run 1.2.0; 1 under way"},
		{"many", Tally{"Succeeded": 4711, CountOffered: 5189, CountPinned: 100}, Sum{Done: 4711, UnderWay: 5189, Held: 100}, "47 % of 10000 clusters run 1.2.0; 1 % held back"},
		{"many, some bad", Tally{"Succeeded": 9998, "RolledBack": 2}, Sum{Done: 9998, Failed: 2}, "99 % of 10000 clusters run 1.2.0; 2 RolledBack"},
	} {
		if s := c.tally.Sum(); s != c.sum {
			t.Errorf("%s: %+v, want %+v", c.name, s, c.sum)
		}
		if got := c.tally.Brief("1.2.0", 200); got != c.brief {
			t.Errorf("%s: %q, want %q", c.name, got, c.brief)
		}
	}
	if got := (Tally{"Succeeded": 4711, CountOffered: 5289}).Brief("1.2.0", 0); got != "4711 of 10000 clusters run 1.2.0; 5289 under way" {
		t.Errorf("exactly: %s", got)
	}
}
