package cni

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
)

// tools are the programs beside the plugin, at the versions go.mod pins.
var tools = []string{
	"github.com/containernetworking/cni/cnitool",
	"github.com/containernetworking/plugins/plugins/ipam/host-local",
	"github.com/containernetworking/plugins/plugins/main/bridge",
	"github.com/containernetworking/plugins/plugins/main/loopback",
	"github.com/containernetworking/plugins/plugins/main/ptp",
}

// buildAll fills bin, which becomes CNI_PATH, with the tools and the plugin.
func buildAll(bin string) error {
	cache, err := buildTools()
	if err != nil {
		return err
	}
	for _, tool := range tools {
		name := path.Base(tool)
		if err := os.Symlink(filepath.Join(cache, name), filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	plugin := filepath.Join(bin, pluginType)
	if prebuilt := os.Getenv(pluginEnv); prebuilt != "" {
		prebuilt, err := filepath.Abs(prebuilt)
		if err != nil {
			return err
		}
		return os.Symlink(prebuilt, plugin)
	}
	_, err = goTool("build", "-C", filepath.Join("..", ".."), "-trimpath", "-ldflags", "-s -w", "-o", plugin, "./plugin")
	return err
}

// buildTools builds the tools once per version into the user's cache directory, outside the repository, and returns
// the directory. It appears by a rename, so an interrupted build leaves none.
func buildTools() (string, error) {
	versions, err := goTool("list", "-m", "-f", "{{.Version}}",
		"github.com/containernetworking/cni", "github.com/containernetworking/plugins")
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	parent := filepath.Join(cache, "istio-pod-network")
	dir := filepath.Join(parent, "cni-"+strings.Join(append(strings.Fields(versions), runtime.Version()), "-"))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(parent, "building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	if err := os.Chmod(temp, 0o755); err != nil {
		return "", err
	}
	if _, err := goTool(append([]string{"build", "-o", temp + "/"}, tools...)...); err != nil {
		return "", err
	}
	if err := os.Rename(temp, dir); err != nil && !os.IsExist(err) {
		return "", err
	}
	return dir, nil
}

func goTool(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}
