package fleetapi

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/wheelwright-dev/wheelwright/hub/internal/publish"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

const (
	maxSignerFiles = 100
	maxSignerText  = 1 << 20 // bytes, of all files
)

// SetSigners says whose signatures the tags of a distribution need from now on.
func (s *Service) SetSigners(ctx context.Context, req *fleetv1.SetSignersRequest) (*fleetv1.SetSignersResponse, error) {
	name := req.GetDistribution()
	signers, err := signersOf(name, req.GetSigners())
	if err != nil {
		return nil, err
	}
	s.watching.Lock()
	defer s.watching.Unlock()
	d, err := s.mustWatch(name)
	if err != nil {
		return nil, err
	}
	d.Signers = signers
	m := signersMessage(signers)
	if req.GetDryRun() {
		return &fleetv1.SetSignersResponse{Signers: m}, nil
	}
	text := "its tags need nobody's signature from now on"
	if !signers.None() {
		text = fmt.Sprintf("its tags need %d of %d signatures from now on: %s", max(1, signers.Threshold), len(m.GetKeys()), strings.Join(m.GetKeys(), ", "))
	}
	set := change{action: "distribution set", object: name, reason: text,
		event: fleet.Event{Distribution: name, Kind: fleet.EventSigners, Message: text}}
	switch err := s.commit(ctx, set, func(a store.Audited) error { return a.SetSigners(name, signers) }); {
	case errors.Is(err, store.ErrNotFound):
		return nil, noDistribution(name)
	case err != nil:
		return nil, s.failure("set the signers of "+name, err)
	}
	s.cfg.Watchers.Stop(name) // it judges by what it was started with
	s.cfg.Watchers.Start(d)
	return &fleetv1.SetSignersResponse{Signers: m}, nil
}

// signersOf checks what an operator wrote, keys included.
func signersOf(distribution string, m *fleetv1.Signers) (fleet.Signers, error) {
	s := fleet.Signers{Threshold: int(m.GetThreshold())}
	size := 0
	for _, f := range m.GetFiles() {
		s.Files = append(s.Files, fleet.SignerFile{Name: f.GetName(), Text: f.GetText()})
		size += len(f.GetName()) + len(f.GetText())
	}
	switch {
	case s.None() && s.Threshold > 0:
		return s, invalid("distribution %s: a threshold of %d without keys; name them with --signers FILE", distribution, s.Threshold)
	case s.None():
		return s, nil
	case len(s.Files) > maxSignerFiles || size > maxSignerText:
		return s, invalid("distribution %s: %d files of keys with %d bytes, want at most %d files and %d bytes", distribution, len(s.Files), size, maxSignerFiles, maxSignerText)
	}
	if _, err := publish.Policy(s); err != nil {
		return s, invalid("distribution %s: signers: %v", distribution, err)
	}
	return s, nil
}

// signersMessage is nil for none.
func signersMessage(s fleet.Signers) *fleetv1.Signers {
	if s.None() {
		return nil
	}
	m := &fleetv1.Signers{Threshold: uint32(max(1, s.Threshold))}
	for _, f := range s.Files {
		m.Files = append(m.Files, &fleetv1.SignerFile{Name: f.Name, Text: f.Text})
	}
	if p, err := publish.Policy(s); err == nil { // it was checked when it was set
		for _, k := range p.Signers.Keys() {
			m.Keys = append(m.Keys, k.String())
		}
	}
	return m
}
