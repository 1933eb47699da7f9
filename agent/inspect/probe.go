package inspect

// Probed is what istio-pod-network-agent probe says of a node, on which nothing need be installed.
type Probed struct {
	Kernel   string    `json:"kernel"`
	Rules    Rules     `json:"rules"` // whether nftables takes the rules of a pod
	Networks []Network `json:"networks"`
	Plugins  []Plugins `json:"plugins"`
	// Runtimes are the configurations of container runtimes that lie where these look for them.
	Runtimes []Runtime `json:"runtimes,omitempty"`
}

// Runtime is what a container runtime's configuration says of the directories of CNI; what it does not say is the
// runtime's default.
type Runtime struct {
	Name    string   `json:"name"`  // containerd or cri-o
	Files   []string `json:"files"` // that it is made of, the one that wins last
	ConfDir string   `json:"confDir,omitempty"`
	BinDirs []string `json:"binDirs,omitempty"`
	// SameConfDir says that the directory of configurations is the first of those that were asked for, by whatever
	// path, and HasBinDir that of those of plugins one is.
	SameConfDir bool   `json:"sameConfDir,omitempty"`
	HasBinDir   bool   `json:"hasBinDir,omitempty"`
	Problem     string `json:"problem,omitempty"` // why it could not be read
}

// Network is what lies in a directory of network configurations.
type Network struct {
	Directory string `json:"directory"`
	Exists    bool   `json:"exists"`
	// File and Name are those of the network that a runtime uses which reads this directory; absent where there is none.
	File string `json:"file,omitempty"`
	Name string `json:"name,omitempty"`
	// Chain are the types of the plugins that the network is made of.
	Chain []string `json:"chain,omitempty"`
	// Protected is why the installer does not edit that file.
	Protected string `json:"protected,omitempty"`
	// Others are the configurations that such a runtime does not use, each with what is wrong with it, if something is.
	Others []string `json:"others,omitempty"`
}

// Plugins is a directory of plugins.
type Plugins struct {
	Directory string `json:"directory"`
	Exists    bool   `json:"exists"`
	// Missing are the plugins of the first network that it lacks, and the runtime's other directories, too.
	Missing []string `json:"missing,omitempty"`
}
