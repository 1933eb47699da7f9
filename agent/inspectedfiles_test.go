package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/plugin/record"
)

// made writes files: names in dir to contents. If a name ends in ->, it is a symbolic link and the content its target.
func made(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		switch link, isLink := strings.CutSuffix(path, "->"); {
		case err != nil:
		case isLink:
			err = os.Symlink(text, link)
		default:
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The answer lists the files in the directories, with the texts of configurations and records alone, and without
// credentials.
func TestInspectedFiles(t *testing.T) {
	conf, bin, state := t.TempDir(), t.TempDir(), t.TempDir()
	made(t, conf, map[string]string{
		"10-a.conflist":            `{"name": "a", "plugins": [{"type": "x", "token": "s3cr3t", "kubeconfig": "/etc/k"}]}`,
		"a/99-ours.conf":           `{"type": "istio-pod-network"}`,
		"calico-kubeconfig":        "token: s3cr3t",
		"broken.conf":              "token: s3cr3t",
		"big.json":                 `"` + strings.Repeat("x", longestText) + `"`,
		"link.conf->":              "10-a.conflist",
		"dangling.conf->":          "/nowhere",
		"1/2/3/too-deep.conf":      "{}",
		"multus.d/m.kubeconfig":    "token: s3cr3t",
		"10-a.conflist.disabled":   "s3cr3t",
		"whereabouts.d/where.conf": `{"kubernetes": {"password": "s3cr3t"}}`,
	})
	made(t, bin, map[string]string{"istio-pod-network": "s3cr3t", "odd.conf": "{}"})
	made(t, state, map[string]string{"pods/0a-eth0.json": `{"version":1}`})
	a := &agent{options: options{install: install.Config{ConfDir: conf, BinDir: bin, RuntimeBinDirs: []string{"/no/such"}},
		store: record.Store{Dir: state}}}
	answer := a.inspectedFiles()
	if len(answer.Directories) != 4 {
		t.Fatalf("%+v", answer)
	}
	found := map[string]inspect.File{}
	for _, d := range answer.Directories {
		for _, f := range d.Files {
			found[f.Name] = f
			if strings.Contains(f.Text, "s3cr3t") {
				t.Errorf("%+v", f)
			}
		}
	}
	if d := answer.Directories[2]; d.Role != inspect.RolePlugins || !strings.Contains(d.Problem, "no such file") {
		t.Errorf("a directory that is not there: %+v", d)
	}
	for name, want := range map[string]string{
		"10-a.conflist":            `{"name": "a", "plugins": [{"type": "x", "token": "(blanked)", "kubeconfig": "/etc/k"}]}`,
		"link.conf":                `{"name": "a", "plugins": [{"type": "x", "token": "(blanked)", "kubeconfig": "/etc/k"}]}`,
		"a/99-ours.conf":           `{"type": "istio-pod-network"}`,
		"whereabouts.d/where.conf": `{"kubernetes": {"password": "(blanked)"}}`,
		"calico-kubeconfig":        "", "multus.d/m.kubeconfig": "", "10-a.conflist.disabled": "", "broken.conf": "",
		"big.json": "", "dangling.conf": "", "istio-pod-network": "", "odd.conf": "", "pods/0a-eth0.json": `{"version":1}`,
	} {
		if f, is := found[name]; !is || f.Text != want || f.Mode == "" || f.Modified.IsZero() {
			t.Errorf("%s: %+v", name, f)
		}
	}
	for name, problem := range map[string]string{"broken.conf": "no JSON", "big.json": "larger than",
		"dangling.conf": "no such"} {
		if !strings.Contains(found[name].Problem, problem) {
			t.Errorf("%s: %+v", name, found[name])
		}
	}
	if _, is := found["1/2/3"]; !is || found["1/2/3/too-deep.conf"].Name != "" ||
		found["link.conf"].Target != "10-a.conflist" {
		t.Errorf("%+v", found)
	}
}

// A directory with very many or very large files does not make the answer too large.
func TestInspectedFilesBounds(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{}
	for i := range mostFiles + 5 {
		files[strings.Repeat("a", 1+i/100)+string(rune('0'+i%100/10))+string(rune('0'+i%10))] = ""
	}
	made(t, dir, files)
	l := lister{left: 3}
	if d := l.list(dir, inspect.RoleConfigurations); len(d.Files) != mostFiles || d.LeftOut != 5 {
		t.Errorf("%d files, %d left out", len(d.Files), d.LeftOut)
	}
	dir = t.TempDir()
	made(t, dir, map[string]string{"a.conf": "{}", "b.conf": "{}"})
	d := l.list(dir, inspect.RoleConfigurations)
	if d.Files[0].Text != "{}" || d.Files[1].Text != "" || !strings.Contains(d.Files[1].Problem, "larger than 1 bytes") {
		t.Errorf("%+v", d)
	}
}
