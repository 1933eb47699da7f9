package patrol

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/files"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
)

// maxCached limits a file of libcni's cache in bytes. It has the network's configuration, and up to 256 KiB of
// annotations.
const maxCached = 4 << 20

// sandbox is a pod's network as the container runtime has set it up, with everything that an ADD of the plugin needs.
type sandbox struct {
	containerID, ifName, network string
	netns                        string // path
	args                         string // CNI_ARGS
	pod                          string // from the runtime: the UID, or namespace/name
	result                       json.RawMessage
	addresses                    []netip.Addr
	version                      string // CNI version of the result, which is that of the network
	made                         time.Time
	// annotations of the pod that a decision reads, as the runtime passed them to the plugins. They are nil if it
	// passed none (CRI-O before 1.29).
	annotations map[string]string
}

// sandboxes reads libcni's cache, which containerd and CRI-O use: libcni writes one file per sandbox and interface
// after an ADD of the whole chain (containernetworking/cni libcni/api.go, cachedInfo). So the agent needs no access to
// the runtime's socket, which would give it full control of the node, and none to other processes.
type sandboxes struct {
	dir   string // libcni's cache
	netns string // the directory in which the runtime has the network namespaces
	read  map[string]readFile
}

// readFile is what a file contained when it was read.
type readFile struct {
	size    int64
	sandbox sandbox
}

// all returns every sandbox that can be read. A file that is incomplete is read in the next round. An unchanged file is
// not read again.
func (s *sandboxes) all() ([]sandbox, error) {
	dir := filepath.Join(s.dir, "results")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading libcni's cache: %w", err)
	}
	var all []sandbox
	before := s.read
	s.read = map[string]readFile{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		known := before[e.Name()]
		if known.size != info.Size() || !known.sandbox.made.Equal(info.ModTime()) {
			data, err := files.ReadNoFollow(filepath.Join(dir, e.Name()), maxCached)
			if err != nil {
				continue
			}
			if known.sandbox, err = parse(data); err != nil {
				continue
			}
			known.size, known.sandbox.made = info.Size(), info.ModTime()
		}
		s.read[e.Name()] = known
		all = append(all, known.sandbox)
	}
	return all, nil
}

// parse parses a file of the cache.
func parse(data []byte) (sandbox, error) {
	var cached struct {
		Kind        string          `json:"kind"`
		ContainerID string          `json:"containerId"`
		IfName      string          `json:"ifName"`
		NetworkName string          `json:"networkName"`
		NetNS       string          `json:"netns"` // since libcni 1.2
		Args        [][2]string     `json:"cniArgs"`
		Result      json.RawMessage `json:"result"`
		Given       struct {
			Annotations json.RawMessage `json:"io.kubernetes.cri.pod-annotations"`
		} `json:"capabilityArgs"`
	}
	var result struct {
		CNIVersion string `json:"cniVersion"`
		Interfaces []struct {
			Name    string `json:"name"`
			Sandbox string `json:"sandbox"`
		} `json:"interfaces"`
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
		IP4, IP6 struct{ IP netip.Prefix } // before CNI 0.3.0
	}
	if err := json.Unmarshal(data, &cached); err != nil {
		return sandbox{}, err
	}
	if err := json.Unmarshal(cached.Result, &result); err != nil {
		return sandbox{}, err
	}
	sb := sandbox{
		containerID: cached.ContainerID, ifName: cached.IfName, network: cached.NetworkName, netns: cached.NetNS,
		result: cached.Result, version: result.CNIVersion,
	}
	for _, i := range result.Interfaces {
		if sb.netns == "" && i.Name == sb.ifName {
			sb.netns = i.Sandbox
		}
	}
	for _, ip := range result.IPs {
		sb.addresses = append(sb.addresses, ip.Address.Addr())
	}
	for _, ip := range []netip.Prefix{result.IP4.IP, result.IP6.IP} {
		if ip.IsValid() {
			sb.addresses = append(sb.addresses, ip.Addr())
		}
	}
	sb.identify(cached.Args)
	sb.annotate(cached.Given.Annotations)
	switch {
	case cached.Kind != "cniCacheV1":
		return sb, fmt.Errorf("it is of the kind %q", cached.Kind)
	case sb.pod == "" || sb.containerID == "" || sb.ifName == "" || sb.network == "":
		return sb, errors.New("it is not about a pod")
	case strings.ContainsRune(sb.containerID+sb.ifName+sb.args, 0):
		return sb, errors.New("it cannot be an environment")
	}
	return sb, nil
}

// identify reads the pod from the CNI_ARGS.
func (s *sandbox) identify(args [][2]string) {
	values := map[string]string{}
	var pairs []string
	for _, a := range args {
		values[a[0]] = a[1]
		pairs = append(pairs, a[0]+"="+a[1])
	}
	s.args = strings.Join(pairs, ";")
	s.pod = values["K8S_POD_UID"]
	if s.pod == "" && values["K8S_POD_NAME"] != "" {
		s.pod = values["K8S_POD_NAMESPACE"] + "/" + values["K8S_POD_NAME"]
	}
}

// annotate reads the annotations; null means that the pod has none.
func (s *sandbox) annotate(given json.RawMessage) {
	var all map[string]string
	if given != nil && json.Unmarshal(given, &all) == nil {
		s.annotations = kube.Decisive(all)
	}
}

// path returns the path by which the agent sees the network namespace. It returns an error if that is not where the
// runtime has those of pods: an ADD must not run on whatever a file names. The namespace must be in the agent's
// configured directory, with /run and /var/run treated as equal: usually one is a link to the other, which the agent's
// container lacks. If they differ (Talos, k3d), only the configured directory is known to have the runtime's
// namespaces.
func (s *sandboxes) path(sb sandbox) (string, error) {
	dir, name := filepath.Split(filepath.Clean(sb.netns))
	if sb.netns == "" || inRun(dir) != inRun(s.netns) {
		return "", fmt.Errorf("its network namespace %q is not in %s", sb.netns, s.netns)
	}
	path := filepath.Join(s.netns, name)
	if _, err := os.Lstat(path); err != nil {
		return "", err
	}
	return path, nil
}

// inRun returns a directory in /var/run by its name in /run.
func inRun(dir string) string {
	dir = filepath.Clean(dir)
	if below, ok := strings.CutPrefix(dir, "/var/run/"); ok {
		return "/run/" + below
	}
	return dir
}

// of returns the newest sandbox of a pod whose network namespace still exists, and that has the address in the pod's
// status.
func (s *sandboxes) of(pod *corev1.Pod, all []sandbox) (found sandbox, path string, err error) {
	ids := kube.IDs(pod)
	err = fmt.Errorf("the container runtime's cache in %s knows no network of it", s.dir)
	for _, candidate := range all {
		if !candidate.isOf(pod, ids) || path != "" && candidate.made.Before(found.made) {
			continue
		}
		if where, failed := s.path(candidate); failed == nil {
			found, path, err = candidate, where, nil
		} else if path == "" {
			err = failed
		}
	}
	return found, path, err
}

// recorded returns the sandbox of a record, and the path of its network namespace.
func (s *sandboxes) recorded(r record.Record) (sandbox, string, error) {
	all, err := s.all()
	if err != nil {
		return sandbox{}, "", err
	}
	for _, candidate := range all {
		if candidate.containerID == r.ContainerID && candidate.ifName == r.IfName {
			path, err := s.path(candidate)
			return candidate, path, err
		}
	}
	return sandbox{}, "", fmt.Errorf("the container runtime's cache in %s does not know it", s.dir)
}

// attached is recorded, also for an attachment by Multus, which is not in the runtime's cache: it is in the network
// namespace of the sandbox that is.
func (s *sandboxes) attached(r record.Record) (sandbox, string, error) {
	found, path, err := s.recorded(r)
	if err == nil || found.ifName != "" {
		return found, path, err
	}
	all, failed := s.all()
	if failed != nil {
		return sandbox{}, "", failed
	}
	for _, candidate := range all {
		if candidate.containerID == r.ContainerID {
			candidate.ifName, candidate.network = r.IfName, r.Network
			path, err := s.path(candidate)
			return candidate, path, err
		}
	}
	return sandbox{}, "", err
}

// annotationsOf returns the annotations that the pod had when it got its current network.
func annotationsOf(pod *corev1.Pod, all []sandbox) (annotations map[string]string, known bool) {
	ids := kube.IDs(pod)
	var newest sandbox
	for _, candidate := range all {
		if candidate.isOf(pod, ids) && candidate.made.After(newest.made) {
			newest = candidate
		}
	}
	return newest.annotations, newest.annotations != nil
}

// isOf reports whether the sandbox belongs to the pod, given the pod's IDs, and has its address.
func (s sandbox) isOf(pod *corev1.Pod, ids []string) bool {
	return slices.Contains(ids, s.pod) && s.has(pod.Status.PodIPs)
}

// has reports whether the sandbox has one of the addresses. It returns true if the result of its network has no
// address.
func (s sandbox) has(ips []corev1.PodIP) bool {
	for _, ip := range ips {
		for _, a := range s.addresses {
			if parsed, err := netip.ParseAddr(ip.IP); err == nil && parsed == a {
				return true
			}
		}
	}
	return len(s.addresses) == 0
}
