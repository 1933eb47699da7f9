package inspect

// Probed is what istio-pod-network-agent probe says of a node. Nothing has to be installed there.
type Probed struct {
	Kernel   string    `json:"kernel"`
	Rules    Rules     `json:"rules"` // whether nftables accepts the rules of a pod
	Networks []Network `json:"networks"`
	Plugins  []Plugins `json:"plugins"`
	// Runtimes are the container runtimes whose configuration files were found.
	Runtimes []Runtime `json:"runtimes,omitempty"`
}

// Runtime has the CNI directories of a container runtime's configuration. What the configuration does not set has the
// runtime's default.
type Runtime struct {
	Name    string   `json:"name"`  // containerd or cri-o
	Files   []string `json:"files"` // the files of the configuration, the one that overrides the others last
	ConfDir string   `json:"confDir,omitempty"`
	BinDirs []string `json:"binDirs,omitempty"`
	// SameConfDir says that ConfDir is the first --conf-dir of the probe, also through symbolic links. HasBinDir says that
	// one of BinDirs is the first --bin-dir.
	SameConfDir bool   `json:"sameConfDir,omitempty"`
	HasBinDir   bool   `json:"hasBinDir,omitempty"`
	Problem     string `json:"problem,omitempty"` // why the configuration could not be read
}

// Network is what is in a directory of network configurations.
type Network struct {
	Directory string `json:"directory"`
	Exists    bool   `json:"exists"`
	// File and Name are the path and the name of the network that a runtime with this directory uses; absent if none.
	File string `json:"file,omitempty"`
	Name string `json:"name,omitempty"`
	// Chain are the types of the network's plugins, in their order.
	Chain []string `json:"chain,omitempty"`
	// Protected is why the installer does not edit File.
	Protected string `json:"protected,omitempty"`
	// Others are the configurations that the runtime does not use, each with its problem if it has one.
	Others []string `json:"others,omitempty"`
}

// Plugins is a directory of plugins.
type Plugins struct {
	Directory string `json:"directory"`
	Exists    bool   `json:"exists"`
	// Missing are plugins of the first network that are neither in this directory nor in the runtime's other ones.
	Missing []string `json:"missing,omitempty"`
}
