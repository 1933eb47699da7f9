package redirect

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// spec parses a `redirect` object and fails the test on an error.
func spec(t testing.TB, raw string) Spec {
	t.Helper()
	s, err := ParseSpec([]byte(raw))
	if err != nil {
		t.Fatalf("ParseSpec(%s): %v", raw, err)
	}
	return s
}

// printed returns a Spec as text. Equal texts mean equal Specs.
func printed(t testing.TB, s Spec) string {
	t.Helper()
	out, err := s.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// wantInvalid checks that err contains everything that a person needs to correct the value.
func wantInvalid(t *testing.T, err error, parts ...string) {
	t.Helper()
	if !IsInvalid(err) {
		t.Errorf("got error %v, want one for which IsInvalid holds", err)
		return
	}
	if IsInvalid(fmt.Errorf("wrapped: %w", err)) != true {
		t.Errorf("IsInvalid does not look into a wrapped error")
	}
	for _, part := range append(parts, "invalid value", "; valid: ") {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

// declared returns the constants in a source file whose names start with one of the prefixes. A test uses it to check
// that its table is complete.
func declared(t *testing.T, file string, prefixes ...string) []string {
	t.Helper()
	var names []string
	for _, decl := range parsed(t, file).Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.CONST {
			continue
		}
		for _, s := range gen.Specs {
			for _, name := range s.(*ast.ValueSpec).Names {
				if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name.Name, p) }) {
					names = append(names, name.Name)
				}
			}
		}
	}
	if len(names) == 0 {
		t.Fatalf("%s declares no constant named %q…", file, prefixes)
	}
	return names
}

// receivers returns the types in a source file that have the method.
func receivers(t *testing.T, file, method string) []string {
	t.Helper()
	var names []string
	for _, decl := range parsed(t, file).Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv != nil && f.Name.Name == method {
			names = append(names, f.Recv.List[0].Type.(*ast.Ident).Name)
		}
	}
	if len(names) == 0 {
		t.Fatalf("%s: no type has the method %s", file, method)
	}
	slices.Sort(names)
	return names
}

func parsed(t *testing.T, file string) *ast.File {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// edit changes a pod or the policy.
type edit func(*Pod, *Policy)

// meshPod returns a pod with all facts known and with Istio's sidecar, changed by the edits.
func meshPod(edits ...edit) (Pod, Policy) {
	pod := Pod{
		Namespace: "shop", Name: "cart-0", UID: "d5f0", Complete: true,
		Annotations: map[string]string{annotation.SidecarStatus: "{}"},
		Containers: []Container{
			{Name: "app"},
			{Name: ProxyContainer, Args: []string{"proxy", "sidecar", "--domain", "shop"}, Env: map[string]string{"POD": "x"}},
		},
		InitContainers: []Container{{Name: "wait"}},
	}
	policy := Policy{Selection: SelectInjected, ExcludeNamespaces: Globs{"kube-*"}, Redirect: DefaultSpec(), Agent: true}
	for _, e := range edits {
		e(&pod, &policy)
	}
	return pod, policy
}

func annotate(pairs ...string) edit {
	return func(p *Pod, _ *Policy) {
		if p.Annotations == nil {
			p.Annotations = map[string]string{}
		}
		for i := 0; i < len(pairs); i += 2 {
			p.Annotations[pairs[i]] = pairs[i+1]
		}
	}
}

func label(value string) edit {
	return func(p *Pod, _ *Policy) { p.Labels = map[string]string{annotation.SidecarInject: value} }
}

func namespaceSays(value string) edit {
	return func(p *Pod, _ *Policy) { p.NamespaceAnnotations = map[string]string{annotation.Initialize: value} }
}

// proxyEdit changes the sidecar, in whichever list it is.
func proxyEdit(change func(*Container)) edit {
	return func(p *Pod, _ *Policy) {
		if proxy := p.proxy(); proxy != nil {
			change(proxy)
		}
	}
}

func proxyEnv(name, value string) edit {
	return proxyEdit(func(c *Container) { c.Env = map[string]string{name: value} })
}

func proxyArgs(args ...string) edit { return proxyEdit(func(c *Container) { c.Args = args }) }

func initContainer(c Container) edit {
	return func(p *Pod, _ *Policy) { p.InitContainers = append(p.InitContainers, c) }
}

// configured sets the `redirect` object of the policy.
func configured(t testing.TB, raw string) edit {
	return func(_ *Pod, policy *Policy) { policy.Redirect = spec(t, raw) }
}

// Edits without arguments.
func notInjected(p *Pod, _ *Policy)        { delete(p.Annotations, annotation.SidecarStatus) }
func noAnnotations(p *Pod, _ *Policy)      { p.Annotations = map[string]string{} }
func unknownAnnotations(p *Pod, _ *Policy) { p.Annotations = nil }
func bySelection(_ *Pod, policy *Policy)   { policy.Selection = SelectAnnotated }
func withoutAgent(_ *Pod, policy *Policy)  { policy.Agent = false }

// runtimeOnly removes everything that the runtime does not pass.
func runtimeOnly(p *Pod, _ *Policy) {
	*p = Pod{Namespace: p.Namespace, Name: p.Name, UID: p.UID, Annotations: p.Annotations}
}

func nativeSidecar(p *Pod, _ *Policy) {
	proxy := *p.proxy()
	withoutProxy(p, nil)
	p.InitContainers = append(p.InitContainers, proxy)
}

func withoutProxy(p *Pod, _ *Policy) {
	isProxy := func(c Container) bool { return c.Name == ProxyContainer }
	p.Containers = slices.DeleteFunc(p.Containers, isProxy)
	p.InitContainers = slices.DeleteFunc(p.InitContainers, isProxy)
}

func id(n int64) *int64 { return &n }
