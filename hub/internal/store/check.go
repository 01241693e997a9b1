package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// Finding is one part of a check.
type Finding struct {
	Part     string   // what was looked at: "records of clusters", "references to clusters", …
	Checked  int      // how many of it
	Problems []string // none: all is well
}

// Report is what Check found, in the order in which it looked.
type Report struct {
	Schema   uint64
	Size     int64 // of the file, in bytes
	Free     int64 // of them, in pages that are free
	Findings []Finding
	Bundles  []Bundle // that available releases need
}

// maxProblems of one part are named; the rest are counted.
const maxProblems = 20

// Check reads all of the file at path and changes nothing: every page, every record, and what they say of each other.
// What is found is in the report. Its errors are those of Open, and fs.ErrNotExist: there is no file.
func Check(path string) (r Report, err error) {
	if _, err := os.Stat(path); err != nil {
		return r, fmt.Errorf("check store: %w", err)
	}
	db, err := openChecked(path)
	if err != nil {
		return r, refusal(path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	current := uint64(len(steps()) + 1)
	if r.Schema, err = schema(db); err != nil {
		return r, refusal(path, err)
	}
	if r.Schema > current {
		return r, refusal(path, fmt.Errorf("%w: its schema is %d and this hub knows %d", ErrNewerSchema, r.Schema, current))
	}
	return r, db.View(func(tx *bolt.Tx) error {
		c := &checker{tx: tx, report: &r}
		r.Size, r.Free = tx.Size(), int64(db.Stats().FreePageN)*int64(db.Info().PageSize)
		c.note("pages", int(tx.Size()/int64(db.Info().PageSize)))
		c.records()
		if r.Schema == current && c.buckets() { // of an older hub's not all is there; the first start brings it
			c.references()
			c.history()
			c.audit()
		}
		return nil
	})
}

type checker struct {
	tx     *bolt.Tx
	report *Report
}

func (c *checker) note(part string, checked int, problems ...string) {
	if more := len(problems) - maxProblems; more > 0 {
		problems = append(problems[:maxProblems:maxProblems], fmt.Sprintf("and %d more", more))
	}
	c.report.Findings = append(c.report.Findings, Finding{Part: part, Checked: checked, Problems: problems})
}

// each goes through a bucket; do's error is a problem of that record.
func (c *checker) each(part, bucket string, do func(k, v []byte) error) {
	b := c.tx.Bucket([]byte(bucket))
	if b == nil {
		return // one that is made when it is first needed, or see records
	}
	n, problems := 0, []string(nil)
	err := b.ForEach(func(k, v []byte) error {
		n++
		if v == nil {
			return nil // a bucket in a bucket
		}
		if err := do(k, v); err != nil {
			problems = append(problems, fmt.Sprintf("%q: %v", readable(k), err))
		}
		return nil
	})
	if err != nil {
		problems = append(problems, err.Error())
	}
	c.note(part, n, problems...)
}

// readable is a key for a person: names are apart by a slash, numbers are numbers.
func readable(k []byte) string {
	if len(k) == 8 {
		return fmt.Sprint(binary.BigEndian.Uint64(k))
	}
	return strings.ToValidUTF8(strings.ReplaceAll(string(k), "\x00", " "), "?")
}

// into decodes a record of a type.
func into[T any](k, v []byte) error {
	_, err := decode[T](v, k)
	return err
}

// buckets looks for those that every file has.
func (c *checker) buckets() bool {
	var missing []string
	for _, name := range allBuckets() {
		if c.tx.Bucket(name) == nil {
			missing = append(missing, fmt.Sprintf("bucket %s is missing", name))
		}
	}
	c.note("buckets", len(allBuckets()), missing...)
	return len(missing) == 0
}

// records decodes what is in the buckets.
func (c *checker) records() {
	for _, r := range []struct {
		bucket string
		decode func(k, v []byte) error
	}{
		{string(bucketDistributions), func(k, v []byte) error {
			r, err := decode[distributionRecord](v, k)
			if err == nil {
				_, err = statements(string(k), r)
			}
			return err
		}},
		{string(bucketReleases), into[releaseRecord]},
		{string(bucketClusters), into[clusterRecord]},
		{string(bucketTokens), into[tokenRecord]},
		{string(bucketIdentities), into[identityRecord]},
		{string(bucketOperators), func(k, v []byte) error {
			r, err := decode[operatorRecord](v, k)
			if err == nil {
				_, err = caller.ParseRole(r.Role)
			}
			return err
		}},
		{string(bucketInstallations), into[[]installationRecord]},
		{string(bucketJournals), into[journalRecord]},
		{string(bucketEvents), into[eventRecord]},
		{string(bucketPreflights), into[preflightRecord]},
		{string(bucketOffered), into[offeredRecord]},
		{string(bucketRollouts), func(k, v []byte) error {
			r, err := decode[rolloutRecord](v, k)
			if err == nil {
				_, err = plan.Parse([]byte(r.Plan))
			}
			return err
		}},
		{string(bucketMembers), into[memberRecord]},
		{string(bucketRecalls), into[recallRecord]},
		{string(bucketPins), into[hubPinRecord]},
		{string(bucketDecisions), into[decisionRecord]},
		{bucketLayouts, into[layoutRecord]},
		{bucketRelays, into[relayRecord]},
		{bucketOrders, into[orderRecord]},
		{bucketReHomes, into[reHomeRecord]},
		{bucketSessions, into[sessionRecord]},
	} {
		c.each("records of "+r.bucket, r.bucket, r.decode)
	}
}

// has says whether a bucket has a key.
func (c *checker) has(bucket []byte, key string) bool {
	return c.tx.Bucket(bucket).Get([]byte(key)) != nil
}

// relay: there may have been none yet, and no bucket.
func (c *checker) relay(name string) bool {
	_, err := mustRelay(c.tx, name)
	return err == nil
}

// references looks whether what a record names is there.
func (c *checker) references() {
	ofCluster := func(k, _ []byte) error {
		name, _, _ := strings.Cut(string(k), "\x00")
		if !c.has(bucketClusters, name) {
			return fmt.Errorf("cluster %s is not there", name)
		}
		return nil
	}
	for _, bucket := range []string{string(bucketInstallations), string(bucketJournals), string(bucketPins), string(bucketDecisions), string(bucketPreflights),
		string(bucketFingerprints), bucketOrders, bucketReHomes, bucketSessions} {
		c.each("clusters of "+bucket, bucket, ofCluster)
	}
	c.each("certificates of clusters", string(bucketFingerprints), func(k, _ []byte) error {
		name, print, _ := bytes.Cut(k, []byte{0})
		id, found, err := get[identityRecord](c.tx.Bucket(bucketIdentities), print)
		switch {
		case err != nil:
			return err
		case !found || string(id.Cluster) != string(name):
			return fmt.Errorf("certificate %x is not there, or another's", print[:min(6, len(print))])
		}
		return nil
	})
	c.each("holders of certificates", string(bucketIdentities), func(k, v []byte) error {
		id, err := decode[identityRecord](v, k)
		switch {
		case err != nil:
			return nil // said already
		case id.Operator != "" && !c.has(bucketOperators, id.Operator):
			return fmt.Errorf("operator %s is not there", id.Operator)
		case id.Relay != "" && !c.relay(id.Relay):
			return fmt.Errorf("relay %s is not there", id.Relay)
		case id.Cluster != "" && c.tx.Bucket(bucketFingerprints).Get(join(string(id.Cluster), string(k))) == nil:
			return fmt.Errorf("cluster %s does not have it", id.Cluster)
		}
		return nil
	})
	c.each("releases of digests", string(bucketDigests), func(k, v []byte) error {
		r, found, err := get[releaseRecord](c.tx.Bucket(bucketReleases), v)
		switch {
		case err != nil || !found:
			return fmt.Errorf("release %s is not there", readable(v))
		case r.Digest != string(k):
			return fmt.Errorf("release %s has the digest %s", readable(v), r.Digest)
		}
		return nil
	})
	c.each("digests of releases", string(bucketReleases), func(k, v []byte) error {
		r, err := decode[releaseRecord](v, k)
		if err == nil && r.Phase == string(fleet.Available) && !c.has(bucketDigests, r.Digest) {
			return fmt.Errorf("its digest %s is not in the index", r.Digest)
		}
		return nil
	})
	c.each("rollouts of members", string(bucketMembers), func(k, _ []byte) error {
		if len(k) < 10 || c.tx.Bucket(bucketRollouts).Get(k[:8]) == nil {
			return fmt.Errorf("rollout %d is not there", numberOf(string(k)))
		}
		return nil
	})
	noted := map[string]bool{}
	c.each("health in journals", string(bucketJournals), func(k, v []byte) error {
		name, _, _ := strings.Cut(string(k), "\x00")
		r, err := decode[journalRecord](v, k)
		if err != nil || len(r.Health) == 0 {
			return nil // said already
		}
		if noted[name] {
			return errors.New("another journal of the cluster has it too")
		}
		noted[name] = true
		list, _, _ := get[[]installationRecord](c.tx.Bucket(bucketInstallations), []byte(name))
		for _, h := range r.Health {
			if !slices.ContainsFunc(list, func(i installationRecord) bool { return i.Distribution == h.Distribution }) {
				return fmt.Errorf("it has that of %s, which the cluster does not run", h.Distribution)
			}
		}
		return nil
	})
	c.report.Bundles, _ = bundlesOf(c.tx) // a record that does not decode was said already
}

// history looks whether events have no gaps, and whether each names the one before it.
func (c *checker) history() {
	last, links := uint64(0), newHeads() // the chains begin with the first event that is kept
	c.each("order of events", string(bucketEvents), func(k, v []byte) error {
		id := numberOf(string(k))
		first := last == 0
		gap := !first && id != last+1
		last = id
		r, err := decode[eventRecord](v, k)
		if err != nil {
			return nil // said already
		}
		ofCluster, ofDistribution := links.push(clusterChain(r.Cluster), id), uint64(0)
		if r.Distribution != "" {
			ofDistribution = links.push(distributionChain(r.Distribution), id)
		}
		switch {
		case gap:
			return errors.New("the one before it is missing")
		case ofCluster > 0 && r.OfCluster != ofCluster || ofDistribution > 0 && r.OfDistribution != ofDistribution:
			return fmt.Errorf("it names events %d and %d before it, not %d and %d", r.OfCluster, r.OfDistribution, ofCluster, ofDistribution)
		}
		return nil
	})
	c.each("newest events", bucketHeads, func(k, v []byte) error {
		if at, known := links.ids[string(k)]; known && (len(v) != 8 || numberOf(string(v)) != at) {
			return fmt.Errorf("it is event %d", at)
		}
		return nil
	})
	var without []string
	for _, chain := range links.order {
		if b := c.tx.Bucket([]byte(bucketHeads)); b == nil || b.Get([]byte(chain)) == nil {
			without = append(without, fmt.Sprintf("%q: lists of it begin nowhere", chain[1:]))
		}
	}
	slices.Sort(without)
	c.note("lists of events", len(links.order), without...)
}

// audit computes the chain of hashes anew.
func (c *checker) audit() {
	n, previous, problems := 0, []byte(nil), []string(nil)
	cur := c.tx.Bucket(bucketAudit).Cursor()
	for k, v := cur.First(); k != nil; k, v = cur.Next() {
		e := entryOf(k, v, previous)
		if err := verifyEntry(e, uint64(n)+1, previous); err != nil {
			problems = append(problems, fmt.Sprintf("entry %d: %v", n+1, err))
			break // what follows says the same
		}
		n, previous = n+1, e.Hash
	}
	c.note("chain of the audit", n, problems...)
}
