package redirect

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// inputs returns the names of all annotations that are read, as package annotation declares them.
func inputs(t *testing.T) (names []string) {
	t.Helper()
	files := token.NewFileSet()
	var parsed []*ast.File
	for _, name := range []string{"annotation.go", "input.go"} {
		file, err := parser.ParseFile(files, filepath.Join("..", "annotation", name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, file)
	}
	scope, err := new(types.Config).Check("annotation", files, parsed, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range scope.Scope().Names() {
		value := constant.StringVal(scope.Scope().Lookup(name).(*types.Const).Val())
		if !strings.HasSuffix(name, "Prefix") {
			names = append(names, value)
		}
	}
	if len(names) < 15 || !slices.Contains(names, annotation.ExcludeOutboundPorts) {
		t.Fatalf("package annotation declares %q", names)
	}
	return names
}

// environment returns the names of all variables that are read, as proxy.go declares them.
func environment(t *testing.T) (names []string) {
	t.Helper()
	constants := declared(t, "proxy.go", "Env")
	ast.Inspect(parsed(t, "proxy.go"), func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && slices.Contains(constants, spec.Names[0].Name) {
			name, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		return true
	})
	return names
}

// reduced returns the pod with only what is read.
func reduced(pod Pod) Pod {
	pod.Annotations, pod.Labels = ReadAnnotations(pod.Annotations), ReadLabels(pod.Labels)
	for _, list := range []*[]Container{&pod.Containers, &pod.InitContainers} {
		*list = slices.Clone(*list)
		for i := range *list {
			c := &(*list)[i]
			env := map[string]string{}
			for name, value := range c.Env {
				if ReadsEnv(name) {
					env[name] = value
				}
			}
			c.Env, c.Args = env, ReadArgs(c.Args)
		}
	}
	return pod
}

// The decision about a reduced pod is that about the pod: with every declared annotation and variable, with any value,
// and with any arguments of the proxy.
func TestReadIsEnough(t *testing.T) {
	var changes []edit
	for _, key := range inputs(t) {
		for _, value := range []string{"", "true", "false", "8080", "TPROXY", "NONE", "enabled", "10.0.0.0/8", "eth1"} {
			changes = append(changes, annotate(key, value))
		}
	}
	for _, key := range environment(t) {
		for _, value := range []string{"", "true", "false", "1000,2000", "TPROXY"} {
			changes = append(changes, proxyEnv(key, value))
		}
	}
	for _, args := range [][]string{nil, {"proxy"}, {"proxy", "router"}, {"proxy", "sidecar", "router"}} {
		changes = append(changes, proxyArgs(args...))
	}
	changes = append(changes, label("false"), label("true"), annotate(annotation.TrafficPrefix+"unknown", "x"))
	for i, change := range changes {
		for _, also := range [][]edit{nil, {notInjected}, {bySelection}, {noAnnotations, withoutProxy}, {runtimeOnly}} {
			pod, policy := meshPod(append(slices.Clone(also), change)...)
			want, wantErr := Decide(pod, policy)
			got, gotErr := Decide(reduced(pod), policy)
			if !reflect.DeepEqual(got, want) || (gotErr == nil) != (wantErr == nil) ||
				gotErr != nil && gotErr.Error() != wantErr.Error() {
				t.Errorf("%d: %+v is decided %+v, %v; what is read of it %+v, %v", i, pod, want, wantErr, got, gotErr)
			}
		}
	}
}

// Every declared name is kept, with or without its value, and nothing else is.
func TestReadIsComplete(t *testing.T) {
	all := map[string]string{
		"example.com/other": "x", annotation.TrafficPrefix + "b": "x", annotation.ControllerPrefix + "a": "x",
	}
	names := inputs(t)
	for _, key := range names {
		all[key] = "x"
	}
	read := ReadAnnotations(all)
	for _, key := range names {
		value, present := read[key]
		if want := map[bool]string{false: "x"}[slices.Contains(presence, key)]; !present || value != want {
			t.Errorf("%s: %t %q, want %q", key, present, value, want)
		}
	}
	if value, one := read[annotation.ControllerPrefix+"a"]; len(read) != len(names)+1 || !one || value != "" {
		t.Errorf("%q is read of %d names", read, len(names))
	}
	got, want := slices.Sorted(slices.Values(ProxyVariables)), slices.Sorted(slices.Values(environment(t)))
	if !slices.Equal(got, want) {
		t.Errorf("of the environment %q is read, declared is %q", got, want)
	}
}
