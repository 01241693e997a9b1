package store

import (
	"fmt"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// rolloutRecord is a rollout's head: all of it but its members.
type rolloutRecord struct {
	Distribution string          `json:"distribution"`
	Version      string          `json:"version"`
	Plan         string          `json:"plan,omitempty"` // canonical YAML
	PlanSource   string          `json:"planSource,omitempty"`
	StartedBy    string          `json:"startedBy,omitempty"`
	Started      time.Time       `json:"started,omitzero"`
	Phase        string          `json:"phase"`
	Since        time.Time       `json:"since,omitzero"`
	Reason       string          `json:"reason,omitempty"`
	Told         string          `json:"told,omitempty"`
	Before       string          `json:"before,omitempty"`
	End          string          `json:"end,omitempty"`
	Wave         int             `json:"wave,omitempty"`
	Waves        []waveRecord    `json:"waves,omitempty"`
	LeftOut      []fleet.Cluster `json:"leftOut,omitempty"`
}

type waveRecord struct {
	Name        string    `json:"name"`
	Concurrency int       `json:"concurrency,omitempty"`
	Budget      int       `json:"budget,omitempty"`
	Started     time.Time `json:"started,omitzero"`
	Ended       time.Time `json:"ended,omitzero"`
	SoakUntil   time.Time `json:"soakUntil,omitzero"`
	ApprovedBy  string    `json:"approvedBy,omitempty"`
	Forgiven    int       `json:"forgiven,omitempty"`
}

type memberRecord struct {
	Wave         int       `json:"wave,omitempty"`
	Mark         string    `json:"mark"`
	Since        time.Time `json:"since,omitzero"`
	Reason       string    `json:"reason,omitempty"`
	Before       string    `json:"before,omitempty"`
	Offered      time.Time `json:"offered,omitzero"`
	Block        string    `json:"block,omitempty"`
	BlockedSince time.Time `json:"blockedSince,omitzero"`
}

func (r rolloutRecord) over() bool { return fleet.RolloutPhase(r.Phase).Terminal() }

func rolloutRecordOf(s rollout.State) rolloutRecord {
	r := rolloutRecord{
		Distribution: s.Distribution, Version: s.Version, Plan: string(s.Plan.YAML()), PlanSource: s.PlanSource, StartedBy: s.StartedBy,
		Started: utc(s.Started), Phase: string(s.Phase), Since: utc(s.Since), Reason: s.Reason, Told: s.Told, Before: string(s.Before), End: string(s.End),
		Wave: s.Wave, LeftOut: s.LeftOut,
	}
	for _, w := range s.Waves {
		r.Waves = append(r.Waves, waveRecord{Name: w.Name, Concurrency: w.Concurrency, Budget: w.Budget, Started: utc(w.Started), Ended: utc(w.Ended),
			SoakUntil: utc(w.SoakUntil), ApprovedBy: w.ApprovedBy, Forgiven: w.Forgiven})
	}
	return r
}

// headOf is a rollout without its members.
func headOf(id uint64, r rolloutRecord, p plan.Plan) rollout.State {
	s := rollout.State{
		ID: id, Distribution: r.Distribution, Version: r.Version, Plan: p, PlanSource: r.PlanSource, StartedBy: r.StartedBy,
		Started: r.Started, Phase: fleet.RolloutPhase(r.Phase), Since: r.Since, Reason: r.Reason, Told: r.Told, Before: fleet.RolloutPhase(r.Before),
		End: fleet.RolloutPhase(r.End), Wave: r.Wave, LeftOut: r.LeftOut,
	}
	for _, w := range r.Waves {
		s.Waves = append(s.Waves, rollout.Wave(w))
	}
	return s
}

func memberRecordOf(m rollout.Member) memberRecord {
	return memberRecord{Wave: m.Wave, Mark: string(m.Mark), Since: utc(m.Since), Reason: m.Reason, Before: m.Before, Offered: utc(m.Offered),
		Block: string(m.Block), BlockedSince: utc(m.BlockedSince)}
}

func memberOf(r memberRecord) rollout.Member {
	return rollout.Member{Wave: r.Wave, Mark: fleet.Mark(r.Mark), Since: r.Since, Reason: r.Reason, Before: r.Before, Offered: r.Offered,
		Block: fleet.Block(r.Block), BlockedSince: r.BlockedSince}
}

func memberKey(id uint64, cluster fleet.Cluster) []byte {
	return join(string(number(id)), string(cluster))
}

// readRollouts reads all, in the order of their ids.
func readRollouts(tx *bolt.Tx) (all []rollout.State, err error) {
	plans := map[string]plan.Plan{} // few differ
	err = each(tx.Bucket(bucketRollouts), func(k string, r rolloutRecord) error {
		p, known := plans[r.Plan]
		if !known {
			if p, err = plan.Parse([]byte(r.Plan)); err != nil {
				return fmt.Errorf("plan of the rollout of %s %s: %w: %w", r.Distribution, r.Version, ErrCorrupt, err)
			}
			plans[r.Plan] = p
		}
		all = append(all, headOf(numberOf(k), r, p))
		return nil
	})
	if err != nil {
		return nil, err
	}
	byID := map[uint64]map[fleet.Cluster]rollout.Member{}
	once := words{}
	err = each(tx.Bucket(bucketMembers), func(k string, r memberRecord) error {
		if len(k) < 10 {
			return fmt.Errorf("member %q: %w", k, ErrCorrupt)
		}
		id, cluster := numberOf(k), once.word(k[9:])
		if byID[id] == nil {
			byID[id] = map[fleet.Cluster]rollout.Member{}
		}
		r.Mark, r.Block, r.Before, r.Reason = once.word(r.Mark), once.word(r.Block), once.word(r.Before), once.word(r.Reason)
		byID[id][fleet.Cluster(cluster)] = memberOf(r)
		return nil
	})
	for i := range all {
		all[i].Members = byID[all[i].ID]
	}
	return all, err
}

// words keeps one copy of each string: of ten thousand members most say the same.
type words map[string]string

func (w words) word(s string) string {
	if known, found := w[s]; found {
		return known
	}
	s = strings.Clone(s)
	w[s] = s
	return s
}
