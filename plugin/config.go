package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/sirupsen/logrus"
)

const (
	defaultAgentTimeout = 8 * time.Second
	maxAgentTimeout     = time.Minute

	// annotationsCapability is the key under which a runtime hands over a pod's annotations.
	annotationsCapability = "io.kubernetes.cri.pod-annotations"
)

// config is the plugin's configuration, read and checked.
type config struct {
	cniVersion string
	network    string
	prevResult json.RawMessage // nil if there is none
	// annotations of the pod; nil if the runtime did not hand any over, which is not the same as a pod without.
	annotations map[string]string
	// attachments are the valid ones of a GC call; nil if the key is missing.
	attachments *[]types.GCAttachment

	agentSocket         string // "": there is no agent
	agentTimeout        time.Duration
	statusRequiresAgent bool
	auxFailOpen         bool // leave a pod of unknown annotations alone while the agent does not answer
	stateDir            string
	backend             netfilter.Backend
	policy              redirect.Policy
	logLevel            logrus.Level
}

// fields are the top-level keys of a JSON object, taken one by one.
type fields map[string]json.RawMessage

// into decodes one key; absent and null leave the default.
func (f fields) into(key string, target any, valid string) error {
	raw, present := f[key]
	if !present || string(raw) == "null" {
		return nil
	}
	if err := json.Unmarshal(raw, target); err != nil {
		return invalid(key, string(raw), valid)
	}
	return nil
}

func invalid(key, value, valid string) error {
	const shown = 120
	if len(value) > shown {
		value = value[:shown] + "…"
	}
	return fmt.Errorf("%s: invalid value %s; valid: %s", key, value, valid)
}

// parseConfig reads the network configuration. With an error, the configuration holds the defaults for what was not
// read, which is enough for DEL.
func parseConfig(stdin []byte) (config, error) {
	c := config{
		agentSocket: facts.DefaultSocket, agentTimeout: defaultAgentTimeout, stateDir: record.DefaultDir,
		backend: netfilter.Auto, logLevel: logrus.InfoLevel,
		policy: redirect.DefaultPolicy(),
	}
	var f fields
	if err := json.Unmarshal(stdin, &f); err != nil {
		return c, fmt.Errorf("network configuration: not a JSON object: %w", err)
	}
	for _, step := range []func(fields) error{c.readState, c.readCNI, c.readAgent, c.readBackend, c.readPolicy} {
		if err := step(f); err != nil {
			return c, err
		}
	}
	return c, nil
}

// readState comes first: DEL needs nothing else.
func (c *config) readState(f fields) error {
	stateDir, level := c.stateDir, c.logLevel.String()
	if err := f.into("stateDir", &stateDir, "an absolute path"); err != nil {
		return err
	}
	if !filepath.IsAbs(stateDir) {
		return invalid("stateDir", fmt.Sprintf("%q", stateDir), "an absolute path")
	}
	c.stateDir = stateDir
	const validLevel = "debug, info, warning or error"
	if err := f.into("logLevel", &level, validLevel); err != nil {
		return err
	}
	parsed, err := logrus.ParseLevel(level)
	if err != nil || parsed == logrus.TraceLevel || parsed < logrus.ErrorLevel {
		return invalid("logLevel", fmt.Sprintf("%q", level), validLevel)
	}
	c.logLevel = parsed
	return nil
}

// readCNI reads the keys of the CNI specification and of the capability convention.
func (c *config) readCNI(f fields) error {
	c.cniVersion = "0.1.0" // what the specification makes of a missing version; skel then refuses it
	if err := f.into("cniVersion", &c.cniVersion, "a CNI version"); err != nil {
		return err
	}
	if err := f.into("name", &c.network, "a network name"); err != nil {
		return err
	}
	if err := f.into("cni.dev/valid-attachments", &c.attachments, "a list of {containerID, ifname}"); err != nil {
		return err
	}
	if raw, present := f["cni.dev/valid-attachments"]; present && string(raw) == "null" {
		c.attachments = &[]types.GCAttachment{}
	}
	if raw, present := f["prevResult"]; present && string(raw) != "null" {
		c.prevResult = raw
	}
	var runtime fields
	if err := f.into("runtimeConfig", &runtime, "an object"); err != nil {
		return err
	}
	raw, present := runtime[annotationsCapability]
	if !present {
		return nil
	}
	// containerd hands over null for a pod without annotations: known to be none.
	c.annotations = map[string]string{}
	const key = "runtimeConfig." + annotationsCapability
	return fields{key: raw}.into(key, &c.annotations, "an object of strings")
}

func (c *config) readAgent(f fields) error {
	const validSocket = `an absolute path of at most 107 bytes, or "" where there is no agent`
	if err := f.into("agentSocket", &c.agentSocket, validSocket); err != nil {
		return err
	}
	const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1
	if c.agentSocket != "" && (!filepath.IsAbs(c.agentSocket) || len(c.agentSocket) > maxPath) {
		return invalid("agentSocket", fmt.Sprintf("%q", c.agentSocket), validSocket)
	}
	c.policy.Agent = c.agentSocket != ""
	const validTimeout = "a duration from 1ms to 1m, such as 8s"
	timeout := c.agentTimeout.String()
	if err := f.into("agentTimeout", &timeout, validTimeout); err != nil {
		return err
	}
	parsed, err := time.ParseDuration(timeout)
	if err != nil || parsed < time.Millisecond || parsed > maxAgentTimeout {
		return invalid("agentTimeout", fmt.Sprintf("%q", timeout), validTimeout)
	}
	c.agentTimeout = parsed
	if err := f.into("auxFailOpen", &c.auxFailOpen, "true or false"); err != nil {
		return err
	}
	return f.into("statusRequiresAgent", &c.statusRequiresAgent, "true or false")
}

func (c *config) readBackend(f fields) error {
	name := string(c.backend)
	if err := f.into("backend", &name, "auto, nftables or iptables"); err != nil {
		return err
	}
	var err error
	c.backend, err = netfilter.ParseBackend(name)
	return err
}

func (c *config) readPolicy(f fields) error {
	agent := c.policy.Agent
	var err error
	c.policy, err = redirect.ParsePolicy(f)
	c.policy.Agent = agent
	return err
}

// podOf reads which pod the call is for from CNI_ARGS, `KEY=VALUE;KEY=VALUE`. Keys that are not ours are not our
// business. A call for something else than a pod gives an empty name.
func podOf(cniArgs string) (redirect.Pod, error) {
	var pod redirect.Pod
	for _, pair := range strings.Split(cniArgs, ";") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return pod, fmt.Errorf("CNI_ARGS: invalid value %q: %q has no =; valid: KEY=VALUE;KEY=VALUE", cniArgs, pair)
		}
		switch strings.TrimSpace(key) {
		case "K8S_POD_NAMESPACE":
			pod.Namespace = value
		case "K8S_POD_NAME":
			pod.Name = value
		case "K8S_POD_UID":
			pod.UID = value
		}
	}
	return pod, nil
}
