package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

const aWindow, otherWindow = "daily 01:00-03:00 UTC", "Mon-Fri 22:00-04:00 UTC"

// scribble fills a record by chance: about half of it is left empty, texts are of all sorts, and times are as utc makes them.
func scribble(random *rand.Rand, v reflect.Value) {
	texts := []string{"x", "14 of 14 ready", "a \"quoted\" one", `c:\d`, "<b>&", "zwölf", "\u2028", "\x00\x1f\x7f", "\xff\xc3", "日本", "{", "line\nline\ttab", "😀"}
	if t, is := v.Addr().Interface().(*time.Time); is {
		if random.IntN(2) == 0 {
			*t = utc(time.Unix(random.Int64N(250_000_000_000), []int64{0, 5, 120_000_000, 123_456_789}[random.IntN(4)]))
		}
		return
	}
	if w, is := v.Addr().Interface().(*[]string); is && len(*w) > 0 && (*w)[0] == aWindow {
		*w = []string{aWindow, otherWindow}[:1+random.IntN(2)]
		return
	}
	if v.Kind() != reflect.Struct && random.IntN(2) == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			scribble(random, reflect.NewAt(v.Field(i).Type(), v.Field(i).Addr().UnsafePointer()).Elem())
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		scribble(random, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), random.IntN(4), 4))
		for i := range v.Len() {
			scribble(random, v.Index(i))
		}
	case reflect.String:
		v.SetString(texts[random.IntN(len(texts))] + texts[random.IntN(len(texts))])
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(random.Int64() - 1<<62)
	case reflect.Uint64:
		v.SetUint(random.Uint64())
	default:
		panic(fmt.Sprint("cannot scribble ", v.Type()))
	}
}

func TestARecordIsWrittenAsEncodingJSONWritesIt(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 11))
	check := func(record any) {
		t.Helper()
		want, wantErr := json.Marshal(record)
		got, err := encode(record)
		if (err != nil) != (wantErr != nil) || err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%+v:\n got %s, %v\nwant %s, %v", record, got, err, want, wantErr)
		}
	}
	check([]installationRecord(nil))
	check([]installationRecord{})
	check([]installationRecord{{}, {Policy: policyRecord{Windows: []string{}}}})
	check(eventRecord{At: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)})
	for range 20_000 {
		var event eventRecord
		var journal journalRecord
		var list []installationRecord
		for _, r := range []any{&event, &journal, &list} {
			scribble(random, reflect.ValueOf(r).Elem())
		}
		check(event)
		check(journal)
		check(list)
	}
}

// FuzzTexts looks for a text that encoding/json writes otherwise.
func FuzzTexts(f *testing.F) {
	f.Add("plain", "<\u2028\xff")
	f.Fuzz(func(t *testing.T, a, b string) {
		r := eventRecord{Kind: a, Message: b}
		want, err := json.Marshal(r)
		must(t, err)
		got, err := encode(r)
		must(t, err)
		same(t, "encoded", string(got), string(want))
	})
}

// What a cluster says is news where any of it is other than before but for when it was observed.
func TestAnythingElseOfAnInstallationIsNews(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 5))
	differed := map[string]bool{}
	var look func(path string, a, b *installationRecord, x, y reflect.Value)
	look = func(path string, a, b *installationRecord, x, y reflect.Value) {
		for i := range x.NumField() {
			field, name := x.Type().Field(i), path+x.Type().Field(i).Name
			if field.Type == reflect.TypeFor[policyRecord]() || field.Anonymous {
				look(name+".", a, b, x.Field(i), y.Field(i))
				continue
			}
			kept := reflect.New(field.Type).Elem()
			kept.Set(y.Field(i))
			scribble(random, y.Field(i))
			// nothing and none are the same
			written := func(v reflect.Value) string { data, _ := json.Marshal(v.Interface()); return string(data) }
			is := written(kept) != written(y.Field(i)) && !(field.Type.Kind() == reflect.Slice && kept.Len()+y.Field(i).Len() == 0)
			if name == "healthRecord.ObservedAt" {
				is = false
			}
			if got := !sameNews(installationsOf([]installationRecord{*a}, &windows{}), []installationRecord{*b}); got != is {
				t.Fatalf("%s: from %s to %s: news %v, want %v", name, written(kept), written(y.Field(i)), got, is)
			}
			differed[name] = differed[name] || is
			y.Field(i).Set(kept)
		}
	}
	for range 300 {
		var a installationRecord
		scribble(random, reflect.ValueOf(&a).Elem())
		a.Policy.Windows = []string{aWindow}
		data, err := json.Marshal(a)
		must(t, err)
		var b installationRecord // shares nothing with a
		must(t, json.Unmarshal(data, &b))
		must(t, json.Unmarshal(data, &a))
		look("", &a, &b, reflect.ValueOf(&a).Elem(), reflect.ValueOf(&b).Elem())
	}
	want := reflect.TypeFor[installationRecord]().NumField() - 2 + reflect.TypeFor[policyRecord]().NumField() + reflect.TypeFor[healthRecord]().NumField()
	if len(differed) != want {
		t.Errorf("looked at %d fields of %d", len(differed), want)
	}
	for name, is := range differed {
		if !is && name != "healthRecord.ObservedAt" {
			t.Errorf("%s was never other than before", name)
		}
	}
}
