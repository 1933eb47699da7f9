package pages

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"

	"github.com/istio-pod-network/controller/conformance/internal/blocks"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

// Ways to check a command.
const (
	ran      = "ran"
	rendered = "were rendered by Helm"
	checked  = "were held against the program's own flags"
	stoodFor = "had a stand-in"
	other    = "were run by a test of their own"
	parsed   = "were parsed only"
)

// reader pastes the blocks of a page, one after the other, into one shell.
type reader struct {
	t     *testing.T
	dir   string // the shell's working directory
	shell *interp.Runner
	block blocks.Block
	used  map[string]bool // stand-ins that this block has used
	count map[string]int
	wrong []string // what cannot be pasted, and why
}

// ordinary are programs of every system. They run.
var ordinary = []string{"cat", "grep", "hostname", "sed"}

// answers are the outputs of programs that pages read.
var answers = map[string]string{
	"helm list": "- app_version: 1.31.0\n", "helm get": "pilot: {}\n", "jq": "1.31.0\n",
}

// ofTree matches paths of the repository in pages.
var ofTree = regexp.MustCompile(`^(\./)?(agent|chart|conformance|docs|scripts)/`)

// files are files that a reader has beside the tree.
var files = map[string]string{
	"values.yaml":  "image: {registry: registry.example.com/mesh}\n",
	"network.json": `{"type": "istio-pod-network"}`,
	"entry.json":   `{"type": "istio-pod-network"}`,
	"deployment.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: cart, namespace: shop}\nspec:\n" +
		"  selector: {matchLabels: {app: cart}}\n  template:\n    metadata: {labels: {app: cart}}\n" +
		"    spec: {containers: [{name: app, image: app}]}\n",
	"istiod.yaml": "pilot: {}\n", "cart.yaml": "# a pod\n", "cosign.key": "a key\n",
}

// given are variables that an earlier page makes the reader set.
var given = map[string][]string{
	"docs/getting-started-aks.md":       {"ISTIO=1.31.0", "VERSION=0.2.0"},
	"docs/getting-started-eks.md":       {"ISTIO=1.31.0", "VERSION=0.2.0"},
	"docs/getting-started-gke.md":       {"ISTIO=1.31.0", "VERSION=0.2.0"},
	"docs/getting-started-openshift.md": {"ISTIO=1.31.0", "VERSION=0.2.0"},
}

func newReader(t *testing.T, page string) *reader {
	t.Helper()
	r := &reader{t: t, dir: t.TempDir(), count: map[string]int{}}
	for _, name := range []string{"agent", "chart", "conformance", "docs", "plugin", "Makefile"} {
		target, err := filepath.Abs(filepath.Join(build.Root(), name))
		if err == nil {
			err = os.Symlink(target, filepath.Join(r.dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pod, err := os.ReadFile(r.pod())
	if err == nil {
		err = os.WriteFile(filepath.Join(r.dir, "pod.yaml"), pod, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.shell, err = interp.New(interp.Dir(r.dir), interp.StdIO(nil, io.Discard, io.Discard), interp.Params("-u"),
		interp.Env(expand.ListEnviron(append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir,
			"KUBECONFIG=" + filepath.Join(r.dir, "none")}, given[page]...)...)),
		interp.OpenHandler(r.open),
		interp.ExecHandlers(func(interp.ExecHandlerFunc) interp.ExecHandlerFunc { return r.call }))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pod returns the path of the pod in the reader's cluster, for explain and trace.
func (r *reader) pod() string {
	return filepath.Join(build.Root(), "agent", "ctl", "trace", "testdata", "pod.yaml")
}

func (r *reader) fail(format string, args ...any) {
	r.wrong = append(r.wrong, r.block.Place+": "+fmt.Sprintf(format, args...))
}

// paste runs a block in the shell.
func (r *reader) paste(b blocks.Block) {
	r.block, r.used = b, map[string]bool{}
	file, err := blocks.Parse(b.Place, b.Text)
	if err != nil {
		r.fail("a shell does not understand it: %v", err)
		return
	}
	programs := blocks.Programs(file)
	if left := blocks.Skipped(b, programs); len(left) > 0 {
		r.fail("%q can be checked here, and no page leaves them out", left)
	}
	switch {
	case b.NotRun != "":
		r.count[parsed] += len(file.Stmts)
		return
	case b.RunBy != "":
		if !slices.Contains(byHand, b.RunBy) {
			r.fail("there is no %s", b.RunBy)
		}
		r.count[other] += len(file.Stmts)
		return
	}
	for _, stmt := range file.Stmts {
		if err := r.shell.Run(r.t.Context(), stmt); err != nil {
			r.fail("line %d of the block ends with %v", stmt.Pos().Line(), err)
		}
	}
	for _, name := range b.StandIns {
		if !r.used[name] {
			r.fail("it has no %s that a stand-in would be for", name)
		}
	}
}

// open lets the shell read and write only in its directory.
func (r *reader) open(ctx context.Context, path string, flag int, perm fs.FileMode) (io.ReadWriteCloser, error) {
	// Links are resolved, because a page may change the directory, and links lead into the tree.
	dir, err := filepath.EvalSymlinks(filepath.Dir(filepath.Join(interp.HandlerCtx(ctx).Dir, path)))
	writes := flag&(os.O_WRONLY|os.O_RDWR) != 0
	if path != os.DevNull && (!filepath.IsLocal(path) || err != nil || interp.HandlerCtx(ctx).Dir != r.dir ||
		writes && dir != r.dir && !strings.HasPrefix(dir, r.dir+"/")) {
		r.fail("a redirection to %s, which is not the reader's", path)
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	}
	return interp.DefaultOpenHandler()(ctx, path, flag, perm)
}

// call checks or runs a command.
func (r *reader) call(ctx context.Context, args []string) error {
	if args[0] == "sudo" {
		args = args[1:]
	}
	for _, arg := range args {
		if _, err := os.Stat(filepath.Join(build.Root(), arg)); ofTree.MatchString(arg) && err != nil {
			r.fail("%s: the tree has no %s", strings.Join(args, " "), arg)
		}
	}
	shell := interp.HandlerCtx(ctx)
	name, how, err := filepath.Base(args[0]), ran, error(nil)
	switch {
	case slices.Contains(r.block.StandIns, name):
		r.used[name] = true
		how = stoodFor
		if err = drain(shell); err == nil {
			_, err = io.WriteString(shell.Stdout, cmp.Or(answers[name], "stand-in\n"))
		}
	case name == "oc" && !ofKubectl(args):
		how, err = r.standInFor(shell, "oc "+subcommand(args))
	case name == "kubectl", name == "oc":
		how, err = checked, r.kubectl(shell, args)
	case name == "helm", name == "helm3", name == "helm4":
		how, err = r.helm(shell, name, args)
	case name == "make":
		how, err = checked, r.make(args)
	case name == "go":
		how, err = checked, r.golang(args)
	case name == "curl":
		how, err = checked, r.curl(args)
	case strings.HasPrefix(args[0], "scripts/"):
		how, err = checked, r.script(shell, args)
	case name == "istio-pod-networkctl" && args[1] != "status":
		how, err = r.tool(shell, args)
	case strings.HasPrefix(name, "istio-pod-network"):
		how, err = checked, r.ours(args)
		if name == "istio-pod-networkctl" {
			_, _ = io.WriteString(shell.Stdout, "{}\n")
		}
	case slices.Contains(ordinary, args[0]):
		if err = harmless(args); err != nil {
			break
		}
		if name == "sed" {
			args = slices.Insert(slices.Clone(args), 1, "--sandbox") // sed's commands e and w
		}
		err = interp.DefaultExecHandler(0)(ctx, args)
		if name == "grep" && errors.Is(err, interp.ExitStatus(1)) {
			err = nil // a stand-in's output need not match
		}
	default:
		err = fmt.Errorf("nothing here knows it: say above the block <!-- stand-ins for %s: why -->", name)
	}
	if err != nil {
		r.fail("%s: %v", strings.Join(args, " "), err)
		return nil // so that the other commands are checked, too
	}
	r.count[how]++
	return nil
}

// harmless returns an error if an ordinary program would change something.
func harmless(args []string) error {
	for _, arg := range args[1:] {
		if args[0] == "hostname" || args[0] == "sed" && regexp.MustCompile(`^(-[a-zA-Z]*i|--in-place)`).MatchString(arg) {
			return fmt.Errorf("with %s it would change the machine", arg)
		}
	}
	return nil
}

// drain reads stdin if it is a pipe, so that its writer does not fail.
func drain(shell interp.HandlerContext) error {
	if pipe, is := shell.Stdin.(*os.File); !is || pipe == nil {
		return nil
	}
	_, err := io.Copy(io.Discard, shell.Stdin)
	return err
}

// standInFor checks that the page declares the stand-in, and returns what it prints.
func (r *reader) standInFor(shell interp.HandlerContext, what string) (string, error) {
	if !slices.Contains(r.block.StandIns, what) {
		return "", fmt.Errorf("nothing here knows it: say above the block <!-- stand-ins for %s: why -->", what)
	}
	r.used[what] = true
	_, err := io.WriteString(shell.Stdout, "stand-in\n")
	return stoodFor, err
}

// program runs a program, and returns its output, or an error with what it says.
func (r *reader) program(stdin io.Reader, name string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(isolated.BinDir(), name), args...)
	cmd.Dir, cmd.Stdin = r.dir, stdin
	cmd.Env = append(os.Environ(), "HOME="+r.dir, "KUBECONFIG="+filepath.Join(r.dir, "none"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()+out.String()))
	}
	return out.String(), nil
}

// A reader can paste every command of every page: it runs, it renders, or its program accepts it. The page says why a
// command is left out.
func TestPages(t *testing.T) {
	count, pasted, clusters, read, all := map[string]int{}, 0, 0, 0, pages(t)
	for _, page := range all {
		t.Run(page, func(t *testing.T) {
			r := newReader(t, page)
			all, wrong, err := blocks.Read(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range all {
				r.paste(b)
				if blocks.PastedOnCluster(page, b) {
					clusters++
				} else if blocks.Unexplained(page, b) {
					r.fail("no end-to-end test pastes it: have one, or say above it <!-- not on the cluster: why -->")
				}
			}
			for _, w := range append(wrong, r.wrong...) {
				t.Error(w)
			}
			read++
			pasted += len(all)
			for how, n := range r.count {
				count[how] += n
			}
		})
	}
	for _, how := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%d commands %s", count[how], how)
	}
	t.Logf("of %d blocks, %d of which the end-to-end tests paste on a cluster", pasted, clusters)
	if read < len(all) {
		return // -run has chosen some pages
	}
	if pasted < 80 || count[ran] < 15 || count[rendered] < 30 || count[checked] < 100 {
		t.Errorf("%d blocks, %v: most of the commands are not seen", pasted, count)
	}
}

// A command that its program rejects is found, for every program.
func TestReaderRefuses(t *testing.T) {
	outside := t.TempDir()
	program := []byte("#!/bin/sh\ntouch " + outside + "/ran\n")
	if err := os.WriteFile(filepath.Join(outside, "cat"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		"kubectl get pods --field-selectr a=b", "kubectl gett pods", "kubectl config nosuch", "kubectl apply -f none.yaml",
		"kubectl get pod a -o jsonpath='{.metadata.annotations[}'", "oc gett pods", "oc whoami",
		"helm install a ./chart/istio-pod-network-controller --wate", "helm nosuch", "helm install a ./chart/none",
		"helm install a oci://registry.example.com/mesh/none --version 0.2.0",
		"helm template a ./chart/istio-pod-network-controller --set nonsense=1", "helm3 install a istio/istiodd",
		"make nosuch", "make e2e RUNS=TestMeshPod", "make e2e RUN=TestNosuch", "go test ./nosuch", "go run ./agent",
		"curl localhost:15088/ready", "scripts/nosuch.sh", "scripts/images.sh --bilder none", "scripts/cluster.sh lode",
		"istio-pod-networkctl explain -f none.yaml", "istio-pod-networkctl trace -f pod.yaml --too 10.0.0.1:80",
		"istio-pod-networkctl status --wate", "istio-pod-network-install nosuch", "bin/istio-pod-network-agent --nod-name a",
		"cd / && echo a > " + strings.TrimPrefix(outside, "/") + "/a", "echo a > docs/zz-none",
		"sed -i s/a/b/ docs/why.md", "sed -n '1w " + outside + "/b' values.yaml",
		"sed '1e touch " + outside + "/c' values.yaml",
		outside + "/cat values.yaml", "make '--eval=$(shell touch " + outside + "/d)' test",
		"make 'RUN=$(shell touch " + outside + "/e)' e2e", "curl localhost:15088/readyz -o " + outside + "/f",
		"helm template a ./chart/istio-pod-network-controller --post-renderer " + outside + "/cat",
		"helm template a ./chart/istio-pod-network-controller --output-dir " + outside,
		"cat docs/none", "nosuch", "echo a > /etc/none", "echo $NOSUCH", "cat none", "for n in a b; do",
	} {
		r := newReader(t, "")
		r.paste(blocks.Block{Place: "page:1", Text: command + "\n"})
		if len(r.wrong) == 0 {
			t.Errorf("taken: %s", command)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("a page has written outside of its reader's directory: %v, %v", left, err)
	}
	for _, b := range []blocks.Block{
		{Text: "make demo\n", NotRun: "it would"}, {Text: "sudo make demo\n", StandIns: []string{"make"}},
		{Text: "docker push x\n", StandIns: []string{"docker", "aws"}},
	} {
		r := newReader(t, "")
		if r.paste(b); len(r.wrong) == 0 {
			t.Errorf("taken: %+v", b)
		}
	}
}
