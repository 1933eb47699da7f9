package shapes

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/record"
	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// host is the root directory of a node. The runtime sees nothing else.
type host struct {
	testing.TB
	root            string
	binDir, confDir string // the runtime's
	network         string // of the pods
	number          int    // part of its addresses
	agents          *appsv1.DaemonSet
	container       string // the agent's root directory
}

func newHost(t testing.TB) *host {
	h := &host{TB: t, root: filepath.Join(t.TempDir(), "root"), number: int(nodes.Add(1)), binDir: "/opt/cni/bin",
		confDir: "/etc/cni/net.d", agents: &appsv1.DaemonSet{}}
	h.mount("tmpfs", "", "tmpfs", 0, "mode=755")
	h.mount("proc", "proc", "proc", 0, "")
	h.mount("tmpfs", "run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
	h.dirs("var/lib/cni")
	h.link("../run", "var/run")
	h.dirs("run/netns")
	h.copy("cnitool", "cnitool")
	return h
}

func (h *host) path(path string) string { return filepath.Join(h.root, path) }

func (h *host) dirs(paths ...string) {
	h.Helper()
	for _, path := range paths {
		await.Must(h, os.MkdirAll(h.path(path), 0o755))
	}
}

func (h *host) link(target, path string) {
	h.Helper()
	h.dirs(filepath.Dir(path))
	await.Must(h, os.Symlink(target, h.path(path)))
}

// relink replaces a link atomically.
func (h *host) relink(target, path string) {
	h.Helper()
	h.link(target, path+".new")
	await.Must(h, os.Rename(h.path(path+".new"), h.path(path)))
}

// mount makes a mount until the end of the test. It is shared, as systemd makes mounts.
func (h *host) mount(source, path, kind string, flags uintptr, options string) {
	h.Helper()
	h.dirs(path)
	if err := unix.Mount(source, h.path(path), kind, flags, options); err != nil {
		h.Fatalf("mounting %s: %v", path, err)
	}
	h.Cleanup(func() { _ = unix.Unmount(h.path(path), unix.MNT_DETACH) })
}

// unshared makes mounts private, as without systemd.
func (h *host) unshared(path string) {
	h.Helper()
	await.Must(h, unix.Mount("", h.path(path), "", unix.MS_PRIVATE, ""))
}

// copy copies a program of the tests to a path.
func (h *host) copy(program, path string) {
	h.Helper()
	h.dirs(filepath.Dir(path))
	data, err := os.ReadFile(filepath.Join(isolated.BinDir(), program))
	await.Must(h, err)
	await.Must(h, os.WriteFile(h.path(path), data, 0o755))
}

// plugins installs reference plugins under a platform's names: name=program.
func (h *host) plugins(dir string, names ...string) {
	h.Helper()
	for _, name := range names {
		name, program, named := strings.Cut(name, "=")
		if !named {
			program = name
		}
		h.copy(program, filepath.Join(dir, name))
	}
}

// conf writes the list of the pods' network, with these plugins. The first one assigns addresses.
func (h *host) conf(file, version, name, ipam string, types ...string) {
	h.Helper()
	plugins := []string{fmt.Sprintf(`{"type": %q, "bridge": "cni%d", "ipam": {"type": %q, "dataDir": "/run/ipam",
		"ranges": [[{"subnet": "10.91.%d.0/24"}]]}}`, types[0], h.number, ipam, h.number)}
	for _, kind := range types[1:] {
		plugins = append(plugins, fmt.Sprintf(`{"type": %q, "capabilities": {"portMappings": true}}`, kind))
	}
	text := fmt.Sprintf("{\"cniVersion\": %q,\n \"name\": %q, \"plugins\": [\n%s]}\n", version, name,
		strings.Join(plugins, ",\n"))
	h.network = name
	h.write(filepath.Join(h.confDir, file), text)
}

// write writes a file into an existing directory.
func (h *host) write(path, text string) {
	h.Helper()
	dir, err := h.resolve(filepath.Dir(path), true)
	await.Must(h, err)
	await.Must(h, os.WriteFile(filepath.Join(dir, filepath.Base(path)), []byte(text), 0o644))
}

// own gives directories and their files to another user and group.
func (h *host) own(uid, gid int, dirMode, fileMode os.FileMode, dirs ...string) {
	h.Helper()
	for _, dir := range dirs {
		await.Must(h, filepath.WalkDir(h.path(dir), func(path string, e os.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case e.IsDir():
				err = os.Chmod(path, dirMode)
			case fileMode != 0:
				err = os.Chmod(path, fileMode)
			}
			return errors.Join(err, os.Lchown(path, uid, gid))
		}))
	}
}

// resolve returns where a path of the host leads to, without symbolic links.
func (h *host) resolve(path string, create bool) (string, error) {
	dir, err := unix.Open(h.root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(dir)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(dir, path, &how)
	if err == nil {
		defer unix.Close(fd)
		return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	if !create || !errors.Is(err, unix.ENOENT) {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	parent, err := h.resolve(filepath.Dir(path), true)
	if err != nil {
		return "", err
	}
	made := filepath.Join(parent, filepath.Base(path))
	return made, os.Mkdir(made, 0o755)
}

// deploy makes the agent's container as the kubelet and the runtime do, with the same errors.
func (h *host) deploy(agents *appsv1.DaemonSet, entry string) error {
	h.Helper()
	h.agents, h.container = agents, filepath.Join(h.TempDir(), "container")
	volumes := map[string]*corev1.HostPathVolumeSource{}
	for _, v := range agents.Spec.Template.Spec.Volumes {
		volumes[v.Name] = v.HostPath
	}
	dirs := []string{"proc", "etc/istio-pod-network"}
	for _, dir := range dirs {
		await.Must(h, os.MkdirAll(filepath.Join(h.container, dir), 0o755))
	}
	await.Must(h, os.WriteFile(filepath.Join(h.container, "etc/istio-pod-network/network.json"), []byte(entry), 0o644))
	for _, program := range []string{plugin, "istio-pod-network-install"} {
		data, err := os.ReadFile(filepath.Join(isolated.BinDir(), program))
		await.Must(h, err)
		await.Must(h, os.WriteFile(filepath.Join(h.container, program), data, 0o755))
	}
	if err := h.mountIn("/proc", "/proc", true, ""); err != nil {
		return err
	}
	mounts := agents.Spec.Template.Spec.Containers[0].VolumeMounts
	slices.SortStableFunc(mounts, func(a, b corev1.VolumeMount) int { // containerd: opts.orderedMounts
		return strings.Count(a.MountPath, "/") - strings.Count(b.MountPath, "/")
	})
	for _, m := range mounts {
		volume := volumes[m.Name]
		if volume == nil {
			continue
		}
		source, err := h.resolve(volume.Path, *volume.Type == corev1.HostPathDirectoryOrCreate)
		if err != nil {
			return err
		}
		propagation := corev1.MountPropagationNone
		if m.MountPropagation != nil {
			propagation = *m.MountPropagation
		}
		if err := h.mountIn(source, m.MountPath, m.ReadOnly, propagation); err != nil {
			return err
		}
	}
	return nil
}

// mountIn mounts a directory in the container until the end of the test. The runtime rejects mount propagation if the
// host does not share the mount (containerd: internal/cri/opts/spec_linux_opts.go, ensureSharedOrSlave).
func (h *host) mountIn(source, path string, readOnly bool, propagation corev1.MountPropagationMode) error {
	target := filepath.Join(h.container, path)
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	kind := uintptr(unix.MS_PRIVATE)
	if propagation == corev1.MountPropagationHostToContainer {
		if at, shared := mountOf(h, source); !shared {
			return fmt.Errorf("path %q is mounted on %q but it is not a shared or slave mount", source, at)
		}
		kind = unix.MS_SLAVE
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	h.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	if err := unix.Mount("", target, "", kind|unix.MS_REC, ""); err != nil || !readOnly {
		return err
	}
	return unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

// mountOf returns the mount point of a path, and whether the mount is shared or a slave (proc_pid_mountinfo(5)).
func mountOf(t testing.TB, path string) (at string, shared bool) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	await.Must(t, err)
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		fields := strings.Fields(line)
		if point := strings.TrimSuffix(fields[4], "/"); strings.HasPrefix(path+"/", point+"/") && len(fields[4]) >= len(at) {
			at = fields[4]
			shared = strings.HasPrefix(fields[6], "shared:") || strings.HasPrefix(fields[6], "master:")
		}
	}
	return at, shared
}

// installs are the agent's flags that the installer has, too.
var installs = []string{"--network-config", "--mode", "--bin-dir", "--runtime-bin-dir", "--conf-dir", "--primary",
	"--aux-dir", "--drop-in", "--runtime-version"}

// arg returns the value of one of the agent's flags, "" if it is not set.
func (h *host) arg(name string) string {
	for _, c := range h.agents.Spec.Template.Spec.Containers {
		for _, arg := range c.Args {
			if value, is := strings.CutPrefix(arg, name+"="); is {
				return value
			}
		}
	}
	return ""
}

// install runs the installer in the agent's container, with the agent's flags from the chart.
func (h *host) install(command string) (int, string) {
	h.Helper()
	capabilities := "-all,+sys_chroot"
	for _, c := range h.agents.Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add {
		capabilities += ",+" + strings.ToLower(string(c))
	}
	args := []string{"--bounding-set", capabilities, "--inh-caps", "-all", "--no-new-privs", "chroot", h.container,
		"/istio-pod-network-install", command, "--source=/" + plugin}
	for _, name := range installs {
		if value := h.arg(name); value != "" {
			args = append(args, name+"="+value)
		}
	}
	cmd := exec.Command("setpriv", args...)
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		h.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// cni calls the plugins of a network on the host, as the runtime does.
func (h *host) cni(command string, a attachment, netns, annotations string) error {
	cmd := exec.Command("chroot", h.root, "/cnitool", command, a.network, netns)
	cmd.Env = []string{"NETCONFPATH=" + a.confDir, "CNI_PATH=" + h.binDir, "CNI_IFNAME=" + a.ifName,
		"CAP_ARGS=" + `{"io.kubernetes.cri.pod-annotations": ` + annotations + `}`,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;" +
			"K8S_POD_UID=5f5b6a0e-0000-4000-8000-000000000001"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s of %s: %w: %s", command, a.network, err, out)
	}
	return nil
}

// installed installs the plugin and checks that the node is ready.
func (h *host) installed() {
	h.Helper()
	status, said := h.install("install")
	if again, table := h.install("status"); status != 0 || again != 0 || !strings.Contains(table, "ready       yes") {
		h.Errorf("install ends with %d: %s\nstatus with %d: %s", status, said, again, table)
	}
}

// attachment is one of a pod's networks.
type attachment struct{ confDir, network, ifName string }

// attachments returns the networks of a pod: that of the host, and in mode nad also ours for a mesh pod.
func (h *host) attachments(annotations string) []attachment {
	all := []attachment{{h.confDir, h.network, "eth0"}}
	if dir := h.arg("--conf-dir"); h.arg("--mode") == "nad" && annotations != plainPod {
		if _, err := os.Stat(filepath.Join(h.path(dir), plugin+".conf")); err == nil {
			all = append(all, attachment{dir, plugin, "net1"})
		}
	}
	return all
}

// start makes and ends a pod, and reports whether it had rules. Its network namespace is pinned in the runtime's
// directory. If the agent uses that directory, the agent must see it there.
func (h *host) start(name, annotations string) (redirected bool, err error) {
	h.Helper()
	netns := "/var/run/netns/cni-" + name
	await.Must(h, isolated.NewNetNS(h.path(netns)))
	defer func() { await.Must(h, isolated.RemoveNetNS(h.path(netns))) }()
	networks := h.attachments(annotations)
	for _, n := range networks {
		if err := h.cni("add", n, netns, annotations); err != nil {
			return false, err
		}
	}
	if dir := h.arg("--netns-dir"); dir != "" {
		var here, there unix.Stat_t
		await.Must(h, unix.Stat(h.path(netns), &here))
		err := unix.Stat(filepath.Join(h.container, dir, filepath.Base(netns)), &there)
		if err != nil || here.Dev != there.Dev || here.Ino != there.Ino {
			h.Errorf("the agent does not see the network namespace in %s: %v", dir, err)
		}
	}
	records, problems := record.Store{Dir: h.path("run/istio-pod-network")}.List()
	err = isolated.InNetNS(h.path(netns), func() error {
		out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		redirected = strings.Contains(string(out), "table ip "+plugin)
		return err
	})
	if redirected != (len(records) > 0) || len(problems) > 0 {
		err = errors.Join(err, fmt.Errorf("redirected %v, records %v %v", redirected, records, problems))
	}
	for _, n := range slices.Backward(networks) {
		err = errors.Join(err, h.cni("del", n, netns, annotations))
	}
	return redirected, err
}

const (
	meshPod  = `{"sidecar.istio.io/status": "{}"}`
	plainPod = `{}`
)

// starts fails the test unless pods start, those of the mesh with or without rules as wanted.
func (h *host) starts(when string, redirected bool) {
	h.Helper()
	for name, annotations := range map[string]string{"mesh": meshPod, "plain": plainPod} {
		got, err := h.start(name+"-"+when, annotations)
		if err != nil {
			h.Errorf("%s: the pod %s does not start: %v", when, name, err)
		} else if want := redirected && name == "mesh"; got != want {
			h.Errorf("%s: the pod %s is redirected: %v, want %v", when, name, got, want)
		}
	}
}
