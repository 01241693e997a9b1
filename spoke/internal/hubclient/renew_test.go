package hubclient

import (
	"testing"
	"time"
)

func TestARenewalThatTheHubAsksForIsSpreadAndBounded(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	usual := now.Add(6 * time.Hour)
	c := &Client{}
	if got, want := c.asked(now, usual, time.Minute, 0.5), now.Add(30*time.Second); !got.Equal(want) {
		t.Errorf("renews at %v, want %v", got, want)
	}
	// A session that ends before it costs nothing: the next one is asked too.
	if got, want := c.asked(now, usual, time.Minute, 0.25), now.Add(15*time.Second); !got.Equal(want) {
		t.Errorf("renews at %v, want %v", got, want)
	}
	// A hub that asks again at once, and again, gets one renewal a minute.
	at := now.Add(31 * time.Second)
	c.renewed = now.Add(30 * time.Second)
	if got, want := c.asked(at, usual, 0, 0), now.Add(30*time.Second+calm); !got.Equal(want) {
		t.Errorf("renews at %v, want %v", got, want)
	}
	// It is never put off by it.
	soon := at.Add(time.Second)
	if got := c.asked(at, soon, time.Hour, 0.9); !got.Equal(soon) {
		t.Errorf("renews at %v, want %v", got, soon)
	}
}
