package identity

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestATicketIsThisHubsAloneAndEnds(t *testing.T) {
	dir := t.TempDir()
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := RelayTicket{Certificate: [32]byte{1}, Key: [32]byte{2}, Secret: [32]byte{3}}
	now := time.Now()
	ticket, err := a.SealTicket(want, now, now.Add(8*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	opens := func(a *Authority, ticket []byte, at time.Time) bool {
		t.Helper()
		got, err := a.OpenTicket(ticket, at)
		if err != nil && (!errors.Is(err, ErrTicket) || got != RelayTicket{}) {
			t.Errorf("got %+v, %v", got, err)
		}
		return err == nil && got == want
	}
	again, err := Open(dir) // restarted
	if err != nil {
		t.Fatal(err)
	}
	other, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if !opens(a, ticket, now) || !opens(again, ticket, now.Add(8*time.Hour-2*time.Second)) {
		t.Error("a ticket is not taken by who made it")
	}
	if opens(other, ticket, now) || opens(a, ticket, now.Add(8*time.Hour)) || opens(a, ticket, now.Add(48*time.Hour)) {
		t.Error("a ticket is taken by another hub, or after its end")
	}
	for i := range ticket {
		bent := slices.Clone(ticket)
		bent[i] ^= 1
		if opens(a, bent, now) {
			t.Fatalf("taken with byte %d altered", i)
		}
		if opens(a, ticket[:i], now) {
			t.Fatalf("taken with %d bytes", i)
		}
	}
	if _, err := a.SealTicket(want, now, now.Add(25*time.Hour)); err == nil {
		t.Error("a ticket outlives the key that it is sealed under")
	}
	// A rotation: tickets of before count until the old key is retired, those of after it from then on too.
	if _, err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	fresh, err := a.SealTicket(want, now, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if !opens(a, ticket, now) || !opens(a, fresh, now) {
		t.Error("a rotation ends tickets")
	}
	if err := a.Retire(); err != nil {
		t.Fatal(err)
	}
	if opens(a, ticket, now) || !opens(a, fresh, now) {
		t.Error("after the old key: its tickets count, or the new one's do not")
	}
}
