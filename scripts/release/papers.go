package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	slsa "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// buildType is the URI in the provenance that names how a release is built (SLSA's buildType).
const buildType = home + "/blob/main/docs/releasing.md"

// papers writes the notes and the provenance.
func (b builder) papers(context.Context) error {
	subjects, err := b.artifacts()
	if err != nil {
		return err
	}
	if err := b.writeNotes(subjects); err != nil {
		return err
	}
	return b.writeProvenance(subjects)
}

// artifacts returns the artifacts for the registry, with name and digest, and all files that exist so far.
func (b builder) artifacts() (list []*intoto.ResourceDescriptor, err error) {
	sums, err := sumAll(b.dir)
	if err != nil {
		return nil, err
	}
	for _, name := range sorted(sums) {
		part, is := strings.CutSuffix(name, "-"+b.version+layoutSuffix)
		if !is {
			continue
		}
		c, err := openLayout(filepath.Join(b.dir, name), b.work)
		if err != nil {
			return nil, err
		}
		list = append(list, &intoto.ResourceDescriptor{Name: part + ":" + b.version,
			Digest: map[string]string{c.digest.Algorithm: c.digest.Hex}})
	}
	for _, name := range sorted(sums) {
		list = append(list, &intoto.ResourceDescriptor{Name: name, Digest: map[string]string{"sha256": sums[name]}})
	}
	return list, nil
}

func (b builder) writeNotes(subjects []*intoto.ResourceDescriptor) error {
	var text strings.Builder
	fmt.Fprintf(&text, "# %s %s\n\n%s\n## What it has\n\n", b.chart.Name, b.version, b.notes)
	fmt.Fprintf(&text, "Of commit %s, %s, by %s.\n\n| | SHA-256 |\n|---|---|\n", b.commit,
		b.created.Format("2006-01-02"), b.toolchain)
	for _, s := range subjects {
		fmt.Fprintf(&text, "| `%s` | `%s` |\n", s.Name, s.Digest["sha256"])
	}
	fmt.Fprintf(&text, "\n[releasing.md](%s) says how to verify this, and how to build it again.\n", buildType)
	return os.WriteFile(filepath.Join(b.dir, notesFile), []byte(text.String()), 0o644)
}

// writeProvenance writes an in-toto statement with SLSA provenance (https://slsa.dev/spec/v1.0/provenance). It has
// nothing that only this run knows.
func (b builder) writeProvenance(subjects []*intoto.ResourceDescriptor) error {
	said := map[string]any{"version": b.version, "commit": b.commit}
	if b.some != "" {
		said[toolPlatforms] = b.some
	}
	parameters, err := structpb.NewStruct(said)
	if err != nil {
		return err
	}
	predicate := &slsa.Provenance{
		BuildDefinition: &slsa.BuildDefinition{
			BuildType: buildType, ExternalParameters: parameters,
			ResolvedDependencies: []*intoto.ResourceDescriptor{
				{Uri: "git+" + home + "@" + b.commit, Digest: map[string]string{"gitCommit": b.commit}},
				{Name: goToolchain, Uri: "pkg:golang/toolchain@" + b.toolchain,
					Annotations: &structpb.Struct{Fields: map[string]*structpb.Value{
						"version": structpb.NewStringValue(b.toolchain)}}},
			},
		},
		RunDetails: &slsa.RunDetails{Builder: &slsa.Builder{Id: home + "/tree/main/scripts/release"}},
	}
	if err := predicate.Validate(); err != nil {
		return err
	}
	stated, err := toStruct(predicate)
	if err != nil {
		return err
	}
	statement := &intoto.Statement{Type: intoto.StatementTypeUri, Subject: subjects,
		PredicateType: "https://slsa.dev/provenance/v1", Predicate: stated}
	if err := statement.Validate(); err != nil {
		return err
	}
	raw, err := protojson.Marshal(statement)
	if err != nil {
		return err
	}
	var data bytes.Buffer // protojson varies its white space on purpose
	if err := json.Compact(&data, raw); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, provenanceFile), append(data.Bytes(), '\n'), 0o644)
}

// toStruct converts a message into the form of an in-toto predicate.
func toStruct(m proto.Message) (*structpb.Struct, error) {
	raw, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	s := &structpb.Struct{}
	return s, protojson.Unmarshal(raw, s)
}

// goToolchain is the name of the compiler among the dependencies. toolPlatforms is the name of the parameter with a
// trial's platforms.
const (
	goToolchain   = "go"
	toolPlatforms = "toolPlatforms"
)

// Valid forms of values that are passed to git and go. They come from a file that may not be signed.
var (
	commitForm    = regexp.MustCompile(`^[0-9a-f]{40}$`)
	toolchainForm = regexp.MustCompile(`^go1\.\d+(\.\d+|rc\d+)?$`)
)

// origin is the content of a provenance file.
type origin struct {
	version, commit, toolchain string
	tools                      string            // platforms of the tool; empty if it is for all
	artifacts                  map[string]string // digests of the artifacts for the registry, by name
}

// readProvenance reads what writeProvenance wrote.
func readProvenance(dir string) (o origin, err error) {
	path := filepath.Join(dir, provenanceFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		return o, err
	}
	statement, predicate := &intoto.Statement{}, &slsa.Provenance{}
	if err = protojson.Unmarshal(raw, statement); err == nil {
		var said []byte
		if said, err = protojson.Marshal(statement.Predicate); err == nil {
			err = protojson.Unmarshal(said, predicate)
		}
	}
	if err != nil {
		return o, notWellf("%s: %w", path, err)
	}
	parameters := predicate.GetBuildDefinition().GetExternalParameters().GetFields()
	o.version, o.commit = parameters["version"].GetStringValue(), parameters["commit"].GetStringValue()
	o.tools = parameters[toolPlatforms].GetStringValue()
	for _, d := range predicate.GetBuildDefinition().GetResolvedDependencies() {
		if d.GetName() == goToolchain {
			o.toolchain = d.GetAnnotations().GetFields()["version"].GetStringValue()
		}
	}
	o.artifacts = map[string]string{}
	for _, s := range statement.GetSubject() {
		if name, tag, is := strings.Cut(s.GetName(), ":"); is && tag == o.version {
			o.artifacts[name] = "sha256:" + s.GetDigest()["sha256"]
		}
	}
	if o.version == "" || !commitForm.MatchString(o.commit) || !toolchainForm.MatchString(o.toolchain) ||
		len(o.artifacts) == 0 {
		return o, notWellf("%s does not say what the release is made from", path)
	}
	return o, nil
}
