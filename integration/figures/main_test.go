package main

import (
	"io"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestFindAndPlan(t *testing.T) {
	sources, err := find(fstest.MapFS{
		"a/a_test.go": {Data: []byte(`package a
func TestOne(t *testing.T) { t.Logf("FIGURE one.first %d ms", 1); fmt.Printf("FIGURE one.second %d ms\n", 1) }
func BenchmarkTwo(b *testing.B) { world.Figure(b, "two.first", 1, "ms") }
func TestOther(t *testing.T) { t.Log("no figure") }
`)},
		"b/b_test.go": {Data: []byte(`package b
func print(name string) { fmt.Printf("FIGURE %s 1 ms\n", name) }
func TestThree(t *testing.T) { figure(t, "three.first") }
`)},
		"c/c.go": {Data: []byte("package c\nvar x = `FIGURE four.first 1 ms`\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names(sources), " "); got != "one.first one.second three.first two.first" {
		t.Errorf("names: %s", got)
	}
	for _, test := range []struct {
		only string
		want []invocation
	}{
		{"", []invocation{{dir: "a", functions: []string{"TestOne", "BenchmarkTwo"}}, {dir: "b"}}},
		{"^two", []invocation{{dir: "a", functions: []string{"BenchmarkTwo"}}, {dir: "b"}}},
	} {
		if got := plan(sources, regexp.MustCompile(test.only)); !reflect.DeepEqual(got, test.want) {
			t.Errorf("plan of %q: %v, want %v", test.only, got, test.want)
		}
	}
	if got := strings.Join(invocation{dir: "a", functions: []string{"BenchmarkTwo"}}.arguments()[4:], " "); got != "-run ^()$ -bench ^(BenchmarkTwo)$ ./a" {
		t.Errorf("arguments: %s", got)
	}
}

func TestCollect(t *testing.T) {
	figures, err := collect(strings.NewReader(`
{"Action":"run","Test":"TestOne"}
{"Action":"output","Test":"TestOne","Output":"    one_test.go:7: FIGURE one.first 12.5 ms seed=7, 3 runs\n"}
{"Action":"output","Test":"TestOne","Output":"FIGURE one.sec"}
{"Action":"output","Test":"TestOne","Output":"ond 0 states\n"}
{"Action":"output","Test":"TestOne","Output":"FIGURE nothing\n"}
{"Action":"pass","Test":"TestOne","Elapsed":1.5}
{"Action":"output","Output":"BenchmarkTwo FIGURE two.first 3 MB\n"}
{"Action":"pass","Elapsed":4}
`), io.Discard)
	want := []figure{
		{name: "one.first", value: "12.5", unit: "ms", note: "seed=7, 3 runs", test: "TestOne", took: 1500 * time.Millisecond},
		{name: "one.second", value: "0", unit: "states", test: "TestOne", took: 1500 * time.Millisecond},
		{name: "two.first", value: "3", unit: "MB", took: 4 * time.Second},
	}
	if err != nil || !reflect.DeepEqual(figures, want) {
		t.Errorf("got %+v, %v\nwant %+v", figures, err, want)
	}
}
