package check

import (
	"cmp"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/chart"
	"github.com/istio-pod-network/controller/internal/invalid"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// values are the chart's values that say what an agent needs on a node. Others are ignored.
type values struct {
	Distribution string `json:"kubernetesDistribution"`
	Image        struct {
		Registry   string            `json:"registry"`
		Repository string            `json:"repository"`
		Tag        string            `json:"tag"`
		Digest     string            `json:"digest"`
		PullPolicy corev1.PullPolicy `json:"pullPolicy"`
	} `json:"image"`
	PluginImage struct {
		Repository string `json:"repository"`
		Tag        string `json:"tag"`
		Digest     string `json:"digest"`
	} `json:"pluginImage"`
	PullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets"`
	CNI         struct {
		BinDir         string   `json:"binDir"`
		ConfDir        string   `json:"confDir"`
		AuxDir         string   `json:"auxDir"`
		Mode           string   `json:"mode"`
		Primary        string   `json:"primary"`
		RuntimeBinDirs []string `json:"runtimeBinDirs"`
	} `json:"cni"`
	OpenShift struct {
		Mode string `json:"mode"`
	} `json:"openshift"`
	Backend string `json:"backend"`
	Agent   struct {
		SELinuxType string `json:"seLinuxType"`
	} `json:"agent"`
}

// preset is what the chart sets for a distribution.
type preset struct {
	BinDir      string `json:"binDir"`
	ConfDir     string `json:"confDir"`
	Mode        string `json:"mode"`
	SELinuxType string `json:"seLinuxType"`
}

// openShift is the distribution with modes of its own.
const openShift = "OpenShift"

// presets returns the presets of all distributions by name.
func presets() (all map[string]preset, err error) {
	err = yaml.Unmarshal(chart.Presets, &all)
	return all, err
}

// settable are the values that --set accepts, with their fields.
var settable = map[string]func(*values) *string{
	"kubernetesDistribution": func(v *values) *string { return &v.Distribution },
	"image.registry":         func(v *values) *string { return &v.Image.Registry },
	"image.repository":       func(v *values) *string { return &v.Image.Repository },
	"image.tag":              func(v *values) *string { return &v.Image.Tag },
	"image.digest":           func(v *values) *string { return &v.Image.Digest },
	"image.pullPolicy":       func(v *values) *string { return (*string)(&v.Image.PullPolicy) },
	"pluginImage.repository": func(v *values) *string { return &v.PluginImage.Repository },
	"pluginImage.tag":        func(v *values) *string { return &v.PluginImage.Tag },
	"pluginImage.digest":     func(v *values) *string { return &v.PluginImage.Digest },
	"cni.binDir":             func(v *values) *string { return &v.CNI.BinDir },
	"cni.confDir":            func(v *values) *string { return &v.CNI.ConfDir },
	"cni.auxDir":             func(v *values) *string { return &v.CNI.AuxDir },
	"cni.mode":               func(v *values) *string { return &v.CNI.Mode },
	"cni.primary":            func(v *values) *string { return &v.CNI.Primary },
	"openshift.mode":         func(v *values) *string { return &v.OpenShift.Mode },
	"backend":                func(v *values) *string { return &v.Backend },
	"agent.seLinuxType":      func(v *values) *string { return &v.Agent.SELinuxType },
}

// readValues reads values as helm does: files, of which later ones override earlier ones, and single values, which
// override files.
func readValues(files, set []string, stdin io.Reader) (v values, err error) {
	v.Distribution, v.Backend, v.OpenShift.Mode = "Kubernetes", "auto", "nad"
	v.Image.Repository, v.Image.PullPolicy = "istio-pod-network-agent", corev1.PullIfNotPresent
	v.PluginImage.Repository = "istio-pod-network-plugin"
	for _, file := range files {
		text, err := readFile(file, stdin)
		if err == nil {
			err = yaml.Unmarshal(text, &v)
		}
		if err != nil {
			return v, outcome.Misusef("--values %s: %w", file, err)
		}
	}
	for _, pair := range set {
		key, value, is := strings.Cut(pair, "=")
		field := settable[key]
		if !is || field == nil {
			return v, outcome.Misuse(invalid.Text("--set", pair, "", "KEY=VALUE with one of the keys "+
				strings.Join(slices.Sorted(maps.Keys(settable)), ", ")+"; others in a file (--values)"))
		}
		*field(&v) = value
	}
	return v, v.check()
}

// choices are values with a fixed set of valid ones, as in the chart's schema.
var choices = []struct {
	key   string
	valid []string
}{
	{"image.pullPolicy", []string{"Always", "IfNotPresent", "Never"}},
	{"cni.mode", []string{"", "chain", "nad", "aux"}},
	{"openshift.mode", []string{"nad", "auxChain"}},
	{"backend", []string{"auto", "nftables", "iptables", "iptables-nft", "iptables-legacy"}},
}

// check returns an error, with an exit status, for values that helm would reject.
func (v values) check() error {
	for _, c := range choices {
		value := *settable[c.key](&v)
		if !slices.Contains(c.valid, value) {
			valid := strings.TrimPrefix(strings.Join(c.valid, ", "), ", ")
			return outcome.Misuse(invalid.Text(c.key, value, "", valid))
		}
	}
	return nil
}

func readFile(name string, stdin io.Reader) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}

// platform is what the chart would tell the agents about their nodes.
type platform struct {
	distribution                  string // in the chart's spelling
	mode, confDir, binDir, auxDir string
	seLinuxType                   string
	confDirs, binDirs             []string // all known ones, after those above
}

// platform does what the template "platform" in _helpers.tpl does.
func (v values) platform() (p platform, err error) {
	all, err := presets()
	if err != nil {
		return p, err
	}
	names := slices.Sorted(maps.Keys(all))
	i := slices.IndexFunc(names, func(name string) bool { return strings.EqualFold(name, v.Distribution) })
	if i < 0 {
		return p, outcome.Misuse(invalid.Text("kubernetesDistribution", v.Distribution, "", strings.Join(names, ", ")))
	}
	p.distribution = names[i]
	its := all[p.distribution]
	or := func(texts ...string) string {
		i := slices.IndexFunc(texts, func(text string) bool { return text != "" })
		return append(texts, "")[max(i, 0)]
	}
	onOpenShift := ""
	if p.distribution == openShift {
		onOpenShift = map[string]string{"nad": "nad", "auxChain": "aux"}[v.OpenShift.Mode]
	}
	p.mode, p.confDir = or(v.CNI.Mode, onOpenShift, its.Mode), or(v.CNI.ConfDir, its.ConfDir)
	p.binDir, p.seLinuxType = or(v.CNI.BinDir, its.BinDir), or(v.Agent.SELinuxType, its.SELinuxType)
	p.auxDir = or(v.CNI.AuxDir, "/var/run/multus/cni/net.d/vendor-cni-chain")
	p.confDirs, p.binDirs = []string{p.confDir}, []string{p.binDir}
	for _, name := range names {
		if other := all[name]; other.Mode == "chain" { // no runtime reads Multus's directory
			p.confDirs, p.binDirs = append(p.confDirs, other.ConfDir), append(p.binDirs, other.BinDir)
		}
	}
	p.confDirs, p.binDirs = unique(p.confDirs), unique(p.binDirs)
	return p, nil
}

// unique removes duplicates.
func unique(all []string) (some []string) {
	for _, text := range all {
		if !slices.Contains(some, text) {
			some = append(some, text)
		}
	}
	return some
}

// distributionsWith returns the distributions with this directory.
func distributionsWith(confDir string) (names []string) {
	all, _ := presets()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name].ConfDir == confDir && all[name].Mode == "chain" {
			names = append(names, name)
		}
	}
	return names
}

var digests = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// image returns the agents' image.
func (v values) image() (string, error) {
	return v.imageOf("image", v.Image.Repository, v.Image.Tag, v.Image.Digest)
}

// pluginImage returns the image of the init wait, which mesh pods pull.
func (v values) pluginImage() (string, error) {
	return v.imageOf("pluginImage", v.PluginImage.Repository, v.PluginImage.Tag, v.PluginImage.Digest)
}

// imageOf does what the template "image" does. value is the name of the chart's value.
func (v values) imageOf(value, repository, tag, digest string) (string, error) {
	var about struct {
		AppVersion string `json:"appVersion"`
	}
	if err := yaml.Unmarshal(chart.About, &about); err != nil {
		return "", err
	}
	name := repository
	if v.Image.Registry != "" {
		name = strings.TrimSuffix(v.Image.Registry, "/") + "/" + name
	}
	switch {
	case digest != "" && !digests.MatchString(digest):
		return "", outcome.Misuse(invalid.Text(value+".digest", digest, "", "sha256: and 64 hexadecimal digits"))
	case digest != "":
		return name + "@" + digest, nil
	}
	return name + ":" + cmp.Or(tag, v.Image.Tag, about.AppVersion), nil
}
