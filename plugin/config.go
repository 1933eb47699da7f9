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

// annotationsCapability is the key under which a runtime hands over a pod's annotations.
const annotationsCapability = "io.kubernetes.cri.pod-annotations"

// config is one call's configuration, read and checked: the operator's entry, and what the runtime has added to it.
type config struct {
	entry.Settings
	logLevel   logrus.Level
	cniVersion string
	network    string
	prevResult json.RawMessage // nil if there is none
	// annotations of the pod; nil if the runtime did not hand any over, which is not the same as a pod without.
	annotations map[string]string
	// attachments are the valid ones of a GC call; nil if the key is missing.
	attachments *[]types.GCAttachment
}

// parseConfig reads the network configuration. With an error, the configuration holds the defaults for what was not
// read, which is enough for DEL.
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

// readCNI reads the keys of the CNI specification and of the capability convention.
func (c *config) readCNI(keys entry.Keys) error {
	if err := keys.Into("cniVersion", &c.cniVersion, "a CNI version"); err != nil {
		return err
	}
	c.cniVersion = cmp.Or(c.cniVersion, "0.1.0") // what the specification makes of none
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
	// containerd hands over null for a pod without annotations: known to be none.
	c.annotations = map[string]string{}
	const key = "runtimeConfig." + annotationsCapability
	return entry.Keys{key: raw}.Into(key, &c.annotations, "an object of strings")
}

// renewArg is the key in CNI_ARGS by which an ADD is asked to renew. No runtime has it, and no pod can set it.
const renewArg = "ISTIO_POD_NETWORK_RENEW"

// podOf reads which pod the call is for from CNI_ARGS, `KEY=VALUE;KEY=VALUE`, and whether an ADD renews its rules. Keys
// that are not ours are not our business. A call for something else than a pod gives an empty name.
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
