package plugin

import (
	"cmp"
	"encoding/json"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/excerpt"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/sirupsen/logrus"
)

// annotationsCapability is the key of runtimeConfig under which a runtime passes the pod's annotations.
const annotationsCapability = "io.kubernetes.cri.pod-annotations"

// config is the parsed and validated configuration of one call: the operator's entry, and what the runtime added to it.
type config struct {
	entry.Settings
	logLevel   logrus.Level
	cniVersion string
	network    string
	prevResult json.RawMessage // nil if there is none
	// annotations of the pod. nil means that the runtime passed none; an empty map means that the pod has none.
	annotations map[string]string
	// attachments are the valid attachments of a GC call; nil if the key is missing.
	attachments *[]types.GCAttachment
}

// parseConfig parses the network configuration. With an error, what could not be read has its default, which is enough
// for DEL.
func parseConfig(stdin []byte) (config, error) {
	c := config{Settings: entry.DefaultSettings(), logLevel: logrus.InfoLevel}
	keys, err := entry.Decode(stdin)
	if err != nil {
		return c, err
	}
	c.Settings, err = keys.Settings()
	if level, unknown := logrus.ParseLevel(c.LogLevel); unknown == nil {
		c.logLevel = level
	}
	return c, cmp.Or(c.readCNI(keys), err)
}

// readCNI reads the keys of the CNI specification and runtimeConfig, the keys of the capability convention
// (https://www.cni.dev/docs/conventions/).
func (c *config) readCNI(keys entry.Keys) error {
	if err := keys.Into("cniVersion", &c.cniVersion, "a CNI version"); err != nil {
		return err
	}
	c.cniVersion = cmp.Or(c.cniVersion, "0.1.0") // the specification's default for a configuration without a version
	if err := keys.Into("name", &c.network, "a network name"); err != nil {
		return err
	}
	if err := keys.Into("cni.dev/valid-attachments", &c.attachments, "a list of {containerID, ifname}"); err != nil {
		return err
	}
	if raw, present := keys["cni.dev/valid-attachments"]; present && string(raw) == "null" {
		c.attachments = &[]types.GCAttachment{}
	}
	if raw, present := keys["prevResult"]; present && string(raw) != "null" {
		c.prevResult = raw
	}
	var runtime entry.Keys
	if err := keys.Into("runtimeConfig", &runtime, "an object"); err != nil {
		return err
	}
	raw, present := runtime[annotationsCapability]
	if !present {
		return nil
	}
	// containerd passes null for a pod without annotations: it is known that there are none.
	c.annotations = map[string]string{}
	const key = "runtimeConfig." + annotationsCapability
	return entry.Keys{key: raw}.Into(key, &c.annotations, "an object of strings")
}

// renewArg is the key in CNI_ARGS that makes an ADD a renewal. No runtime sets it, and a pod cannot.
const renewArg = "ISTIO_POD_NETWORK_RENEW"

// podOf parses CNI_ARGS (`KEY=VALUE;KEY=VALUE`). It returns the pod's namespace, name and UID, and whether ADD is a
// renewal. Unknown keys are ignored. Without a pod in CNI_ARGS the name is empty.
func podOf(cniArgs string) (pod redirect.Pod, renew bool, err error) {
	for _, pair := range strings.Split(cniArgs, ";") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return pod, false, invalid.Text("CNI_ARGS", cniArgs, excerpt.Quote(pair)+" has no =", "KEY=VALUE;KEY=VALUE")
		}
		switch strings.TrimSpace(key) {
		case "K8S_POD_NAMESPACE":
			pod.Namespace = value
		case "K8S_POD_NAME":
			pod.Name = value
		case "K8S_POD_UID":
			pod.UID = value
		case renewArg:
			if renew = value == "true"; !renew {
				return pod, false, invalid.Text(renewArg, value, "", "true, or nothing")
			}
		}
	}
	return pod, renew, nil
}
