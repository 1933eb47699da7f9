package install

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/install/installtest"
	"github.com/istio-pod-network/controller/internal/entry"
)

// The first configuration by name is used. One that is invalid, or that has only our entry, is not the primary.
func TestActive(t *testing.T) {
	n := newNode(t, "20-b.conflist", list, "10-torn.conflist", `{"name": "x", "plug`, "05-ours.conf",
		`{"name":"o","type":"istio-pod-network"}`, "00-empty.conf", "", ".hidden", "x", "readme.txt", "y", "30-c.conflist",
		list)
	if err := os.Mkdir(filepath.Join(n.ConfDir, "01-dir.conflist"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.install()
	installtest.Chained(t, filepath.Join(n.ConfDir, "20-b.conflist"))
	if s := n.status(); !s.Ready || len(s.Others) != 4 || n.read("30-c.conflist") != list {
		t.Errorf("%+v", s)
	}
	n.write("15-a.conflist", list)
	if s := n.status(); s.Ready || s.Chained != NotChained {
		t.Errorf("bypassed, and still %+v", s)
	}
	n.install()
	installtest.Chained(t, filepath.Join(n.ConfDir, "15-a.conflist"))
	n.uninstall()
	for _, name := range []string{"15-a.conflist", "20-b.conflist", "30-c.conflist"} {
		if n.read(name) != list {
			t.Errorf("%s is not what it was", name)
		}
	}
}

// A primary that writes its .conf again after a list was made from it is converted again, and gets its last version
// back.
func TestConfRewritten(t *testing.T) {
	n := newNode(t, "10-one.conf", single)
	for _, name := range []string{"ptp0", "ptp1", "ptp2"} {
		n.program(name)
	}
	for i := range 3 {
		contents := strings.Replace(single, "ptp", fmt.Sprintf("ptp%d", i), 1)
		n.write("10-one.conf", contents)
		n.install()
		got := installtest.Chained(t, n.status().Active)
		if got.Plugins[0].Network.Type != fmt.Sprintf("ptp%d", i) || got.Name != "one" || got.CNIVersion != "0.4.0" {
			t.Errorf("%+v", got)
		}
	}
	n.write("10-one.conf", single)
	n.uninstall()
	if n.read("10-one.conf") != single || strings.Count(n.tree(), "\n") != 7 {
		t.Error(n.tree())
	}
}

// A list of others beside a .conf is not overwritten, and a plugin that was added to our list stays.
func TestConfAndOthers(t *testing.T) {
	n := newNode(t, "10-one.conf", single, "10-one.conflist", list)
	before := n.tree()
	n.install()
	if s := n.status(); !s.Ready || filepath.Base(s.Active) != "10-one.conf.conflist" ||
		n.read("10-one.conflist") != list {
		t.Errorf("%+v", s)
	}
	n.uninstall()
	if n.tree() != before {
		t.Error(n.tree())
	}
	n.install()
	foreign := strings.Replace(n.read("10-one.conf.conflist"), `"type": "istio-pod-network"`,
		`"type":"tuning"}, {"type": "istio-pod-network"`, 1)
	n.write("10-one.conf.conflist", foreign)
	n.install()
	n.uninstall()
	if got := n.read("10-one.conf.conflist"); !strings.Contains(got, "tuning") || strings.Contains(got, entry.Type) {
		t.Error(got)
	}
}

// Files whose exact name means that the network is ready are never changed.
func TestReadinessFiles(t *testing.T) {
	for _, name := range append(readiness, "70-multus.conf") {
		n := newNode(t, name, strings.Replace(single, "ptp", "multus", 1))
		before := n.tree()
		n.Source = ""
		if err := Install(n.Config); !IsReadinessFile(err) || Remedy(err) == "" || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if s := n.status(); s.Ready || n.tree() != before {
			t.Errorf("%+v", s)
		}
	}
}

// Multus reads a delegate, so what the runtime reads does not matter: our entry is spliced into it, also if Multus
// itself is in a list. Without the delegate's name that list is the primary.
func TestDelegate(t *testing.T) {
	for multus, contents := range map[string]string{
		"00-multus.conf":     `{"cniVersion": "0.3.1", "name": "multus", "type": "multus"}`,
		"00-multus.conflist": `{"cniVersion": "1.0.0", "name": "multus", "plugins": [{"type": "multus"}]}`,
	} {
		for primary, want := range map[string]Chaining{"10-net.conflist": Spliced, "": DroppedIn} {
			if primary == "" && !strings.HasSuffix(multus, "list") {
				continue // TestReadinessFiles covers it
			}
			n := newNode(t, "10-net.conflist", list)
			n.program("multus")
			n.write(multus, contents)
			n.Primary, n.DropIn, n.RuntimeVersion = primary, DropInAuto, "containerd://2.1.4"
			n.install()
			if s := n.status(); !s.Ready || s.Chained != want || filepath.Base(s.Active) != cmp.Or(primary, multus) {
				t.Errorf("%s, primary %q: %+v", multus, primary, s)
			}
			if n.read(multus) != contents {
				t.Errorf("%s is changed", multus)
			}
		}
	}
}

// If no network has the configured name, the error lists each file with its network's name.
func TestNoneOfThatName(t *testing.T) {
	n := newNode(t, "10-net.conflist", list, "20-broken.conf", "{")
	n.Primary = "missing"
	fails(t, Install(n.Config), `none has the name "missing"`, `10-net.conflist: its network is "net"`, "20-broken.conf: ")
	if err := Install(n.Config); strings.Contains(err.Error(), "%!") {
		t.Error(err)
	}
}

// Without a primary the installer waits and says so; it creates none.
func TestNoPrimary(t *testing.T) {
	n := newNode(t)
	if err := Install(n.Config); !IsNoPrimary(err) {
		t.Error(err)
	}
	s := n.status()
	if s.Ready || !s.Binary.Current || len(s.Missing) != 1 ||
		!strings.Contains(s.Missing[0], "waiting: no primary network") {
		t.Errorf("%+v", s)
	}
	if entries, _ := os.ReadDir(n.ConfDir); len(entries) != 0 {
		t.Error(n.tree())
	}
	if err := os.Remove(n.ConfDir); err != nil {
		t.Fatal(err)
	}
	if err := Install(n.Config); !IsNoPrimary(err) {
		t.Error(err)
	}
	n.uninstall()
}
