package mesh

import (
	"path/filepath"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"sigs.k8s.io/yaml"
)

// cniImage is the image of Istio CNI's node agent.
const cniImage = hub + "/install-cni:" + tag

// BuildCNI links the programs of Istio CNI's image into bin. Build is needed too.
func BuildCNI(bin string) error { return build.Istio(bin, "istio-cni", "install-cni") }

// CNIImage writes the archive of Istio CNI's image into a directory, and returns its path. The image has the node
// agent, and the plugin that it installs.
func CNIImage(bin, dir string) (archive string, err error) {
	files, err := iptables()
	if err != nil {
		return "", err
	}
	archive = filepath.Join(dir, "install-cni.tar")
	files = append(files, cluster.File{Source: filepath.Join(bin, "istio-cni"), Path: "opt/cni/bin/istio-cni"},
		cluster.File{Source: filepath.Join(bin, "install-cni"), Path: "usr/local/bin/install-cni"})
	return archive, cluster.Image(archive, cniImage, "", files, "/usr/local/bin/install-cni")
}

// cniValues returns the values of Istio CNI's chart, as YAML.
func cniValues() ([]byte, error) {
	return yaml.Marshal(map[string]any{"global": map[string]any{"hub": hub, "tag": tag, "imagePullPolicy": "Never"}})
}

// multi is the program behind all commands of iptables with nf_tables. It acts by the name under which it is called.
const multi = "/usr/sbin/xtables-nft-multi"

// iptables returns the files of this machine's iptables with nf_tables, at the same paths as here, because
// istio-iptables runs the commands by these names.
func iptables() ([]cluster.File, error) {
	var files []cluster.File
	for _, name := range []string{"iptables", "ip6tables", "iptables-nft", "ip6tables-nft"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			files = append(files, cluster.File{Source: multi, Path: "usr/sbin/" + name + suffix})
		}
	}
	linked, err := cluster.Linked(multi, multi[1:])
	if err != nil {
		return nil, err
	}
	files = append(files, linked...)
	extensions, err := filepath.Glob("/usr/lib/*/xtables/*.so")
	for _, path := range extensions {
		files = append(files, cluster.File{Source: path, Path: path[1:]})
	}
	return files, err
}
