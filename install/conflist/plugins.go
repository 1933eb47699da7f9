package conflist

import (
	"encoding/json"
	"slices"
)

// Versions returns the CNI versions in which a runtime may call the network's plugins: its cniVersion, by default
// 0.1.0, and its cniVersions, of which libcni uses the newest that it supports (CNI SPEC.md, "Network configuration
// format", https://www.cni.dev/docs/spec/).
func (c Conf) Versions() []string {
	version := "0.1.0"
	if m, ok := last(c.members, "cniVersion"); ok && text(m.value.of(c.data)) != "" {
		version = text(m.value.of(c.data))
	}
	versions := []string{version}
	if m, ok := last(c.members, "cniVersions"); ok && !c.single {
		var more []string
		_ = json.Unmarshal(m.value.of(c.data), &more) // libcni rejects the file if it is anything else
		versions = append(versions, more...)
	}
	return unique(versions)
}

// Types returns the names of the programs that the network needs beside ours: the type of each plugin, and that of its
// IPAM plugin.
func (c Conf) Types() []string {
	var types []string
	for i, p := range c.plugins {
		if slices.Contains(c.ours, i) {
			continue
		}
		var plugin struct {
			Type string          `json:"type"`
			IPAM json.RawMessage `json:"ipam"`
		}
		_ = json.Unmarshal(p.of(c.data), &plugin)
		var ipam struct {
			Type string `json:"type"`
		}
		_ = json.Unmarshal(plugin.IPAM, &ipam) // ipam may be missing or invalid
		for _, name := range []string{plugin.Type, ipam.Type} {
			if name != "" {
				types = append(types, name)
			}
		}
	}
	return unique(types)
}

// unique returns the texts in order, without duplicates.
func unique(texts []string) []string {
	var all []string
	for _, t := range texts {
		if !slices.Contains(all, t) {
			all = append(all, t)
		}
	}
	return all
}
