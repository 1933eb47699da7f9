package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/istio-pod-network/controller/conformance/crio/wire"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

// ifName is the interface of a pod.
const ifName = "eth0"

// annotations is the key of runtimeConfig with the pod's annotations.
const annotations = "io.kubernetes.cri.pod-annotations"

// run makes a sandbox: ADD with the present default network, then CHECK with the configuration that libcni cached. If
// something fails, it calls DEL.
func (r *runtime) run(ctx context.Context, pod wire.Pod) (wire.Sandbox, error) {
	list := r.current()
	if list == nil {
		return wire.Sandbox{}, fmt.Errorf("no CNI configuration in %s", r.config.ConfDir)
	}
	s := wire.Sandbox{ID: random(32), Pod: pod, NetNS: filepath.Join(r.config.NetNSDir, random(16))}
	if err := isolated.NewNetNS(s.NetNS); err != nil {
		return s, err
	}
	r.keep(&s)
	_, err := r.cni.AddNetworkList(ctx, list, r.conf(s))
	if err != nil {
		err = addFailed(s, list.Name, err)
	}
	if err == nil {
		s.Addresses, err = r.check(ctx, s)
	}
	if err != nil {
		err = errors.Join(err, r.stop(ctx, s.ID))
		return s, err
	}
	r.keep(&s)
	return s, nil
}

// random returns that many random bytes in hexadecimal.
func random(bytes int) string {
	text := make([]byte, bytes)
	_, _ = rand.Read(text)
	return hex.EncodeToString(text)
}

// conf returns the runtime configuration that plugins get at ADD.
func (r *runtime) conf(s wire.Sandbox) *libcni.RuntimeConf {
	capabilities := map[string]any{"cgroupPath": "/kubepods.slice/" + s.Pod.UID}
	if r.config.Minor >= relaysAnnotations {
		capabilities[annotations] = s.Pod.Annotations
	}
	return &libcni.RuntimeConf{
		ContainerID: s.ID, NetNS: s.NetNS, IfName: ifName, CapabilityArgs: capabilities,
		Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", s.Pod.Namespace}, {"K8S_POD_NAME", s.Pod.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", s.ID}, {"K8S_POD_UID", s.Pod.UID},
		},
	}
}

// cached returns the network that libcni cached for the sandbox, without what drop-ins added. If it has not cached any,
// it returns the loaded network of that name.
func (r *runtime) cached(s wire.Sandbox, name string) (*libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	rt := r.conf(s)
	data, kept, err := r.cni.GetNetworkListCachedConfig(&libcni.NetworkConfigList{Name: name}, rt)
	if err == nil && data != nil {
		list, err := libcni.ConfListFromBytes(data)
		return list, kept, err
	}
	if list := r.named(name); list != nil {
		return list, rt, nil
	}
	return nil, nil, fmt.Errorf("there is no network %q", name)
}

// attached returns the names of the networks that libcni has cached for the sandbox, and the cache's files.
func (r *runtime) attached(id string) (names, files []string) {
	found, _ := filepath.Glob(filepath.Join(r.config.CacheDir, "results", "*-"+id+"-*"))
	for _, file := range found {
		var kept struct {
			Kind        string
			ContainerID string `json:"containerId"`
			NetworkName string
		}
		data, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(data, &kept)
		}
		if err == nil && kept.Kind == libcni.CNICacheV1 && kept.ContainerID == id && kept.NetworkName != "" {
			names, files = append(names, kept.NetworkName), append(files, file)
		}
	}
	return names, files
}

// check calls CHECK of the present default network, if its CNI version has CHECK. It returns the addresses of the
// cached result.
func (r *runtime) check(ctx context.Context, s wire.Sandbox) (addresses []string, err error) {
	_, name := r.all()
	list, rt, err := r.cached(s, name)
	if err != nil {
		return nil, err
	}
	if checks, err := version.GreaterThanOrEqualTo(list.CNIVersion, "0.4.0"); err == nil && checks {
		if err := r.cni.CheckNetworkList(ctx, list, rt); err != nil {
			return nil, checkFailed(s, name, err)
		}
	}
	kept, err := r.cni.GetNetworkListCachedResult(list, rt)
	if err != nil || kept == nil {
		return nil, err
	}
	result, err := current.NewResultFromResult(kept)
	if err != nil {
		return nil, err
	}
	for _, ip := range result.IPs {
		addresses = append(addresses, ip.Address.IP.String())
	}
	return addresses, nil
}

// stop calls DEL and removes the sandbox. If DEL fails, the sandbox stays. CRI-O 1.34 and later ignore that when stop
// is called again.
func (r *runtime) stop(ctx context.Context, id string) error {
	r.mu.Lock()
	kept := r.sandboxes[id]
	r.mu.Unlock()
	if kept == nil {
		return nil // success, as the kubelet expects
	}
	s := *kept
	names, files := r.attached(id)
	err := r.del(ctx, s, names)
	if err != nil && (r.config.Minor < forgets || !s.Failed) {
		s.Failed = true
		r.keep(&s)
		return fmt.Errorf("DEL of sandbox %s: %w", id, err)
	}
	if err != nil {
		for _, file := range files {
			_ = os.Remove(file)
		}
	}
	if err := isolated.RemoveNetNS(s.NetNS); err != nil {
		return err
	}
	r.drop(id)
	return nil
}

// del calls DEL of the named networks. Without names, it calls DEL of the present default network.
func (r *runtime) del(ctx context.Context, s wire.Sandbox, names []string) error {
	if len(names) == 0 {
		_, name := r.all()
		names = []string{name}
	}
	for _, name := range names {
		list, rt, err := r.cached(s, name)
		if err == nil {
			err = r.cni.DelNetworkList(ctx, list, rt)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
