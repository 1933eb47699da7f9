package inspect

// Probed is what istio-pod-network-agent probe says of a node, on which nothing need be installed.
type Probed struct {
	Kernel   string    `json:"kernel"`
	Rules    Rules     `json:"rules"` // whether nftables takes the rules of a pod
	Networks []Network `json:"networks"`
	Plugins  []Plugins `json:"plugins"`
}

// Network is what lies in a directory of network configurations.
type Network struct {
	Directory string `json:"directory"`
	Exists    bool   `json:"exists"`
	// File and Name are those of the network that a runtime uses which reads this directory; absent where there is none.
	File string `json:"file,omitempty"`
	Name string `json:"name,omitempty"`
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
