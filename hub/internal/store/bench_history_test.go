package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// BenchmarkPages measures the first page of each list of events with a thousand and with a million of them, taken in
// turns.
func BenchmarkPages(b *testing.B) {
	small, names, _ := crowd(b, 1000)
	history(b, small, names, 1000)
	large, names, _ := crowd(b, 1000)
	history(b, large, names, 1_000_000)
	for name, f := range map[string]EventFilter{"all": {}, "cluster": {Cluster: string(names[7])}, "distribution": {Distribution: "shop"}} {
		f.Limit = 200
		if name == "cluster" {
			f.Limit = 1 // in a thousand events of a thousand clusters it has one
		}
		page := func(s *Store) (took time.Duration, cursors int64) {
			began := time.Now()
			for range 50 {
				err := s.db.View(func(tx *bolt.Tx) error {
					found, _, err := readEvents(tx, f)
					stats := tx.Stats()
					if cursors += stats.GetCursorCount(); err == nil && len(found) != f.Limit {
						err = fmt.Errorf("%d events", len(found))
					}
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			return time.Since(began) / 50, cursors / 50
		}
		var ratios []float64
		var of, to time.Duration
		var reads, reads2 int64
		for range 15 {
			of, reads = page(small)
			to, reads2 = page(large)
			ratios = append(ratios, float64(to)/float64(of))
		}
		slices.Sort(ratios)
		fmt.Printf("FIGURE store.page-%s-vs-short %.2f x with 1,000,000 events against 1,000; %v against %v, %d lookups against %d; %.2f to %.2f of 15 rounds\n",
			name, ratios[7], to.Round(time.Microsecond), of.Round(time.Microsecond), reads2, reads, ratios[0], ratios[14])
	}
}
