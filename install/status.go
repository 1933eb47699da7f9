package install

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Chaining says how our entry is chained into the network.
type Chaining string

// Values of Chaining.
const (
	NotChained Chaining = "no"
	Spliced    Chaining = "spliced" // in the primary's own file
	DroppedIn  Chaining = "drop-in" // in the network's drop-in directory
	OwnFile    Chaining = "own file"
)

// Status is the state of an installation on a node.
type Status struct {
	Ready      bool     `json:"ready"` // nothing is missing
	Mode       Mode     `json:"mode"`
	Binary     Binary   `json:"binary"`
	ConfDir    string   `json:"confDir"`
	Active     string   `json:"active,omitempty"`  // path of the primary's file, or of our own file in the other modes
	Network    string   `json:"network,omitempty"` // name of the active network
	Plugins    []string `json:"plugins,omitempty"` // types of its other plugins, in order
	Chained    Chaining `json:"chained"`
	Duplicates int      `json:"duplicates"`         // surplus entries of ours
	NotFound   []string `json:"notFound,omitempty"` // plugins of that network that the runtime's directories lack
	Others     []Other  `json:"others,omitempty"`   // configurations that are not active
	Missing    []string `json:"missing,omitempty"`  // what is not as it should be, in words
}

// Other is a configuration that the runtime does not use.
type Other struct {
	Path    string `json:"path"`
	Ours    bool   `json:"ours"` // it has our entry
	Problem string `json:"problem,omitempty"`
}

// LookAt returns the state of a node and changes nothing. The error is about an invalid Config; what cannot be read is
// in Missing. Without an Entry, any entry of ours is right, spliced or dropped in: the caller need not know how the
// plugin was installed.
func LookAt(c Config) (Status, error) { return lookAt(c, new(memo)) }

// lookAt does the work of LookAt, with a memo.
func lookAt(c Config, m *memo) (Status, error) {
	i, err := newInstaller(c, m)
	if err != nil {
		return Status{}, err
	}
	if c.Entry.IsZero() {
		i.ours = nil
	}
	s := Status{Mode: i.Mode, ConfDir: i.ConfDir, Chained: NotChained}
	if s.Binary, err = i.lookAtBinary(); err != nil {
		s.miss("%v", err)
	}
	switch {
	case !s.Binary.Installed:
		s.miss("the plugin is not installed as %s", s.Binary.Path)
	case !s.Binary.Current:
		s.miss("%s is not the plugin to install", s.Binary.Path)
	}
	i.network().lookAt(&s)
	s.Ready = len(s.Missing) == 0
	return s, nil
}

// missFor adds an error and its remedy to Missing.
func (s *Status) missFor(err error) { s.miss("%s", strings.ReplaceAll(Explain(err), "\n ", ";")) }

func (s *Status) miss(format string, args ...any) {
	s.Missing = append(s.Missing, fmt.Sprintf(format, args...))
}

// WriteTable prints the state as a table.
func (s Status) WriteTable(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(key string, value any) { fmt.Fprintf(out, "%s\t%v\n", key, value) }
	row("ready", yes(s.Ready))
	row("mode", s.Mode)
	row("binary", s.Binary.Path+": "+s.Binary.words())
	row("directory", s.ConfDir)
	row("active", orNone(s.Active))
	row("network", orNone(s.Network))
	if len(s.Plugins) > 0 {
		row("plugins", strings.Join(s.Plugins, ", "))
	}
	row("chained", s.Chained)
	row("duplicates", s.Duplicates)
	if len(s.NotFound) > 0 {
		row("not found", strings.Join(s.NotFound, ", "))
	}
	for _, o := range s.Others {
		parts := []string{o.Path, map[bool]string{true: "has our entry"}[o.Ours], o.Problem}
		row("not used", strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": "))
	}
	for _, m := range s.Missing {
		row("missing", m)
	}
	return out.Flush()
}

func (b Binary) words() string {
	switch {
	case !b.Installed:
		return "not installed"
	case b.Want == "":
		return "installed, sha256 " + b.SHA256[:min(12, len(b.SHA256))]
	case b.Current:
		return "installed and current, sha256 " + b.SHA256[:min(12, len(b.SHA256))]
	}
	return fmt.Sprintf("installed but another, sha256 %.12s instead of %.12s", b.SHA256, b.Want)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
