package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// program is a program of a release for one platform.
type program struct {
	path, platform string
	sum            string // SHA-256
	made           *debug.BuildInfo
}

// readProgram reads the build information that Go's linker has written into a program.
func readProgram(path, platform string, data []byte) (program, error) {
	made, err := buildinfo.Read(bytes.NewReader(data))
	if err != nil {
		return program{}, fmt.Errorf("%s says not what it was made from: %w", path, err)
	}
	sum := sha256.Sum256(data)
	return program{filepath.ToSlash(path), platform, hex.EncodeToString(sum[:]), made}, nil
}

// artifact is what an SBOM describes.
type artifact struct {
	name    string
	file    string // of the release; empty if it is no single file
	purpose string // one of SPDX's PrimaryPackagePurpose
	url     string // package URL; empty if there is none
}

// unknown is SPDX's word for a value that nobody asserts.
const unknown = "NOASSERTION"

// writeSBOM writes the content of an artifact as an SPDX document.
func (b builder) writeSBOM(a artifact, programs []program) error {
	doc := b.document(a)
	top := &spdx.Package{
		PackageName: a.name, PackageSPDXIdentifier: "artifact", PackageVersion: b.version, PackageFileName: a.file,
		PackageDownloadLocation: home + "/releases/tag/v" + b.version, PrimaryPackagePurpose: a.purpose,
		PackageLicenseConcluded: "Apache-2.0", PackageLicenseDeclared: "Apache-2.0", PackageCopyrightText: unknown,
	}
	if a.file != "" {
		sum, err := sumOf(filepath.Join(b.dir, a.file))
		if err != nil {
			return err
		}
		top.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: sum}}
	}
	if a.url != "" {
		top.PackageExternalReferences = located(a.url)
	}
	doc.Packages = append(doc.Packages, top)
	doc.relate("DOCUMENT", common.TypeRelationshipDescribe, "artifact")
	for _, p := range programs {
		id := identifier("program", p.path)
		doc.Packages = append(doc.Packages, &spdx.Package{
			PackageName: p.path, PackageSPDXIdentifier: id, PackageVersion: b.version, PackageDownloadLocation: unknown,
			PackageChecksums:      []common.Checksum{{Algorithm: common.SHA256, Value: p.sum}},
			PrimaryPackagePurpose: "APPLICATION", PackageSourceInfo: p.made.Path + " for " + p.platform,
			PackageLicenseConcluded: unknown, PackageLicenseDeclared: "Apache-2.0", PackageCopyrightText: unknown,
		})
		doc.relate("artifact", common.TypeRelationshipContains, id)
		doc.relate(id, common.TypeRelationshipDependsOn, doc.module("stdlib", strings.TrimPrefix(p.made.GoVersion, "go"), ""))
		for _, m := range p.made.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			doc.relate(id, common.TypeRelationshipDependsOn, doc.module(m.Path, m.Version, m.Sum))
		}
	}
	data, err := json.MarshalIndent(doc.Document, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, b.name(a.name, ".spdx.json")), append(data, '\n'), 0o644)
}

// document is an SPDX document that is being written.
type document struct {
	*spdx.Document
	modules map[common.ElementID]bool
}

// document returns a new document. Its namespace is unique, because it has the commit.
func (b builder) document(a artifact) document {
	return document{&spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName:      b.name(a.name, ""),
		DocumentNamespace: fmt.Sprintf("%s/sbom/%s/%s/%s", home, b.version, b.commit, a.name),
		CreationInfo: &spdx.CreationInfo{Created: b.created.Format(time.RFC3339), Creators: []common.Creator{
			{CreatorType: "Tool", Creator: "istio-pod-network-release-" + b.version}}},
	}, map[common.ElementID]bool{}}
}

func (d document) relate(from common.ElementID, how string, to common.ElementID) {
	d.Relationships = append(d.Relationships, &spdx.Relationship{
		RefA: common.DocElementID{ElementRefID: from}, Relationship: how, RefB: common.DocElementID{ElementRefID: to},
	})
}

// module adds a Go module once, and returns its identifier.
func (d document) module(path, version, sum string) common.ElementID {
	id := identifier("module", path+"@"+version)
	if d.modules[id] {
		return id
	}
	d.modules[id] = true
	m := &spdx.Package{
		PackageName: path, PackageSPDXIdentifier: id, PackageVersion: version, PrimaryPackagePurpose: "LIBRARY",
		PackageDownloadLocation: unknown, PackageLicenseConcluded: unknown, PackageLicenseDeclared: unknown,
		PackageCopyrightText: unknown, PackageExternalReferences: located("pkg:golang/" + path + "@" + version),
	}
	if sum != "" {
		m.PackageSourceInfo = "go.sum: " + sum
	}
	d.Packages = append(d.Packages, m)
	return id
}

// located returns an external reference with a package URL.
func located(url string) []*spdx.PackageExternalReference {
	return []*spdx.PackageExternalReference{{Category: common.CategoryPackageManager,
		RefType: common.TypePackageManagerPURL, Locator: url}}
}

// identifier returns a name with only the characters that SPDX allows.
func identifier(kind, name string) common.ElementID {
	plain := strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '.') {
			return r
		}
		return '-'
	}, name)
	return common.ElementID(kind + "-" + plain)
}
