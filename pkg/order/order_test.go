package order

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sample() Order {
	at := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	return Order{Verb: RollBack, Cluster: "acme/eu-1", Distribution: "shop", Target: "1.3.0", Running: "v1.4.0-rc.1+b", Nonce: Nonce{1, 2, 15: 255},
		Issued: at, Expires: at.Add(10 * time.Minute), Reason: "orders are lost – see #42"}
}

func TestAnOrderIsReadAsItIsWritten(t *testing.T) {
	for _, change := range []func(*Order){
		func(*Order) {},
		func(o *Order) { o.Verb = Force },
		func(o *Order) { o.Target = o.Running },
		func(o *Order) { o.Verb, o.Running = WidenPrune, "" },
		func(o *Order) { o.Verb = RunConformance },
		func(o *Order) { o.Expires = o.Issued.Add(MaxLife) },
		func(o *Order) { o.Reason = strings.Repeat("ö", MaxReason/2) },
	} {
		o := sample()
		change(&o)
		text, err := o.Text()
		if err != nil {
			t.Errorf("%+v: %v", o, err)
			continue
		}
		if back, err := Parse(text); err != nil || !reflect.DeepEqual(back, o) {
			t.Errorf("%s\nread as %+v, %v", text, back, err)
		}
	}
}

func TestWhatCannotBeOrderedIsNotWritten(t *testing.T) {
	for want, change := range map[string]func(*Order){
		"want run-conformance, force": func(o *Order) { o.Verb = "reboot" },
		"cluster name":                func(o *Order) { o.Cluster = "eu-1" },
		"distribution name":           func(o *Order) { o.Distribution = "Shop" },
		"target":                      func(o *Order) { o.Target = "latest" },
		"running":                     func(o *Order) { o.Running = "main" },
		"expires before":              func(o *Order) { o.Expires = o.Issued },
		"at most 24h":                 func(o *Order) { o.Expires = o.Issued.Add(MaxLife + time.Second) },
		"whole seconds":               func(o *Order) { o.Issued = o.Issued.Add(time.Millisecond) },
		"back where nothing runs":     func(o *Order) { o.Running = "" },
		"no reason":                   func(o *Order) { o.Reason = "" },
		"at most 500":                 func(o *Order) { o.Reason = strings.Repeat("a", MaxReason+1) },
		"blanks around":               func(o *Order) { o.Reason = " a" },
		"each on a line":              func(o *Order) { o.Reason = "a\nverb: force" },
		"U+001B":                      func(o *Order) { o.Reason = "a\x1b[2J" },
		"U+202E":                      func(o *Order) { o.Reason = "a\u202eb" },
		"U+2028":                      func(o *Order) { o.Reason = "a\u2028b" },
		"that is no text":             func(o *Order) { o.Reason = "a\xff" },
		"character U+00A0":            func(o *Order) { o.Reason = "a\u00a0b" },
	} {
		o := sample()
		change(&o)
		if text, err := o.Text(); !errors.Is(err, ErrForm) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %q, %v", want, text, err)
		}
	}
}

// Each of these means the sample, or nearly, to a reader who is not strict.
func TestThereIsOneTextForOneMeaning(t *testing.T) {
	good, err := sample().Text()
	if err != nil {
		t.Fatal(err)
	}
	text := string(good)
	swap := func(from, to string) string {
		if !strings.Contains(text, from) {
			t.Fatalf("no %q in\n%s", from, text)
		}
		return strings.Replace(text, from, to, 1)
	}
	for name, other := range map[string]string{
		"nothing":             "",
		"no end":              strings.TrimSuffix(text, "\n"),
		"a line more":         text + "\n",
		"a field more":        text + "force: yes\n",
		"CRLF":                strings.ReplaceAll(text, "\n", "\r\n"),
		"BOM":                 "\ufeff" + text,
		"capital nonce":       swap("ff\n", "FF\n"),
		"short nonce":         swap("ff\n", "\n"),
		"long nonce":          swap("ff\n", "ffff\n"),
		"blank before value":  swap("verb: ", "verb:  "),
		"blank after value":   swap("shop\n", "shop \n"),
		"no blank":            swap("verb: ", "verb:"),
		"tab":                 swap("verb: ", "verb:\t"),
		"capital name":        swap("verb: ", "Verb: "),
		"offset of time":      swap("20:00:00Z", "20:00:00+00:00"),
		"fraction of time":    swap("20:00:00Z", "20:00:00.0Z"),
		"small z":             swap("20:00:00Z", "20:00:00z"),
		"another hour":        swap("20:10:00Z", "24:10:00Z"),
		"two fields in turn":  swap("verb: rollback\ncluster: acme/eu-1\n", "cluster: acme/eu-1\nverb: rollback\n"),
		"a field twice":       swap("verb: rollback\n", "verb: rollback\nverb: rollback\n"),
		"a field less":        swap("verb: rollback\n", ""),
		"another version":     swap("version 1", "version 2"),
		"verb in capitals":    swap("rollback", "Rollback"),
		"NUL":                 swap("orders are", "orders\x00are"),
		"a large one":         text + strings.Repeat("a", MaxText),
		"running as nothing":  swap("running: v1.4.0-rc.1+b", "running: "),
		"running in brackets": swap("running: v1.4.0-rc.1+b", "running: <none>"),
	} {
		if o, err := Parse([]byte(other)); !errors.Is(err, ErrForm) {
			t.Errorf("%s: read as %+v, %v", name, o, err)
		}
	}
}

func TestAnOrderLivesFromIssueToExpiry(t *testing.T) {
	o := sample()
	for at, fresh := range map[time.Time]bool{
		o.Issued: true, o.Issued.Add(-MaxSkew): true, o.Issued.Add(-MaxSkew - time.Second): false,
		o.Expires.Add(-time.Second): true, o.Expires: false, o.Expires.Add(time.Hour): false,
	} {
		if err := o.Fresh(at); (err == nil) != fresh {
			t.Errorf("at %s: %v", at, err)
		}
	}
	if !o.Until().After(o.Expires) {
		t.Error("its nonce is forgotten while it lives")
	}
}

func TestNoncesAreRandom(t *testing.T) {
	seen := map[Nonce]bool{}
	for range 1000 {
		n := NewNonce()
		if seen[n] || n == (Nonce{}) {
			t.Fatal("a nonce twice")
		}
		seen[n] = true
	}
}

// The README shows an order as it is.
func TestTheOrderInTheReadme(t *testing.T) {
	text, err := sample().Text()
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil || !bytes.Contains(readme, text) {
		t.Errorf("README.md does not show this order, %v:\n%s", err, text)
	}
}

// Whatever is read is written again byte for byte.
func FuzzOrder(f *testing.F) {
	text, err := sample().Text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(bytes.ReplaceAll(text, []byte("rollback"), []byte("force")))
	f.Add([]byte(form().Header + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := Parse(data)
		if err != nil {
			if o != (Order{}) {
				t.Errorf("an error and an order: %+v, %v", o, err)
			}
			return
		}
		again, err := o.Text()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q was read, and is written %q, %v", data, again, err)
		}
	})
}
