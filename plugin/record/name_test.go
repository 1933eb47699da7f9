package record

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestFileName(t *testing.T) {
	long := strings.Repeat("a", maxName-len("-eth0.json"))
	for _, test := range []struct{ id, ifname, want, err string }{
		{"a", "eth0", "a-eth0.json", ""},
		{"0_.-", "net1", "0_.--net1.json", ""},
		{"A9", "123456789012345", "A9-123456789012345.json", ""},
		{"a", "...", "a-....json", ""},
		{"a", "é", "a-é.json", ""},
		{long, "eth0", long + "-eth0.json", ""},
		{long + "a", "eth0", "", "a name of 256 bytes"},
		{"", "eth0", "", `container ID: invalid value ""; valid: letters`},
		{".a", "eth0", "", "; valid: letters, digits"},
		{"-a", "eth0", "", "; valid: letters, digits"},
		{"..", "eth0", "", "; valid: letters, digits"},
		{"a/b", "eth0", "", "; valid: letters, digits"},
		{"a\x00", "eth0", "", "; valid: letters, digits"},
		{"aé", "eth0", "", "; valid: letters, digits"},
		{"a b", "eth0", "", "; valid: letters, digits"},
		{"a", "", "", "not a name"},
		{"a", ".", "", "not a name"},
		{"a", "..", "", `interface name: invalid value "..": not a name; valid: at most 15 bytes`},
		{"a", "1234567890123456", "", "; valid: at most 15 bytes"},
		{"a", "x/y", "", "without /"},
		{"a", "eth0:1", "", "without /"},
		{"a", "eth 0", "", "without /"},
		{"a", "eth\u20280", "", "without /"},
		{"a", "eth\x000", "", "without /"},
		{"a", "eth\xff", "", "bytes of UTF-8"},
	} {
		got, err := fileName(test.id, test.ifname)
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("fileName(%q, %q) = %q, %v, want %q, %s", test.id, test.ifname, got, err, test.want, test.err)
		}
	}
}

func TestEveryMethodChecksTheName(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	for what, err := range map[string]error{
		"Put":    s.Put(of("net", "../a", "eth0")),
		"Get":    second(s.Get("../a", "eth0")),
		"Delete": s.Delete("a", "../../etc/passwd"),
		"Load":   second(s.Load("../pods/a-eth0.json")),
		"Load .": second(s.Load(".tmp-1.json")),
		"Load x": second(s.Load("a-eth0")),
	} {
		if err == nil {
			t.Errorf("%s accepts a name that is none", what)
		}
	}
	if names := fileNames(t, s); len(names) != 0 {
		t.Errorf("left behind: %q", names)
	}
}

func second(_ Record, err error) error { return err }

// Two attachments with the same file name never read, replace or remove each other's record.
func TestAmbiguousNames(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	mine, other := of("net", "a-b", "c"), of("net", "a", "b-c")
	put(t, s, mine)
	if _, err := s.Get(other.ContainerID, other.IfName); !IsMismatch(err) ||
		!strings.Contains(err.Error(), `container "a-b" interface "c"`) {
		t.Errorf("getting the other: %v", err)
	}
	if err := s.Put(other); !IsMismatch(err) {
		t.Errorf("putting the other: %v", err)
	}
	if err := s.Delete(other.ContainerID, other.IfName); err != nil {
		t.Errorf("deleting the other: %v", err)
	}
	if r, err := s.Get(mine.ContainerID, mine.IfName); err != nil || r.ContainerID != "a-b" {
		t.Errorf("mine is now %+v, %v", r, err)
	}
	put(t, s, mine) // an attachment may replace its own record
	if err := s.Delete(mine.ContainerID, mine.IfName); err != nil || len(fileNames(t, s)) != 0 {
		t.Errorf("deleting mine: %v, left %q", err, fileNames(t, s))
	}
}

func FuzzFileName(f *testing.F) {
	for _, seed := range [][2]string{{"a", "eth0"}, {"../x", "eth0"}, {"a-b", "c"}, {"a", "b/../../c"}, {"", ""}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, id, ifname string) {
		name, err := fileName(id, ifname)
		if err != nil {
			return
		}
		path := filepath.Join("/state/pods", name)
		if filepath.Dir(path) != "/state/pods" || filepath.Base(path) != name || len(name) > maxName || !IsFile(name) {
			t.Fatalf("%q and %q give %q", id, ifname, name)
		}
	})
}
