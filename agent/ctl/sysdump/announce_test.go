package sysdump

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/golden"
	"github.com/spf13/cobra"
)

// watched is a cluster that stores what was printed before the first request.
type watched struct {
	*fake
	told  *bytes.Buffer
	first *string
}

func (w watched) Host() string {
	if *w.first == "" {
		*w.first = w.told.String()
	}
	return w.fake.Host()
}

// The announcement is printed before anything is read, and names everything that is then in the archive.
func TestAnnounce(t *testing.T) {
	for name, o := range map[string]options{"announced": {}, "announced-redacted": {redact: true,
		chosen: []string{"shop/a"}, nodes: []string{"node-b.example.com"}}} {
		var told, problems bytes.Buffer
		first := ""
		o.file, o.salt, o.stderr, o.first, o.logLines = "dump.tar.gz", []byte("salt"), &problems, &told, defaultLines
		o.list = true
		f := newFake(t)
		f.errs["version"] = errors.New("forbidden")
		var out bytes.Buffer
		err := o.run(t.Context(), watched{f, &told, &first}, output.Writer{Out: &out, Format: output.JSON})
		if !errors.Is(err, outcome.ErrNotWell) {
			t.Error(err)
		}
		if o.redact && first == "" {
			t.Error("something is asked before anything is told")
		}
		golden.Compare(t, filepath.Join("testdata", name+".txt"), told.String())
		golden.Fits(t, name, told.String(), output.Width)
		for line := range strings.Lines(out.String()) {
			path, found := strings.CutPrefix(strings.TrimSpace(line), `"path": "`)
			if !found {
				continue
			}
			path = filepath.Base(strings.TrimSuffix(path, `",`))
			kind, isKind := strings.CutSuffix(path, ".yaml")
			if !strings.Contains(told.String(), path) && (!isKind || !strings.Contains(told.String(), kind)) {
				t.Errorf("%s: nothing is told of %s:\n%s", name, path, told.String())
			}
		}
	}
}

// A pod that is named without a namespace is in that of the flag or of the kubeconfig's context. The agents are then
// looked for in all namespaces.
func TestBareNames(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(`{"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [
		{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}], "users": [{"name": "u", "user": {}}],
		"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"--pod cart-0":                 "pods/shop/cart-0/record.json",
		"--pod cart-0 -n team":         "pods/team/cart-0/record.json",
		"--pod other/cart-0,cart-1":    "pods/shop/cart-1/record.json",
		"--pod other/cart-0 -n agents": "pods/other/cart-0/record.json",
	} {
		root := &cobra.Command{SilenceErrors: true, SilenceUsage: true}
		namespace := root.PersistentFlags().StringP("namespace", "n", "default", "")
		reach := cluster.NewFlags(root.PersistentFlags())
		root.AddCommand(Command("istio-pod-networkctl", namespace, reach, output.Writer{Out: new(bytes.Buffer)}))
		var told bytes.Buffer
		root.SetErr(&told)
		root.SetArgs(append([]string{"sysdump", "--list", "--kubeconfig", kubeconfig}, strings.Fields(args)...))
		err := root.ExecuteContext(t.Context())
		if outcome.StatusOf(err) != outcome.NotAsked || !strings.Contains(told.String(), want) {
			t.Errorf("%s: %v: %s", args, err, told.String())
		}
		asked := "/api/v1/pods?"
		if strings.HasSuffix(args, "agents") {
			asked = "/api/v1/namespaces/agents/pods?"
		}
		if !strings.Contains(err.Error(), asked) {
			t.Errorf("%s: the agents are looked for elsewhere: %v", args, err)
		}
	}
}
