package patrol

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// The addresses of a network are read in every CNI version.
func TestSandboxAddresses(t *testing.T) {
	cached := cachedBy("1.3", "uid", "c", "/run/netns/cni-1", "10.0.0.1")
	i := strings.Index(cached, `"result"`)
	first := cached[:i] + `"result": {"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.1/24"}, "ip6": {"ip": "fd00::1/64"}}}`
	for text, want := range map[string]string{cached: "[10.0.0.1]", first: "[10.0.0.1 fd00::1]"} {
		sb, err := parse([]byte(text))
		if got := fmt.Sprint(sb.addresses); err != nil || got != want {
			t.Errorf("%v, %v, want %s: %s", got, err, want, text)
		}
	}
}

// A network namespace must be in the agent's configured directory, whether the runtime and the configuration call it by
// /run or by /var/run: on Talos and in k3d these differ. No other path is opened.
func TestNetworkNamespaceIsWhereTheAgentWasTold(t *testing.T) {
	for _, c := range []struct{ told, named, want string }{
		{"/var/run/none", "/var/run/none/cni-1", "/var/run/none/cni-1"}, // not in /run
		{"/var/run/none", "/run/none/cni-1", "/var/run/none/cni-1"},
		{"/run/none", "/var/run/none/cni-1", "/run/none/cni-1"},
		{"/run/none/", "/run/none/cni-1", "/run/none/cni-1"},
		{"/run/none", "/var/run/none/../none/cni-1", "/run/none/cni-1"},
		{"/run/none", "/var/run/docker/none/cni-1", ""},
		{"/run/none", "/proc/1/ns/net", ""}, // as with cri-dockerd
		{"/var/run/none", "", ""},
	} {
		_, err := (&sandboxes{netns: c.told}).path(sandbox{netns: c.named})
		var absent *fs.PathError // none of them exists
		if !errors.As(err, &absent) {
			absent = &fs.PathError{}
		}
		if absent.Path != c.want {
			t.Errorf("told of %s, %s is looked for as %q, want %q: %v", c.told, c.named, absent.Path, c.want, err)
		}
	}
}

// FuzzSandbox parses files of libcni's cache: with any contents, no ADD is run for a network namespace that is not the
// runtime's, and the plugin's environment has no additional lines.
func FuzzSandbox(f *testing.F) {
	f.Add(cachedBy("1.3", "uid", "c", "/var/run/netns/cni-1", "10.0.0.1"))
	f.Add(cachedBy("1.1", "uid", "c", "/run/netns/../../proc/1/ns/net", "10.0.0.1"))
	f.Add(strings.Replace(cachedBy("1.3", "uid", "c", "/run/netns/cni-1", "10.0.0.1"), `"eth0"`, `"eth0\u0000"`, 1))
	f.Add("{}")
	s := &sandboxes{dir: f.TempDir(), netns: "/run/netns"}
	f.Fuzz(func(t *testing.T, data string) {
		sb, err := parse([]byte(data))
		if err != nil {
			return
		}
		if sb.containerID == "" || sb.ifName == "" || sb.network == "" || sb.pod == "" {
			t.Errorf("taken: %+v", sb)
		}
		if path, err := s.path(sb); err == nil && filepath.Dir(path) != "/run/netns" {
			t.Errorf("an ADD on %q", path)
		}
		for _, value := range []string{sb.containerID, sb.ifName, sb.args} {
			if strings.ContainsRune(value, 0) {
				t.Errorf("%q in the environment", value)
			}
		}
	})
}
