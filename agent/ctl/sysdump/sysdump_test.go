package sysdump

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/golden"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// dumped runs the command with a fixed time and salt, and returns the archive's files.
func dumped(t *testing.T, o options, f *fake, w output.Writer) (files map[string]string, stderr string, err error) {
	t.Helper()
	var problems bytes.Buffer
	if o.file == "" {
		o.file = filepath.Join(t.TempDir(), "dump.tar.gz")
	}
	o.now, o.salt, o.stderr = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), []byte("salt"), &problems
	o.logLines = defaultLines
	if w.Out == nil {
		w.Out = io.Discard
	}
	_, absent := os.Stat(o.file)
	err = o.run(t.Context(), f, w)
	if status := outcome.StatusOf(err); status == outcome.Misused || status == outcome.NotAsked {
		if _, still := os.Stat(o.file); absent != nil && still == nil {
			t.Errorf("status %d, and there is an archive", status)
		}
		return nil, problems.String(), err
	}
	return unpacked(t, o.file), problems.String(), err
}

// unpacked returns the files of an archive by path below the top directory; none if there is no archive.
func unpacked(t *testing.T, name string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(unzipped); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		name, below := strings.CutPrefix(h.Name, top+"/")
		if err != nil || !below {
			t.Fatal(h.Name, err)
		}
		files[name] = string(text)
	}
}

// all returns every file of an archive, each after its path.
func all(files map[string]string) string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text.WriteString("==== " + name + "\n" + files[name])
	}
	return text.String()
}

// The archive has what a maintainer needs, but nothing of a Secret, of an environment variable, of a token in a log, or
// of credentials in a CNI file. The golden files are for review.
func TestSysdump(t *testing.T) {
	for name, o := range map[string]options{"plain": {}, "redacted": {redact: true}} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			o.file = filepath.Join(t.TempDir(), "dump.tar.gz")
			files, stderr, err := dumped(t, o, newFake(t), output.Writer{Out: &out})
			if err != nil || stderr != "" {
				t.Fatalf("%v: %s", err, stderr)
			}
			text := all(files)
			for _, never := range []string{secret, "eyJ", "last-applied", "kind: Secret", "managedFields",
				"an app's own words"} {
				if at := strings.Index(text, never); at >= 0 {
					t.Errorf("%s is in the archive: …%s…", never, text[max(0, at-200):min(len(text), at+100)])
				}
			}
			golden.Compare(t, filepath.Join("testdata", name+".txt"), text)
			listing := strings.ReplaceAll(out.String(), filepath.Dir(o.file)+"/", "")
			golden.Compare(t, filepath.Join("testdata", name+"-listing.txt"), listing)
			golden.Fits(t, "listing", listing, output.Width)
			info, err := os.Stat(o.file)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Error(info, err)
			}
		})
	}
}

// With --redact there is no address and no name of a node, namespace or pod, whether it is in a list or not. Equal
// names have equal pseudonyms.
func TestRedact(t *testing.T) {
	files, _, err := dumped(t, options{redact: true}, newFake(t), output.Writer{})
	if err != nil {
		t.Fatal(err)
	}
	text := all(files)
	for _, never := range []string{`node-a\b`, `node-b\b`, `node-.\.example`, `\bshop\b`, `\bcart`, `deleted-1`,
		`\bgone\b`, `old-0`,
		`agent-aaaaa`, `10\.\d+\.\d+\.\d+`, `fd00:`, `192\.168`, `plain-0`} {
		if at := regexp.MustCompile(never).FindStringIndex(text); at != nil {
			t.Errorf("%s is in the archive: …%s…", never, text[max(0, at[0]-200):min(len(text), at[1]+100)])
		}
	}
	r := newRedactor([]byte("salt"))
	for _, has := range []string{r.pseudonym(ofNamespace, "shop") + "/" + r.pseudonym(ofPod, "deleted-1"),
		"pods/" + r.pseudonym(ofNamespace, "shop") + "/pods.yaml", "127.0.0.1", "/etc/cni/net.d/calico-kubeconfig"} {
		if !strings.Contains(text, has) {
			t.Errorf("%s is not in the archive", has)
		}
	}
	other := newRedactor([]byte("another"))
	if other.pseudonym(ofPod, "a") == r.pseudonym(ofPod, "a") {
		t.Error("the salt does not count")
	}
}

// If names cannot be listed, they cannot be recognised in texts of others. These texts are then left out.
func TestRedactUnlisted(t *testing.T) {
	f := newFake(t)
	f.errs["namespaces"] = errors.New("forbidden")
	files, stderr, err := dumped(t, options{redact: true}, f, output.Writer{})
	if !errors.Is(err, outcome.ErrNotWell) {
		t.Error(err)
	}
	for name := range files {
		if path.Ext(name) == ".log" || path.Base(name) == "events.yaml" || path.Base(name) == "files.json" {
			t.Errorf("%s is in the archive", name)
		}
	}
	if !strings.Contains(stderr, "agent.log: with --redact it may only be told where the names of all namespaces are") {
		t.Error(stderr)
	}
}

// What cannot be read is named with its reason, on standard error and in the index. The rest is in the archive.
func TestUnread(t *testing.T) {
	f := newFake(t)
	for _, what := range []string{"version", "nodes", "pods", "events", "clusterroles", "inspect node", "log", "previous",
		"metrics"} {
		f.errs[what] = apierrors.NewForbidden(schema.GroupResource{Resource: what}, "", errors.New(`User "reader" cannot`))
	}
	f.errs["log"] = errors.New("connect: connection refused")
	f.errs["inspect files"] = errors.New(`istio-pod-network-agent inspect: unexpected argument "files"; valid: node`)
	files, stderr, err := dumped(t, options{}, f, output.Writer{})
	if !errors.Is(err, outcome.ErrNotWell) {
		t.Error(err)
	}
	golden.Compare(t, filepath.Join("testdata", "unread.txt"), stderr)
	golden.Compare(t, filepath.Join("testdata", "unread-index.json"), files[indexFile])
	if files["objects/daemonsets.yaml"] == "" {
		t.Error("what could be read is missing")
	}
}

// A node without the agent that it should have is named: what only its agent knows is missing.
func TestAgentless(t *testing.T) {
	f := newFake(t)
	f.objects = slices.DeleteFunc(f.objects, func(o *unstructured.Unstructured) bool {
		return o.GetName() == "istio-pod-network-agent-bbbbb"
	})
	_, stderr, err := dumped(t, options{}, f, output.Writer{})
	if !errors.Is(err, outcome.ErrNotWell) ||
		!strings.Contains(stderr, "not read: agent of node node-b.example.com: no agent runs there\n"+
			"  -> istio-pod-networkctl status says why no agent runs there.\n") {
		t.Errorf("%v: %s", err, stderr)
	}
	if _, stderr, err = dumped(t, options{nodes: []string{"node-a.example.com"}}, f, output.Writer{}); err != nil {
		t.Errorf("of another node: %v: %s", err, stderr)
	}
}

// The archive has the rest if agents may not be listed, or if there is none: then it is most useful.
func TestNoAgents(t *testing.T) {
	refused := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no"))
	for what, prepare := range map[string]func(*fake){
		"pods of the agents: pods is forbidden": func(f *fake) { f.errs["agents"], f.errs["pods"] = refused, refused },
		"agents: no agent of": func(f *fake) {
			f.objects = slices.DeleteFunc(f.objects, func(o *unstructured.Unstructured) bool {
				return strings.HasPrefix(o.GetName(), "istio-pod-network-agent")
			})
		},
	} {
		f := newFake(t)
		prepare(f)
		files, stderr, err := dumped(t, options{}, f, output.Writer{})
		if !errors.Is(err, outcome.ErrNotWell) || files["objects/nodes.yaml"] == "" || !strings.Contains(stderr, what) ||
			strings.Contains(stderr, "no agent runs there") {
			t.Errorf("%s: %v: %s", what, err, stderr)
		}
	}
	f := newFake(t)
	f.objects, f.errs["agents"] = nil, refused
	if _, _, err := dumped(t, options{}, f, output.Writer{}); outcome.StatusOf(err) != outcome.NotAsked ||
		!strings.Contains(err.Error(), "pods is forbidden") {
		t.Errorf("nothing was read: %v", err)
	}
	f = newFake(t)
	f.errs["agents"] = errors.New("connection refused")
	if _, _, err := dumped(t, options{}, f, output.Writer{}); outcome.StatusOf(err) != outcome.NotAsked {
		t.Errorf("nobody answers: %v", err)
	}
}

// Nothing answers, and a node that does not exist.
func TestUnasked(t *testing.T) {
	for want, test := range map[string]struct {
		o      options
		f      *fake
		status int
	}{
		"install the chart": {options{}, &fake{}, outcome.NotAsked},
		"--nodes":           {options{nodes: []string{"node-x"}}, newFake(t), outcome.Misused},
	} {
		files, _, err := dumped(t, test.o, test.f, output.Writer{})
		if outcome.StatusOf(err) != test.status || !strings.Contains(err.Error(), want) || files != nil {
			t.Errorf("%s: %v, %d files", want, err, len(files))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (options{}).run(ctx, newFake(t), output.Writer{Out: io.Discard}); outcome.StatusOf(err) != outcome.NotAsked {
		t.Error(err)
	}
}

// --nodes leaves out agents and pods of other nodes. --list writes no archive, and with JSON lists what it would have.
func TestChoice(t *testing.T) {
	files, _, err := dumped(t, options{nodes: []string{"node-b.example.com"}}, newFake(t), output.Writer{})
	text := all(files)
	if err != nil || strings.Contains(text, "==== agents/node-a") || !strings.Contains(text, "==== agents/node-b") {
		t.Error(err, text)
	}
	for _, format := range []output.Format{output.JSON, output.YAML} {
		var out bytes.Buffer
		files, _, err = dumped(t, options{list: true}, newFake(t), output.Writer{Out: &out, Format: format})
		if err != nil || files != nil {
			t.Errorf("%v, %d files", err, len(files))
		}
		golden.Compare(t, filepath.Join("testdata", "list."+string(format)), out.String())
	}
}

// The same cluster at the same time gives an archive with the same bytes.
func TestSameBytes(t *testing.T) {
	var archives []string
	for range 2 {
		file := filepath.Join(t.TempDir(), "dump.tar.gz")
		if _, _, err := dumped(t, options{file: file}, newFake(t), output.Writer{}); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, string(data))
	}
	if archives[0] != archives[1] {
		t.Error("two archives differ")
	}
}

// An agent's output cannot control the terminal.
func TestUnreadIsPrintable(t *testing.T) {
	f := newFake(t)
	f.errs["metrics"] = errors.New("gone\x1b[2J\u202e")
	_, stderr, err := dumped(t, options{}, f, output.Writer{})
	if !errors.Is(err, outcome.ErrNotWell) || !strings.Contains(stderr, "gone") ||
		strings.ContainsAny(stderr, "\x1b\u202e") {
		t.Errorf("%v, %q", err, stderr)
	}
}

func TestCheck(t *testing.T) {
	there := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(there, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]options{
		"the file is there already":  {file: there, format: "table", logLines: 1},
		"its directory is not there": {file: filepath.Join(t.TempDir(), "none", "a"), format: "table", logLines: 1},
		"the listing has --format":   {file: "json", format: "table", logLines: 1},
		"--format: invalid value":    {format: "xml", logLines: 1},
		"--log-lines":                {format: "table"},
		"--pod: invalid value":       {format: "table", logLines: 1, chosen: []string{"shop/a", "cart-0", "shop/"}},
	} {
		if _, err := o.check(); outcome.StatusOf(err) != outcome.Misused || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	o := options{format: "yaml", logLines: 1, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	if format, err := o.check(); err != nil || format != output.YAML ||
		o.file != "istio-pod-network-sysdump-20260102T030405Z.tar.gz" {
		t.Error(format, o.file, err)
	}
	// A file that was created meanwhile is kept.
	_, _, err := dumped(t, options{file: there}, newFake(t), output.Writer{})
	if data, _ := os.ReadFile(there); outcome.StatusOf(err) != outcome.NotAsked || string(data) != "kept" {
		t.Errorf("%v, %q", err, data)
	}
}

// The size of files is limited, and so is that of an archive.
func TestBounds(t *testing.T) {
	var c contents
	big := map[string]any{"a": strings.Repeat("x", maxFile/2)}
	c.add(file{base: "a.yaml", objects: []any{big, big, big}})
	if f := c.files[0]; len(f.objects) != 1 || !strings.Contains(f.note, "1 of 3 objects") {
		t.Errorf("%d objects, %q", len(f.objects), f.note)
	}
	c.bytes = maxFiles
	c.add(file{base: "b.log", text: "x"})
	if len(c.files) != 1 || len(c.unread) != 1 || c.unread[0].What != "b.log" {
		t.Errorf("%d files, %v", len(c.files), c.unread)
	}
}

// The archive has record and rules of chosen pods, with pseudonyms if redacted. What is missing is named.
func TestChosen(t *testing.T) {
	const pod, agent = "shop/cart-7d4b9-x2x4q", "istio-pod-network-agent-aaaaa"
	for _, redacts := range []bool{false, true} {
		f := newFake(t)
		f.answers[agent+" pod "+pod] = `{"namespace": "shop", "name": "cart-7d4b9-x2x4q", "rules": {"looked": true}}`
		f.answers[agent+" rules "+pod] = `{"namespace": "shop", "name": "cart-7d4b9-x2x4q", "kernel": {"tables": [` +
			`{"family": "ip", "name": "istio-pod-network", "chains": [{"name": "c", "rules": [` +
			`{"comment": "of shop/cart-7d4b9-x2x4q", "does": "accept"}]}]}, {"family": "ip", "name": "policies of jane", ` +
			`"chains": [{"name": "OUTPUT", "rules": [{"does": "meta mark, jump team-blue:egress"}, {"does": ` +
			`"jump ISTIO_OUTPUT"}]}, {"name": "team-blue:egress", "rules": [{"comment": "ask jane", "does": "accept"}]}]}]}}`
		files, stderr, err := dumped(t, options{redact: redacts, chosen: []string{pod, "shop/none"}}, f, output.Writer{})
		if !errors.Is(err, outcome.ErrNotWell) || !strings.HasPrefix(stderr, "not read: pod shop/none: no such "+
			"pod was found\n  -> Name pods as kubectl get pods -A does: --pod NAMESPACE/NAME.\n") && !redacts {
			t.Errorf("%v: %s", err, stderr)
		}
		if redacts && strings.Contains(stderr+files["index.json"], "none") {
			t.Errorf("the name of a pod that is gone: %s%s", stderr, files["index.json"])
		}
		for _, others := range []string{"jane", "team-blue"} {
			if redacts == strings.Contains(all(files), others) {
				t.Errorf("redacts %t: of others' rules: %s", redacts, others)
			}
		}
		dir := "pods/" + pod
		if redacts {
			r := newRedactor([]byte("salt"))
			dir = "pods/" + r.pseudonym(ofNamespace, "shop") + "/" + r.pseudonym(ofPod, "cart-7d4b9-x2x4q")
		}
		for _, has := range []string{"OUTPUT", "jump ISTIO_OUTPUT", "meta mark, jump "} {
			if !strings.Contains(files[dir+"/rules.json"], has) {
				t.Errorf("redacts %t: no %s in %s", redacts, has, files[dir+"/rules.json"])
			}
		}
		if !strings.Contains(files[dir+"/record.json"], `"looked": true`) ||
			!strings.Contains(files[dir+"/rules.json"], `"does": "accept"`) ||
			redacts == strings.Contains(files[dir+"/rules.json"], "cart-7d4b9") {
			t.Errorf("redacts %t: %q %s", redacts, slices.Sorted(maps.Keys(files)), files[dir+"/rules.json"])
		}
	}
	files, stderr, err := dumped(t, options{nodes: []string{"node-b.example.com"}, chosen: []string{pod}}, newFake(t),
		output.Writer{})
	if !errors.Is(err, outcome.ErrNotWell) || !strings.Contains(stderr, "no agent that was asked runs on its node") ||
		files["pods/"+pod+"/rules.json"] != "" {
		t.Errorf("%v: %s", err, stderr)
	}
}
