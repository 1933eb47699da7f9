package install

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/fdleak"
)

// roleEnv is the environment variable that turns the test binary into an installer. Its arguments are the role,
// confDir, binDir and source.
const roleEnv = "INSTALL_TEST_ROLE"

// ours is our entry in all tests.
var ours = []byte(`{"type": "istio-pod-network", "logLevel": "info"}`)

// TestMain turns the test binary into an installer if roleEnv is set, and fails the tests if they leave files open.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(act(strings.Split(role, "|")))
	}
	os.Exit(fdleak.Run(m))
}

func act(args []string) int {
	c := Config{ConfDir: args[1], BinDir: args[2], Source: args[3], Entry: parsed(ours), DropIn: DropIn(args[4]),
		run: everything}
	err := error(nil)
	switch args[0] {
	case "install":
		err = Install(c)
	case "uninstall":
		err = Uninstall(c, true)
	case "watch":
		err = (&Keeper{Config: c}).Run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err, "remedy:", Remedy(err))
		return 1
	}
	return 0
}

// parsed returns a valid entry.
func parsed(text []byte) entry.Entry {
	e, err := entry.Parse(text)
	if err != nil {
		panic(err)
	}
	return e
}

// node is a machine with a primary.
type node struct {
	Config
	t testing.TB
}

// newNode creates the directories, and the files in confDir: files has their names and contents in turn.
func newNode(t testing.TB, files ...string) node {
	t.Helper()
	dir := t.TempDir()
	n := node{t: t, Config: Config{
		ConfDir: filepath.Join(dir, "net.d"), BinDir: filepath.Join(dir, "bin"), AuxDir: filepath.Join(dir, "aux"),
		Source: filepath.Join(dir, "plugin"), Entry: parsed(ours), run: everything,
	}}
	for _, d := range []string{n.ConfDir, n.BinDir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(n.Source, []byte("the plugin"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.program("ptp")
	for i := 0; i < len(files); i += 2 {
		n.write(files[i], files[i+1])
	}
	return n
}

// everything stands in for the plugin in tests of files: it supports all versions and accepts every entry.
func everything(_ context.Context, _ string, env []string, _ []byte) ([]byte, error) {
	if slices.Contains(env, "CNI_COMMAND=VERSION") {
		return []byte(`{"supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}`), nil
	}
	return nil, nil
}

// program puts a plugin of others into binDir.
func (n node) program(name string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.BinDir, name), nil, 0o755); err != nil {
		n.t.Fatal(err)
	}
}

func (n node) write(name, contents string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.ConfDir, name), []byte(contents), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n node) read(name string) string {
	n.t.Helper()
	data, err := os.ReadFile(filepath.Join(n.ConfDir, name))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(data)
}

func (n node) install() {
	n.t.Helper()
	if err := Install(n.Config); err != nil {
		n.t.Fatal(err)
	}
}

func (n node) uninstall() {
	n.t.Helper()
	if err := Uninstall(n.Config, true); err != nil {
		n.t.Fatal(err)
	}
}

func (n node) status() Status {
	n.t.Helper()
	s, err := LookAt(n.Config)
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// tree returns every file and directory below confDir and binDir, with the contents.
func (n node) tree() string {
	n.t.Helper()
	var out strings.Builder
	for _, root := range []string{n.ConfDir, n.BinDir} {
		err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
			if err != nil || info.IsDir() {
				fmt.Fprintln(&out, path)
				return err
			}
			data, err := os.ReadFile(path)
			fmt.Fprintf(&out, "%s %s %q\n", path, info.Mode(), data)
			return err
		})
		if err != nil {
			n.t.Fatal(err)
		}
	}
	return out.String()
}

// loaded returns a configuration of one plugin, as libcni reads it.
func loaded(t testing.TB, path string) *libcni.PluginConfig {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := libcni.NetworkPluginConfFromBytes(data)
	if err != nil {
		t.Fatal(path, err)
	}
	return conf
}
