// Package follow tells how far those have come who lead traffic in the plugin's place, Flagger and Argo
// Rollouts, and what it takes for them to go back to the old release without measuring it. It is pure: it
// is given the objects that a cluster has, answers a State or an Edit, and carries nothing out.
//
// Nouns: a Leader is one of the two; a Service is what one of its objects leads; a State is how far that
// is. Whoever asks again, in another process too, gets the same answer while the cluster is the same.
package follow

import (
	"fmt"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
)

// Object is a Kubernetes object as it is decoded.
type Object = document.Object

// Service is one part of the application that somebody else leads.
type Service struct {
	Name      string // as the Subject calls it
	Kind      string // of the object that leads it: Canary or Rollout
	Namespace string
	Object    string // its name
	Workload  string // the Deployment; empty where the Rollout has the pods' template itself

	// Coming and Stable are what the two releases say of the pods: the Deployment or the Rollout; nil where a
	// release has none.
	Coming, Stable Object
}

// ID names the object for people.
func (s Service) ID() string { return s.Kind + " " + s.Namespace + "/" + s.Object }

// Router is the leader's name in a course.
func (s Service) Router() string {
	if s.Kind == "Rollout" {
		return Rollouts
	}
	return Flagger
}

// The leaders.
const (
	Flagger  = "flagger"
	Rollouts = "argo-rollouts"
)

// Outcome is how a State is to be taken.
type Outcome int

const (
	Going  Outcome = iota // on its way
	Asking                // waits for a person
	Passed                // runs the new release and nothing else
	Failed                // never will
)

// State is how far a service is. Reason is for people, and empty only where it passed.
type State struct {
	Phase   string // the leader's own word
	Weight  int
	Outcome Outcome
	Reason  string
}

// Live is what the cluster has.
type Live []Object

func (l Live) find(group, kind, namespace, name string) Object {
	for _, o := range l {
		if document.Group(o) == group && document.Text(o, "kind") == kind && document.Text(o, "metadata", "namespace") == namespace && document.Text(o, "metadata", "name") == name {
			return o
		}
	}
	return nil
}

// Question is when it is asked and since when the release is there; Since zero: nobody knows.
type Question struct {
	Since, Now time.Time
}

// patience is how long a leader may take to see that there is something to do. Flagger looks once in an
// interval, the other at once.
const patience = time.Minute

func (q Question) late(more time.Duration) bool {
	return !q.Since.IsZero() && q.Now.Sub(q.Since) > patience+more
}

// unseen is a service that its leader has not taken up.
func (q Question) unseen(s Service, phase, leader string, more time.Duration) State {
	if q.late(more) {
		return State{Phase: phase, Outcome: Failed, Reason: fmt.Sprintf("%s: %s has not taken it up within %s; see whether its controller runs and watches %s", s.ID(), leader, patience+more, s.Namespace)}
	}
	return State{Phase: phase, Reason: s.ID() + ": to be taken up by " + leader}
}

// Look answers how far a service is.
func (s Service) Look(live Live, q Question) State {
	if s.Kind == "Rollout" {
		return s.rollout(live, q)
	}
	return s.canary(live, q)
}

// Edit is what has to be changed for a service to return, and whether that is all.
type Edit struct {
	Object  Object // as it is, whose version the change depends on; nil: nothing to change
	Patch   map[string]any
	Status  bool // the patch is of the status
	Detail  string
	Settled bool
	Waits   string
}

// Return works out the way back, once the old release is restored; before, it changes nothing.
func (s Service) Return(live Live, now time.Time) Edit {
	if s.Kind == "Rollout" {
		return s.returnRollout(live)
	}
	return s.returnCanary(live, now)
}

// unrestored says why what runs is not what the old release says; empty: it is.
func unrestored(kind string, stable, live Object) string {
	if covers(document.At(stable, "spec", "template"), document.At(live, "spec", "template")) {
		return ""
	}
	return fmt.Sprintf("%s %s/%s to be restored to the old release", kind, document.Text(live, "metadata", "namespace"), document.Text(live, "metadata", "name"))
}
