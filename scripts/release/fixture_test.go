package main

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// programs are the packages of the project's programs. In the fixture they do nothing.
var programs = []string{"plugin/istio-pod-network", "plugin/istio-pod-network-wait", "plugin/istio-pod-network-flows",
	"plugin/istio-pod-network-look", "install/istio-pod-network-install", "agent/istio-pod-network-agent",
	"agent/istio-pod-networkctl"}

// goLine matches the Go version in a go.mod.
var goLine = regexp.MustCompile(`(?m)^go .*\n`)

// fixture makes a small repository in the form of this one. It has the real release program, and trivial programs to
// release.
func fixture(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range programs {
		write(p+"/main.go", "package main\n\nfunc main() {}\n")
	}
	own, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	write("go.mod", "module "+modulePath+"\n\n"+goLine.FindString(string(own)))
	write("LICENSE", "A license\n")
	write(".gitignore", "/dist/\n")
	write("CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n- later\n\n## 1.2.3\n\nA small thing.\n\n"+
		"## 1.2.2\n\n- before\n")
	write("chart/small/Chart.yaml", "apiVersion: v2\nname: small\ndescription: a chart\nversion: 1.2.3\n"+
		"appVersion: \"1.2.3\"\n")
	write("chart/small/values.yaml", "a: 1\n")
	write("chart/small/templates/a.yaml", "kind: A\n")
	write("docs/releases.json", `{"apiVersion": "pod-network-controller.istio.io/v1", "kind": "ReleaseList", `+
		`"releases": []}`)
	for _, dir := range []string{"images", "release"} {
		if err := os.CopyFS(filepath.Join(root, "scripts", dir), os.DirFS(filepath.Join("..", dir))); err != nil {
			t.Fatal(err)
		}
	}
	for _, script := range []string{"lib.sh", "release.sh"} {
		text, err := os.ReadFile(filepath.Join("..", script))
		if err != nil {
			t.Fatal(err)
		}
		write("scripts/"+script, string(text))
	}
	if err := os.Chmod(filepath.Join(root, "scripts", "release.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	git(t, root, "init", "--quiet", "--initial-branch", "main")
	commit(t, root)
	return root
}

// git runs git with a fixed author and a fixed time.
func git(t *testing.T, root string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", root, "-c", "user.name=N", "-c", "user.email=n@example.com", "-c",
		"commit.gpgsign=false"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2024-02-03T04:05:06Z", "GIT_AUTHOR_DATE=2024-02-03T04:05:06Z",
		"GIT_CONFIG_GLOBAL=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
}

func commit(t *testing.T, root string) {
	t.Helper()
	git(t, root, "add", "--all")
	git(t, root, "commit", "--quiet", "--message", "all")
}

// key returns a new key pair: the private key with a password, as cosign makes it, and the public key.
func key(t *testing.T, password string) (private, public string) {
	t.Helper()
	pass := cryptoutils.StaticPasswordFunc([]byte(password))
	if password == "" {
		pass = nil
	}
	a, b, err := cryptoutils.GeneratePEMEncodedECDSAKeyPair(elliptic.P256(), pass)
	if err != nil {
		t.Fatal(err)
	}
	return string(a), string(b)
}

// release runs the program in a repository.
func release(t *testing.T, root string, env map[string]string, args ...string) (said string, err error) {
	t.Helper()
	var out bytes.Buffer
	o, err := parse(append([]string{"--root", root}, args...))
	o.env = func(name string) string { return env[name] }
	o.out = &out
	if err == nil {
		err = o.run(context.Background())
	}
	return out.String(), err
}

// mustRelease fails the test if the program fails.
func mustRelease(t *testing.T, root string, env map[string]string, args ...string) string {
	t.Helper()
	said, err := release(t, root, env, args...)
	if err != nil {
		t.Fatalf("release %q: %v\n%s", args, err, said)
	}
	return said
}

// refuses fails the test unless the program ends with that status and that error.
func refuses(t *testing.T, code int, why, root string, env map[string]string, args ...string) {
	t.Helper()
	said, err := release(t, root, env, args...)
	if status(err) != code || !strings.Contains(fmt.Sprint(err), why) {
		t.Errorf("release %q ended with %d, %v, want %d and %q\n%s", args, status(err), err, code, why, said)
	}
}
