package record

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// ids returns the container ID and interface of each record, for comparison.
func ids(records []Record) []string {
	names := []string{}
	for _, r := range records {
		names = append(names, r.Network+":"+r.ContainerID+":"+r.IfName)
	}
	return names
}

func TestListIsSortedAndIgnoresJunk(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	if records, errs := s.List(); len(records) != 0 || len(errs) != 0 {
		t.Errorf("no directory: %v, %v", records, errs)
	}
	put(t, s, of("net", "c", "eth0"), of("other", "a", "net1"), of("net", "a", "eth0"), of("net", "b", "eth0"))
	for _, junk := range []string{".tmp-123", ".tmp-4.json", "README", "a-eth0.json~", "a-eth0.json.bak", ".hidden.json"} {
		drop(t, s, junk, "{")
	}
	before := fileNames(t, s)
	records, errs := s.List()
	want := []string{"net:a:eth0", "other:a:net1", "net:b:eth0", "net:c:eth0"}
	if !slices.Equal(ids(records), want) || len(errs) != 0 {
		t.Errorf("listed %q, %v, want %q", ids(records), errs, want)
	}
	if !slices.Equal(fileNames(t, s), before) {
		t.Errorf("listing removed something: %q, before %q", fileNames(t, s), before)
	}
	if r, err := s.Load("b-eth0.json"); err != nil || r.ContainerID != "b" {
		t.Errorf("loading one: %+v, %v", r, err)
	}
}

func TestGC(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	none := func(string, string) bool { return false }
	if removed, err := s.GC("net", none); len(removed) != 0 || err != nil {
		t.Errorf("no directory: %v, %v", removed, err)
	}
	put(t, s, of("net", "live", "eth0"), of("net", "live", "net1"), of("net", "dead", "eth0"), of("net", "gone", "eth0"),
		of("other", "dead", "net1"))
	valid := func(id, ifname string) bool { return id == "live" && ifname == "eth0" }
	removed, err := s.GC("net", valid)
	if want := []string{"net:dead:eth0", "net:gone:eth0", "net:live:net1"}; err != nil ||
		!slices.Equal(ids(removed), want) {
		t.Errorf("removed %q, %v, want %q", ids(removed), err, want)
	}
	if want := []string{"dead-net1.json", "live-eth0.json"}; !slices.Equal(fileNames(t, s), want) {
		t.Errorf("left %q, want %q", fileNames(t, s), want)
	}
	if removed, err := s.GC("net", valid); len(removed) != 0 || err != nil {
		t.Errorf("again: %v, %v", removed, err)
	}
}

// GC keeps and reports what it cannot read, because it may be another network's, and continues with the rest.
func TestGCCarriesOn(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	put(t, s, of("net", "z", "eth0"))
	drop(t, s, "a-eth0.json", "{")
	drop(t, s, "b-eth0.json", string(fixture(t, "v2-same-types.json")))
	drop(t, s, "notes.txt", "foreign")
	removed, err := s.GC("net", func(string, string) bool { return false })
	if !slices.Equal(ids(removed), []string{"net:z:eth0"}) {
		t.Errorf("removed %q", ids(removed))
	}
	if !IsVersion(err) || !strings.Contains(err.Error(), "a-eth0.json") || !strings.Contains(err.Error(), "b-eth0.json") {
		t.Errorf("error: %v", err)
	}
	if want := []string{"a-eth0.json", "b-eth0.json", "notes.txt"}; !slices.Equal(fileNames(t, s), want) {
		t.Errorf("left %q, want %q", fileNames(t, s), want)
	}
}

func TestGCRemovesStaleTemporaryFiles(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	for name, age := range map[string]time.Duration{
		".tmp-old": 6 * time.Minute, ".tmp-young": 4 * time.Minute, ".other": 48 * time.Hour, "old.txt": 48 * time.Hour,
	} {
		drop(t, s, name, "")
		then := time.Now().Add(-age)
		if err := os.Chtimes(s.Pods()+"/"+name, then, then); err != nil {
			t.Fatal(err)
		}
	}
	if removed, err := s.GC("net", nil); len(removed) != 0 || err != nil { // valid is not called
		t.Errorf("%v, %v", removed, err)
	}
	if want := []string{".other", ".tmp-young", "old.txt"}; !slices.Equal(fileNames(t, s), want) {
		t.Errorf("left %q, want %q", fileNames(t, s), want)
	}
}
