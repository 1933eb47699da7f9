package check

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/inspect"
)

// crictl says how to print the runtime's directories.
const crictl = "on the node `crictl info` (containerd: confDir, binDir) or `crio status config` (CRI-O: network_dir, " +
	"plugin_dirs) prints the runtime's directories"

// judge adds what the probes have found. Several nodes with the same result share an item.
func (c *Check) judge(p prober, all []probed) {
	first, told := len(c.Items), map[string][]string{}
	for _, its := range all {
		add := func(item Item) { item.Node = its.node; c.add(item) }
		switch {
		case its.unpulled != nil:
			add(Item{Check: "probe-image", Verdict: NotWell, What: "the image " + p.plugin + " cannot be had: " +
				its.unpulled.Error(), Next: "see the values image.registry, pluginImage.repository, pluginImage.tag and " +
				"imagePullSecrets; mesh pods pull it, too, with secrets of their own namespaces (docs/injection.md, Pull secrets)"})
		case its.err == nil:
			add(Item{Check: "probe-image", Verdict: Well, What: "the images of agent and plugin can be had"})
		}
		switch {
		case its.image:
			add(Item{Check: "probe-image", Verdict: NotWell, What: "the image " + p.image + " cannot be had: " +
				its.err.Error(), Next: "see the values image.registry, image.repository, image.tag and imagePullSecrets, whose " +
				"secrets have to be in namespace " + p.agents + " (-n)"})
		case its.err != nil:
			add(Item{Check: "probe", Verdict: NotLookedAt, What: "kernel and CNI directories: " + its.err.Error(),
				Next: its.next})
		default:
			add(p.ofRules(its.found))
			if p.platform.mode == "chain" {
				for _, item := range slices.Concat(p.ofNetworks(its.found.Networks), p.ofPlugins(its.found),
					p.ofRuntime(its.node, its.found)) {
					add(item)
				}
				if chain := its.found.Networks[0].Chain; len(chain) > 0 {
					told[chain[0]] = append(told[chain[0]], its.node)
				}
				continue
			}
			for _, item := range p.ofMultus(its.found) {
				add(item)
			}
		}
	}
	c.Items = slices.Concat(c.Items[:first], merged(c.Items[first:]))
	if len(told) > 0 {
		c.Items = slices.DeleteFunc(c.Items, func(i Item) bool { return i.Check == primaryCheck && i.Verdict == NotLookedAt })
		c.plugins(told)
	}
}

// merged merges items that say the same about different nodes.
func merged(items []Item) (some []Item) {
	for _, item := range items {
		same := slices.IndexFunc(some, func(other Item) bool {
			return other.Check == item.Check && other.Verdict == item.Verdict && other.What == item.What
		})
		if same < 0 {
			item.Nodes = []string{item.Node}
			some = append(some, item)
			continue
		}
		some[same].Nodes = append(some[same].Nodes, item.Node)
	}
	for i := range some {
		if len(some[i].Nodes) == 1 {
			some[i].Nodes = nil
		} else {
			some[i].Node = ""
		}
	}
	return some
}

// ofRules returns the item about the kernel.
func (p prober) ofRules(found inspect.Probed) Item {
	const check = "probe-rules"
	kernel, _, _ := strings.Cut(found.Kernel, "-")
	load := "load the kernel's modules (modprobe nf_tables nft_ct nft_redir nft_chain_nat)"
	switch tried := found.Rules; {
	case strings.HasPrefix(p.values.Backend, "iptables"):
		return Item{Check: check, Verdict: NotLookedAt, What: "whether the rules can be written: the value backend=" +
			p.values.Backend + " takes the node's own programs, which the probe's image lacks; backend=auto or nftables " +
			"changes that"}
	case tried.OK:
		return Item{Check: check, Verdict: Well, What: "Linux " + kernel + " takes the rules of a pod, by nftables"}
	case !tried.Looked:
		return Item{Check: check, Verdict: NotLookedAt, What: "whether Linux " + kernel + " takes the rules of a pod: " +
			tried.Detail}
	case p.values.Backend == "nftables":
		return Item{Check: check, Verdict: NotWell, What: "Linux " + kernel + " does not take the rules of a pod: " +
			tried.Detail, Next: load + ", or set backend=auto, which takes iptables there"}
	default:
		return Item{Check: check, Verdict: Warning, What: "Linux " + kernel + " does not take the rules of a pod by " +
			"nftables: " + tried.Detail, Next: load + "; with the value backend=auto the plugin takes the node's iptables " +
			"there, so see that the node has the package iptables"}
	}
}

// ofNetworks returns items about the directories of network configurations. The first one is the agents'.
func (p prober) ofNetworks(all []inspect.Network) (items []Item) {
	const check = "probe-conf-dir"
	ours, elsewhere := all[0], []string{}
	for _, other := range all[1:] {
		if other.File != "" {
			elsewhere = append(elsewhere, fmt.Sprintf("%s (kubernetesDistribution=%s)", other.File,
				strings.Join(distributionsWith(other.Directory), " or ")))
		}
	}
	ill := func(what string) {
		next := "wait for the primary CNI, whose pods write it; or set the value cni.confDir: " + crictl
		if len(elsewhere) > 0 {
			next = "there is a network in " + strings.Join(elsewhere, " and in ") + ": set the value kubernetesDistribution, " +
				"or cni.confDir; " + crictl
		}
		items = append(items, Item{Check: check, Verdict: NotWell, What: what, Next: next})
	}
	switch {
	case !ours.Exists:
		ill("there is no directory " + ours.Directory + " (cni.confDir)")
		return items
	case ours.File == "" && p.values.CNI.Primary != "":
		return []Item{{Check: check, Verdict: NotWell, What: fmt.Sprintf("no network in %s (cni.confDir) has the name %s "+
			"(cni.primary)%s", ours.Directory, p.values.CNI.Primary, listed(ours.Others)),
			Next: "set the value cni.primary to " +
				"the name of the network that pods get, or of its file, or leave it empty, which takes the first"}}
	case ours.File == "":
		ill("no network configuration in " + ours.Directory + " (cni.confDir)" + listed(ours.Others))
		return items
	case ours.Protected != "":
		items = append(items, Item{Check: check, Verdict: NotWell, What: "the network in " + ours.Directory + " is " +
			filepath.Base(ours.File) + ", and " + ours.Protected, Next: "Multus is what the runtime calls there: set the " +
			"value cni.primary to the network of the pods, or cni.mode=nad (docs/install.md, Multus outside OpenShift)"})
	default:
		items = append(items, Item{Check: check, Verdict: Well, What: fmt.Sprintf("the plugin will be chained into the "+
			"network %s, in %s", ours.Name, ours.File)})
	}
	for _, other := range ours.Others {
		path, problem, is := strings.Cut(other, ": ")
		if is && filepath.Base(path) < filepath.Base(ours.File) {
			items = append(items, Item{Check: check, Verdict: Warning, What: path + " comes before it and cannot be used: " +
				problem, Next: "see what has written it; a runtime may read it otherwise than the installer"})
		}
	}
	if len(elsewhere) > 0 {
		items = append(items, Item{Check: check, Verdict: Warning, What: "there is a network in " +
			strings.Join(elsewhere, " and in ") + ", too", Next: "see which of them the runtime reads: " + crictl +
			"; the agents will look at the value cni.confDir, " + ours.Directory})
	}
	return items
}

// listed returns a text about other configurations in a directory.
func listed(others []string) string {
	if len(others) == 0 {
		return ""
	}
	return "; there is " + some(others)
}

// ofPlugins returns items about the directories of plugins. The first one is the agents'.
func (p prober) ofPlugins(found inspect.Probed) []Item {
	const check = "probe-bin-dir"
	ours := found.Plugins[0]
	with := ""
	for _, other := range found.Plugins[1:] {
		if other.Exists && len(other.Missing) == 0 && found.Networks[0].File != "" && with == "" {
			with = other.Directory
		}
	}
	next := "set the value cni.binDir: " + crictl
	if with != "" {
		next = "they are in " + with + ": set the value cni.binDir to it if the runtime looks there, or name it in " +
			"cni.runtimeBinDirs; " + crictl
	}
	switch {
	case !ours.Exists:
		return []Item{{Check: check, Verdict: NotWell, What: "there is no directory " + ours.Directory + " (cni.binDir)",
			Next: next}}
	case len(ours.Missing) > 0 && with != "":
		return []Item{{Check: check, Verdict: NotWell, What: ours.Directory + " (cni.binDir) lacks the network's plugins " +
			strings.Join(ours.Missing, ", ") + ": the runtime looks elsewhere", Next: next}}
	case len(ours.Missing) > 0:
		return []Item{{Check: check, Verdict: Warning, What: ours.Directory + " (cni.binDir) lacks the network's plugins " +
			strings.Join(ours.Missing, ", "), Next: next}}
	case found.Networks[0].File == "":
		return []Item{{Check: check, Verdict: Well, What: ours.Directory + " is there"}}
	}
	return []Item{{Check: check, Verdict: Well, What: ours.Directory + " has the plugins of that network"}}
}

// ofMultus returns items about the directories that Multus reads, which it creates itself.
func (p prober) ofMultus(found inspect.Probed) (items []Item) {
	add := func(check, value, dir string, exists bool) {
		if exists {
			items = append(items, Item{Check: check, Verdict: Well, What: dir + " is there"})
			return
		}
		items = append(items, Item{Check: check, Verdict: NotWell, What: "there is no directory " + dir + " (" + value + ")",
			Next: "set that value to the directory that Multus reads in mode " + p.platform.mode + " (docs/openshift.md, " +
				"docs/install.md, Choose a mode)"})
	}
	for i, value := range []string{"cni.confDir", "cni.auxDir"} {
		if i < len(found.Networks) {
			add("probe-conf-dir", value, found.Networks[i].Directory, found.Networks[i].Exists)
		}
	}
	add("probe-bin-dir", "cni.binDir", found.Plugins[0].Directory, found.Plugins[0].Exists)
	return items
}

// ofRuntime compares the directories in the runtime's own configuration with the agents'.
func (p prober) ofRuntime(node string, found inspect.Probed) []Item {
	const check = "probe-runtime"
	name := p.runtimes[node]
	its := slices.DeleteFunc(slices.Clone(found.Runtimes), func(r inspect.Runtime) bool { return r.Name != name })
	if len(its) == 0 {
		return []Item{{Check: check, Verdict: NotLookedAt, What: "which directories " + cmp.Or(name, "the runtime") +
			" reads: it has no configuration where one is known to be"}}
	}
	if i := slices.IndexFunc(its, func(r inspect.Runtime) bool { return r.SameConfDir && r.HasBinDir }); i >= 0 {
		return []Item{{Check: check, Verdict: Well, What: fmt.Sprintf("%s reads %s and runs what is in %s, by %s", name,
			its[i].ConfDir, strings.Join(its[i].BinDirs, ", "), its[i].Files[0])}}
	}
	r := its[0]
	if r.Problem != "" {
		return []Item{{Check: check, Verdict: NotLookedAt, What: "which directories " + name + " reads: " + r.Problem}}
	}
	var what, set []string
	if !r.SameConfDir {
		what = append(what, fmt.Sprintf("reads %s, and not %s (cni.confDir)", r.ConfDir, p.platform.confDir))
		set = append(set, "cni.confDir="+r.ConfDir)
	}
	if !r.HasBinDir {
		what = append(what, fmt.Sprintf("runs what is in %s, and not in %s (cni.binDir)", strings.Join(r.BinDirs, ", "),
			p.platform.binDir))
		set = append(set, "cni.binDir="+r.BinDirs[0])
	}
	item := Item{Check: check, Verdict: NotWell, What: name + " " + strings.Join(what, ", and ") + ": by " + r.Files[0],
		Next: "set the values " + strings.Join(set, " and ") + ", or the kubernetesDistribution that has them"}
	if found.Networks[0].File != "" { // some runtime seems to use the agents' directory
		item.Verdict = Warning
		item.Next = "see whether " + name + " is started with that file; if it is, " + item.Next + "; " + crictl
	}
	return []Item{item}
}
