package install

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/istio-pod-network/controller/internal/entry"
)

// Chaining is how our entry is in the network.
type Chaining string

// The ways.
const (
	NotChained Chaining = "no"
	Spliced    Chaining = "spliced" // in the primary's own file
	DroppedIn  Chaining = "drop-in" // in the network's drop-in directory
	OwnFile    Chaining = "own file"
)

// Status is what is installed on a node.
type Status struct {
	Ready      bool     `json:"ready"` // nothing is missing
	Mode       Mode     `json:"mode"`
	Binary     Binary   `json:"binary"`
	ConfDir    string   `json:"confDir"`
	Active     string   `json:"active,omitempty"`  // path of the primary's file, or of our own in the other modes
	Network    string   `json:"network,omitempty"` // its name
	Chained    Chaining `json:"chained"`
	Duplicates int      `json:"duplicates"`        // entries of ours beyond the one
	Others     []Other  `json:"others,omitempty"`  // configurations that are not active
	Missing    []string `json:"missing,omitempty"` // what is not as it should be, in words
}

// Other is a configuration that the runtime does not use.
type Other struct {
	Path    string `json:"path"`
	Ours    bool   `json:"ours"` // our entry is in it
	Problem string `json:"problem,omitempty"`
}

// LookAt returns the state of a node and changes nothing. The error is about a wrong Config; what cannot be read is in
// Missing. Without an Entry, any entry of ours is as it should be, spliced or dropped in: whoever asks what is there
// need not know how it was installed.
func LookAt(c Config) (Status, error) {
	given := len(c.Entry.Text()) > 0
	c, err := c.withDefaults()
	c.anyEntry = !given
	if err != nil {
		return Status{}, err
	}
	s := Status{Mode: c.Mode, ConfDir: c.ConfDir, Chained: NotChained}
	if s.Binary, err = c.lookAtBinary(); err != nil {
		s.miss("%v", err)
	}
	switch {
	case !s.Binary.Installed:
		s.miss("the plugin is not installed as %s", s.Binary.Path)
	case !s.Binary.Current:
		s.miss("%s is not the plugin to install", s.Binary.Path)
	}
	if c.Mode == ModeChain {
		c.lookAtChain(&s)
	} else {
		c.lookAtOwn(&s)
	}
	s.Ready = len(s.Missing) == 0
	return s, nil
}

func (s *Status) miss(format string, args ...any) {
	s.Missing = append(s.Missing, fmt.Sprintf(format, args...))
}

func (c Config) lookAtOwn(s *Status) {
	s.ConfDir, s.Active, s.Network = filepath.Dir(c.own()), c.own(), entry.Type
	data, err := readConf(c.own())
	switch {
	case err != nil:
		s.miss("%v", err)
	case !c.isOurs(data, c.standalone()):
		s.miss("%s is not as it should be", c.own())
	default:
		s.Chained = OwnFile
	}
	if c.hasFormer() {
		if s.Chained == OwnFile {
			s.Duplicates = 1
		}
		s.miss("%s is left of another mode", c.former())
	}
}

// isOurs reports whether a file of ours says what it should.
func (c Config) isOurs(data, want []byte) bool {
	return c.anyEntry && entry.TypeOf(data) == entry.Type || equal(data, want)
}

func (c Config) lookAtChain(s *Status) {
	files, err := look(c.ConfDir)
	if err != nil {
		s.miss("%v", err)
	}
	f, err := active(files)
	for _, other := range files {
		if err == nil && other.name == f.name {
			continue
		}
		o := Other{Path: other.path, Ours: len(other.conf.ours) > 0}
		if other.problem != nil {
			o.Problem = other.problem.Error()
		}
		s.Others = append(s.Others, o)
	}
	if err != nil {
		s.miss("waiting: %v in %s", err, c.ConfDir)
		return
	}
	s.Active, s.Network = f.path, f.conf.name
	dropped := 0
	for _, path := range c.dropIns() {
		if filepath.Base(filepath.Dir(path)) == f.conf.name {
			dropped++
		}
	}
	s.Duplicates = max(0, len(f.conf.ours)+dropped-1)
	s.Chained = c.chaining(f)
	if s.Duplicates > 0 {
		s.miss("our entry is there %d times too often", s.Duplicates)
	}
	switch {
	case s.Chained != NotChained:
	case f.protected():
		s.miss("%s: %v", f.path, errReadiness)
	case len(f.conf.ours)+dropped > 0:
		s.miss("our entry in %s is not as it should be, or not last", f.path)
	default:
		s.miss("%s is without our entry", f.path)
	}
}

func (c Config) chaining(f file) Chaining {
	ours, dropsIn := c.Entry.Text(), c.usesDropIn(f)
	if c.anyEntry {
		ours, dropsIn = nil, dropsIn || len(f.conf.ours) == 0
	}
	if dropsIn && component.MatchString(f.conf.name) {
		data, err := readConf(c.dropInOf(f.conf.name))
		if err == nil && c.isOurs(data, c.Entry.Text()) && len(f.conf.ours) == 0 {
			return DroppedIn
		}
		return NotChained
	}
	if f.chained(ours) {
		return Spliced
	}
	return NotChained
}

// WriteTable prints the state for a person.
func (s Status) WriteTable(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(key string, value any) { fmt.Fprintf(out, "%s\t%v\n", key, value) }
	row("ready", yes(s.Ready))
	row("mode", s.Mode)
	row("binary", s.Binary.Path+": "+s.Binary.words())
	row("directory", s.ConfDir)
	row("active", orNone(s.Active))
	row("network", orNone(s.Network))
	row("chained", s.Chained)
	row("duplicates", s.Duplicates)
	for _, o := range s.Others {
		row("not used", strings.Join(slices.DeleteFunc([]string{o.Path, map[bool]string{true: "has our entry"}[o.Ours], o.Problem},
			func(s string) bool { return s == "" }), ": "))
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
