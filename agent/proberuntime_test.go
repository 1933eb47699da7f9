package agent

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/internal/await"
)

// probe reads the directories from the runtime's own configuration, in each version of its format, with its imports.
// What the configuration does not set has the runtime's default.
func TestProbeRuntimes(t *testing.T) {
	for name, test := range map[string]struct {
		files   map[string]string
		want    inspect.Runtime // without Files; last is the last of them
		last    string
		problem string
		none    bool
	}{
		"containerd 3": {files: map[string]string{"containerd.toml": "version = 3\n" +
			"[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/a', 'OURS/bin']\nconf_dir = 'OURS/link'\n"},
			want: inspect.Runtime{Name: "containerd", ConfDir: "OURS/link", BinDirs: []string{"/a", "OURS/bin"},
				SameConfDir: true, HasBinDir: true}, last: "containerd.toml"},
		"containerd 2": {files: map[string]string{"containerd.toml": "version = 2\n" +
			"[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = \"OURS/net.d/\"\n"},
			want: inspect.Runtime{Name: "containerd", ConfDir: "OURS/net.d/", BinDirs: []string{"/usr/lib/cni"},
				SameConfDir: true}, last: "containerd.toml"},
		"containerd 1": {files: map[string]string{"containerd.toml": "[plugins.cri.cni]\nconf_dir = \"/elsewhere\"\n"},
			want: inspect.Runtime{Name: "containerd", ConfDir: "/elsewhere", BinDirs: []string{"/opt/cni/bin"}},
			last: "containerd.toml"},
		"imports": {files: map[string]string{
			"containerd.toml": "imports = ['conf.d/*.toml']\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nconf_dir = '/a'\n",
			"conf.d/1.toml":   "[plugins.'io.containerd.cri.v1.runtime'.cni]\nconf_dir = 'OURS/net.d'\n",
			"conf.d/2.toml":   "[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'native'\n"},
			want: inspect.Runtime{Name: "containerd", ConfDir: "OURS/net.d", BinDirs: []string{"/opt/cni/bin"},
				SameConfDir: true}, last: "conf.d/2.toml"},
		"defaults": {files: map[string]string{"containerd.toml": ""},
			want: inspect.Runtime{Name: "containerd", ConfDir: "/etc/cni/net.d", BinDirs: []string{"/opt/cni/bin"}},
			last: "containerd.toml"},
		"Docker's": {files: map[string]string{"containerd.toml": "disabled_plugins = ['cri']\n"}, none: true},
		"torn": {files: map[string]string{"containerd.toml": "version = 3\npassword = secret\n"}, last: "containerd.toml",
			want: inspect.Runtime{Name: "containerd"}, problem: "containerd.toml: line 2 is no TOML"},
		"torn import": {files: map[string]string{"containerd.toml": "imports = ['x.toml']\n", "x.toml": "["}, last: "x.toml",
			want: inspect.Runtime{Name: "containerd"}, problem: "x.toml: line 1 is no TOML"},
		"CRI-O": {files: map[string]string{
			"crio.conf":     "[crio.network]\nnetwork_dir = '/a'\nplugin_dirs = ['/usr/libexec/cni', 'OURS/bin']\n",
			"crio.d/10-net": "[crio.network]\nnetwork_dir = 'OURS/net.d'\n"}, last: "crio.d/10-net",
			want: inspect.Runtime{Name: "cri-o", ConfDir: "OURS/net.d", BinDirs: []string{"/usr/libexec/cni", "OURS/bin"},
				SameConfDir: true, HasBinDir: true}},
		"torn CRI-O": {files: map[string]string{"crio.conf": "=", "crio.d/10-net": ""}, last: "crio.conf",
			want: inspect.Runtime{Name: "cri-o"}, problem: "crio.conf: line 1 is no TOML"},
		"none": {none: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			in := func(text string) string { return strings.ReplaceAll(text, "OURS", dir) }
			for _, made := range []string{"net.d", "bin", "conf.d", "crio.d"} {
				await.Must(t, os.Mkdir(filepath.Join(dir, made), 0o755))
			}
			await.Must(t, os.Symlink("net.d", filepath.Join(dir, "link")))
			for file, text := range test.files {
				await.Must(t, os.WriteFile(filepath.Join(dir, file), []byte(in(text)), 0o600))
			}
			p := prober{confDirs: []string{in("OURS/net.d"), "/elsewhere"}, binDirs: []string{in("OURS/bin"), "/usr/lib/cni"},
				containerd: []string{in("OURS/containerd.toml")}, crio: []string{in("OURS/crio.conf"), in("OURS/crio.d/*")}}
			all := p.runtimes()
			if test.none {
				if len(all) > 0 {
					t.Errorf("%+v", all)
				}
				return
			}
			if len(all) != 1 || all[0].Files[len(all[0].Files)-1] != filepath.Join(dir, test.last) ||
				!strings.Contains(all[0].Problem, test.problem) || (all[0].Problem == "") != (test.problem == "") ||
				strings.Contains(all[0].Problem, "secret") {
				t.Fatalf("%+v", all)
			}
			got, want := all[0], test.want
			got.Files, got.Problem, want.ConfDir = nil, "", in(want.ConfDir)
			if test.problem != "" {
				got.ConfDir, got.BinDirs = "", nil
			}
			for i, path := range want.BinDirs {
				want.BinDirs[i] = in(path)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}
