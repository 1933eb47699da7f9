package deps

import "strings"

// module is the path of this module. Rows and rules name its packages by their directories.
const module = "github.com/istio-pod-network/controller"

// rule says what the packages in one directory may import.
type rule struct {
	dir string
	// allowed are the direct imports beside the standard library: directories of this module, or paths. A path that
	// ends in /... includes everything below it.
	allowed []string
	// standard, if not nil, are the only packages of the standard library that may be imported directly.
	standard []string
	// forbidden maps packages that must not be imported, even indirectly, to the reason, which the failure prints.
	forbidden map[string]string
}

// Reasons for forbidden imports.
const (
	perPod = "the plugin is executed per pod: package initialisation of a client library costs more than its whole " +
		"work"
	pure = "the core is pure: the same input gives the same rules everywhere, so it cannot do I/O or look at the " +
		"machine"
	smallEdges = "it is read by programs on both sides of a version skew and by the init wait: standard library only"
	framing    = "it frames messages of whatever netlink protocol, and knows nothing of rules"
	notTheEdge = "only the plugin's ADD writes rules; repair runs the plugin, there is no second writer"
	handTool   = "the installer works on a node's files, and asks nobody but the plugin that it installs"
	aFile      = "the installer handles the plugin as a file, and its entry as internal/entry reads it for the plugin " +
		"and the agent"
	aText      = "an edit of a configuration is bytes in and bytes out: whoever calls it has read the file and writes it"
	anyFile    = "it exchanges files safely, whatever they say: what an edit makes of them is its caller's"
	oneEntry   = "it is in plugin, agent and installer: what it imports, all of them carry"
	oneTypeSet = "the types of all of Kubernetes make the agent half as big again; core/v1 is all it needs"
	nodeRoom   = "the node's files are the business of the agent's loop and of what uninstalls"
	lowestRoom = "what is known of the cluster is what all other rooms of the agent stand on"
	rooms      = "the rooms of the agent know each other by what they need alone; package agent puts them together"
	onlyLooks  = "it looks at the network of a pod, and neither writes rules nor decides about a pod"
	noTool     = "the operator's tool is of no use on a node"
	otherEnd   = "the operator's tool runs on a laptop: of the product it knows decisions and the types of what it is told"
	noJudge    = "it proves where packets go, and knows nothing of the rules that send them there"
	testOnly   = "the laboratory is for tests, demo and benchmarks"
)

// heavy must not be in a program that runs for every pod.
var heavy = map[string]string{
	"net/http":                         perPod,
	"k8s.io/...":                       perPod,
	"sigs.k8s.io/...":                  perPod,
	"google.golang.org/...":            perPod,
	"github.com/prometheus/...":        perPod,
	"github.com/vishvananda/netlink":   perPod,
	"html/template":                    perPod,
	"testing":                          "testing registers flags and is no part of a product",
	"internal/testnet":                 testOnly,
	"install":                          "the plugin installs nothing",
	"plugin/trace/...":                 "the plugin writes rules and walks nobody through them",
	"agent/...":                        "the agent depends on the plugin's contracts, not the other way",
	"github.com/fsnotify/fsnotify/...": "the plugin watches nothing",
}

// onNode must not be in the installer, which runs in a tiny image, and by hand as the last resort.
var onNode = map[string]string{
	"plugin":               aFile,
	"plugin/netfilter/...": aFile,
	"plugin/record":        aFile,
	"plugin/facts":         aFile,
	"plugin/wait":          aFile,
	"agent/...":            "the agent keeps the installation by this library, not the other way",
	"net/http":             handTool,
	"k8s.io/...":           handTool,
	"github.com/containernetworking/...": "libcni reads configurations in the tests; an edit that keeps every byte " +
		"cannot go through it",
	"github.com/prometheus/...": handTool,
	"testing":                   "testing registers flags and is no part of a product",
	"internal/testnet":          testOnly,
}

// onCluster must not be in any room of the agent.
var onCluster = map[string]string{
	"plugin/netfilter/...": notTheEdge, "k8s.io/client-go/kubernetes/...": oneTypeSet,
	"k8s.io/client-go/informers/...": oneTypeSet,
	"testing":                        "testing registers flags and is no part of a product", "internal/testnet": testOnly,
	"agent/agenttest": testOnly, "agent/ctl/...": noTool,
}

// onLaptop must not be in the operator's tool. It runs on its user's system, and asks the agent for what is on a node.
var onLaptop = map[string]string{
	"plugin": otherEnd, "plugin/netfilter/...": otherEnd, "plugin/wait": otherEnd, "install/...": otherEnd,
	"agent": otherEnd, "agent/kube": otherEnd, "agent/answer": otherEnd, "agent/health": otherEnd,
	"agent/mark": otherEnd, "agent/patrol": otherEnd, "agent/uninstall": otherEnd,
	"testing": "testing registers flags and is no part of a product", "internal/testnet": testOnly,
}

// kubeTypes are the types and errors of the API server, which every room of the agent may import.
var kubeTypes = []string{"k8s.io/api/core/v1", "k8s.io/apimachinery/..."}

// rules has one row for each directory with Go files. A directory without a row fails the test, and so does a row
// without a directory. So a new package has to declare its imports.
var rules = []rule{
	{dir: "plugin", allowed: []string{
		"plugin/redirect", "plugin/netfilter", "plugin/record", "plugin/facts", "internal/entry",
		"internal/excerpt", "internal/invalid", "internal/program",
		"github.com/containernetworking/cni/pkg/skel", "github.com/containernetworking/cni/pkg/types/...",
		"github.com/containernetworking/cni/pkg/version", "github.com/sirupsen/logrus",
	}, forbidden: heavy},
	{dir: "plugin/annotation", standard: []string{}, forbidden: heavy},
	{dir: "plugin/istio-pod-network", allowed: []string{"plugin"}, forbidden: heavy},
	{dir: "plugin/netfilter", allowed: []string{
		"plugin/redirect", "plugin/netfilter/netlink", "internal/excerpt", "github.com/google/nftables/...",
		"github.com/containernetworking/plugins/pkg/ns", "golang.org/x/sys/unix",
	}, forbidden: with(heavy, map[string]string{
		"plugin/record": "the kernel edge knows one network namespace, not the node's state",
		"plugin/facts":  "the kernel edge knows one network namespace, not where settings come from",
	})},
	{dir: "plugin/netfilter/netlink", allowed: []string{"github.com/mdlayher/netlink", "golang.org/x/sys/unix"},
		forbidden: with(heavy, map[string]string{
			"plugin/redirect": framing, "plugin/record": framing, "plugin/facts": framing,
			"plugin/netfilter": framing, "github.com/google/nftables/...": framing,
		})},
	{dir: "plugin/redirect", allowed: []string{"plugin/annotation", "internal/excerpt", "internal/invalid"},
		standard: []string{
			"bytes", "cmp", "encoding/json", "errors", "fmt", "hash/fnv", "net/netip", "path", "slices", "sort", "strconv",
			"strings", "unicode/utf8",
		}, forbidden: with(heavy, map[string]string{
			"net": pure, "os/exec": pure, "math/rand": pure, "math/rand/v2": pure, "plugin/netfilter/...": pure,
		})},
	{dir: "plugin/look", allowed: []string{
		"plugin/look/report", "plugin/netfilter", "plugin/netfilter/netlink", "plugin/record",
		"plugin/redirect", // for the name of our table
		"internal/invalid", "internal/program/...", "github.com/google/nftables/expr", "golang.org/x/sys/unix",
	}, forbidden: with(heavy, map[string]string{"plugin": onlyLooks, "plugin/facts": onlyLooks})},
	{dir: "plugin/look/report", standard: []string{}, forbidden: heavy},
	{dir: "plugin/istio-pod-network-look", allowed: []string{"plugin/look"}, forbidden: heavy},
	{dir: "plugin/trace", allowed: []string{
		"internal/columns", "plugin/look/report", "plugin/redirect",
	}, standard: []string{"fmt", "net/netip", "slices", "strings"}, forbidden: with(heavy, map[string]string{
		"net": pure, "os/exec": pure, "math/rand": pure, "math/rand/v2": pure, "plugin/netfilter/...": pure,
	})},
	{dir: "plugin/trace/tracetest", allowed: []string{"internal/testnet", "plugin/redirect", "plugin/trace"}},
	{dir: "plugin/record", allowed: []string{"internal/excerpt", "internal/files", "internal/invalid"},
		forbidden: with(heavy, map[string]string{"net": smallEdges, "os/exec": smallEdges, "plugin/redirect": smallEdges})},
	{dir: "plugin/facts", allowed: []string{"plugin/redirect", "internal/excerpt"},
		forbidden: with(heavy, map[string]string{
			"os/exec": smallEdges, "plugin/netfilter/...": notTheEdge,
		})},

	{dir: "plugin/wait", allowed: []string{
		"plugin/annotation", "plugin/record", "internal/excerpt", "internal/files", "internal/invalid",
		"internal/program/...",
	}, forbidden: with(heavy, map[string]string{
		"os/exec": smallEdges, "plugin/redirect": smallEdges, "plugin/facts": smallEdges, "plugin/netfilter/...": notTheEdge,
	})},
	{dir: "plugin/istio-pod-network-wait", allowed: []string{"plugin/wait"}, forbidden: heavy},

	{dir: "plugin/flows", allowed: []string{
		"plugin/flows/report", "internal/escape", "internal/invalid", "internal/program/...", "internal/standin",
	}, forbidden: with(heavy, map[string]string{
		"os/exec": smallEdges, "plugin/redirect": noJudge, "plugin/facts": noJudge, "plugin/record": noJudge,
		"plugin/netfilter/...": notTheEdge,
	})},
	{dir: "plugin/flows/report", standard: []string{"encoding/json", "strings"}, forbidden: heavy},
	{dir: "plugin/istio-pod-network-flows", allowed: []string{"plugin/flows"}, forbidden: heavy},

	{dir: "install", allowed: []string{
		"install/conflist", "install/exchange", "internal/entry", "internal/files", "internal/invalid", "internal/watch",
		"internal/program/flags", // for a flag that is a list of paths
		"github.com/fsnotify/fsnotify", "golang.org/x/sys/unix",
	}, forbidden: onNode},
	{dir: "install/conflist", allowed: []string{"internal/entry", "internal/invalid"}, standard: []string{
		"bytes", "encoding/json", "errors", "fmt", "path/filepath", "reflect", "slices", "strings",
	}, forbidden: with(onNode, map[string]string{
		"install": aText, "install/exchange": aText, "internal/files": aText, "os/exec": aText, "golang.org/x/sys/...": aText,
	})},
	{dir: "install/exchange", allowed: []string{"internal/files", "golang.org/x/sys/unix"},
		forbidden: with(onNode, map[string]string{
			"install": anyFile, "install/conflist": anyFile, "internal/entry": anyFile, "os/exec": anyFile,
			"github.com/fsnotify/...": anyFile,
		})},
	{dir: "install/istio-pod-network-install", allowed: []string{"install", "internal/entry", "internal/excerpt",
		"internal/program/..."}, forbidden: onNode},
	{dir: "install/installtest", allowed: []string{
		"internal/await", "internal/entry", "github.com/containernetworking/cni/libcni",
	}},

	{dir: "agent", allowed: []string{
		"agent/kube", "agent/answer", "agent/health", "agent/inspect", "agent/mark", "agent/patrol", "agent/uninstall",
		"install",
		"internal/buildinfo", "internal/podfacts", "k8s.io/api/core/v1",
		"internal/blank", "internal/entry", "internal/invalid", "internal/program/...", "internal/files",
		"plugin/look/report", "plugin/record", "plugin/redirect", "plugin/facts", "k8s.io/klog/v2",
		"golang.org/x/sys/unix",
		"github.com/go-logr/logr/funcr", "github.com/prometheus/client_golang/...", "github.com/sirupsen/logrus",
		"github.com/BurntSushi/toml", // for the configuration of a node's container runtime
	}, forbidden: onCluster},
	{dir: "agent/kube", allowed: []string{
		"internal/buildinfo", "internal/podfacts", "plugin/annotation", "plugin/redirect", "k8s.io/api/core/v1",
		"k8s.io/apimachinery/...",
		"k8s.io/client-go/...",
	}, forbidden: with(onCluster, map[string]string{
		"plugin/record": "what is read off a pod does not depend on what the plugin did", "install": nodeRoom,
		"agent/...": lowestRoom,
	})},
	{dir: "agent/answer", allowed: append([]string{"agent/kube", "internal/podfacts", "plugin/facts"}, kubeTypes...),
		forbidden: with(onCluster, map[string]string{
			"plugin/record": "an answer is what the API server knows of a pod, whatever the plugin did with it",
			"install":       nodeRoom,
			"agent/mark":    rooms, "agent/patrol": rooms, "agent/uninstall": rooms,
		})},
	{dir: "agent/health", allowed: []string{
		"github.com/prometheus/client_golang/...", "github.com/sirupsen/logrus",
	}, forbidden: with(onCluster, map[string]string{
		"agent/kube": "it is told what to look at", "agent/mark": rooms, "agent/patrol": rooms, "agent/uninstall": rooms,
		"agent/answer": rooms, "install": nodeRoom, "plugin/...": "it knows nothing of pods",
	})},
	{dir: "agent/mark", allowed: append([]string{
		"agent/kube", "internal/watch", "plugin/annotation", "plugin/record", "github.com/sirupsen/logrus",
		"k8s.io/client-go/util/workqueue",
	}, kubeTypes...), forbidden: with(onCluster, map[string]string{
		"install": nodeRoom, "agent/answer": rooms,
		"agent/patrol":    "a mark says what a record says; it does not depend on what is looked for",
		"agent/uninstall": rooms, "github.com/prometheus/...": "what is counted is the agent's business",
	})},
	{dir: "agent/patrol", allowed: append([]string{
		"agent/kube", "agent/mark", "internal/entry", "internal/excerpt", "internal/files", "internal/podfacts",
		"plugin/annotation", "plugin/look/report", "plugin/record", "plugin/redirect",
		"github.com/prometheus/client_golang/prometheus", "github.com/sirupsen/logrus",
		"k8s.io/client-go/tools/record", "k8s.io/client-go/util/flowcontrol",
	}, kubeTypes...), forbidden: with(onCluster, map[string]string{
		"install": nodeRoom, "agent/answer": rooms, "agent/uninstall": rooms,
	})},
	{dir: "agent/uninstall", allowed: append([]string{
		"agent/kube", "install", "github.com/sirupsen/logrus",
	}, kubeTypes...), forbidden: with(onCluster, map[string]string{
		"agent/answer": rooms, "agent/mark": "what uninstalls marks nothing",
		"agent/patrol": "what uninstalls looks after no pod",
	})},
	{dir: "agent/agenttest", allowed: append([]string{
		"agent/kube", "internal/await", "plugin/annotation", "plugin/record", "plugin/redirect", "github.com/sirupsen/logrus",
		"k8s.io/client-go/tools/cache/testing",
	}, kubeTypes...)},
	{dir: "agent/inspect", allowed: []string{"plugin/look/report"}, standard: []string{"time"}},
	{dir: "agent/istio-pod-network-agent", allowed: []string{"agent"}},

	{dir: "agent/istio-pod-networkctl", allowed: []string{"agent/ctl"}, forbidden: onLaptop},
	{dir: "agent/ctl", allowed: []string{
		"agent/ctl/check", "agent/ctl/cluster", "agent/ctl/explain", "agent/ctl/outcome", "agent/ctl/output",
		"agent/ctl/status", "agent/ctl/sysdump", "agent/ctl/trace", "agent/ctl/verify", "agent/ctl/version",
		"internal/buildinfo", "internal/invalid", "github.com/spf13/cobra", "github.com/spf13/pflag",
	}, forbidden: onLaptop},
	{dir: "agent/ctl/cluster", allowed: []string{
		"agent/ctl/outcome", "agent/inspect", "internal/buildinfo", "internal/excerpt", "internal/invalid",
		"github.com/spf13/pflag", "k8s.io/api/...", "k8s.io/apimachinery/...",
		"k8s.io/cli-runtime/pkg/genericclioptions", "k8s.io/client-go/...", "k8s.io/streaming/pkg/httpstream",
	}, forbidden: onLaptop},
	{dir: "agent/ctl/status", allowed: []string{
		"agent/ctl/cluster", "agent/ctl/outcome", "agent/ctl/output", "agent/inspect", "internal/excerpt",
		"internal/invalid", "github.com/spf13/cobra", "k8s.io/api/...", "k8s.io/apimachinery/...",
	}, forbidden: onLaptop},
	{dir: "agent/ctl/version", allowed: []string{
		"agent/ctl/status", // it has asked the agents
		"agent/ctl/cluster", "agent/ctl/outcome", "agent/ctl/output", "agent/inspect", "internal/buildinfo",
		"github.com/spf13/cobra", "k8s.io/apimachinery/pkg/util/version",
	}, forbidden: onLaptop},
	{dir: "agent/ctl/check", allowed: []string{
		"agent/ctl/status", "agent/ctl/version", // for what they say about each node
		"agent/ctl/cluster", "agent/ctl/outcome", "agent/ctl/output", "agent/ctl/temporary", "agent/inspect", "chart",
		"internal/buildinfo", "internal/excerpt", "internal/invalid", "github.com/spf13/cobra", "github.com/spf13/pflag",
		"k8s.io/api/...", "k8s.io/apimachinery/...", "k8s.io/client-go/discovery",
		"k8s.io/client-go/kubernetes/typed/...", "k8s.io/client-go/metadata", "sigs.k8s.io/yaml",
	}, forbidden: onLaptop},
	{dir: "agent/ctl/sysdump", allowed: []string{
		"agent/ctl/cluster", "agent/ctl/explain", "agent/ctl/outcome", "agent/ctl/output", "agent/inspect", "internal/blank",
		"internal/buildinfo", "internal/invalid", "internal/podfacts", "plugin/annotation",
		"plugin/redirect", // for the sidecar's name
		"github.com/spf13/cobra", "k8s.io/api/apps/v1", "k8s.io/api/core/v1", "k8s.io/apimachinery/...", "sigs.k8s.io/yaml",
	}, forbidden: onLaptop},
	{dir: "agent/ctl/temporary", allowed: []string{
		"agent/ctl/cluster", "agent/ctl/outcome", "agent/ctl/output", "internal/columns", "internal/excerpt",
		"internal/invalid", "plugin/annotation", "k8s.io/api/core/v1",
		"k8s.io/apimachinery/...", "k8s.io/client-go/kubernetes/typed/core/v1",
	}, forbidden: onLaptop},
	{dir: "agent/ctl/verify", allowed: []string{
		"agent/ctl/cluster",
		"agent/ctl/explain", // it says why a pod is not injected or not redirected
		"agent/ctl/outcome", "agent/ctl/output", "agent/ctl/temporary", "internal/excerpt", "internal/invalid",
		"plugin/annotation", "plugin/flows/report", "github.com/spf13/cobra", "k8s.io/api/...", "k8s.io/apimachinery/...",
		"k8s.io/client-go/kubernetes/typed/core/v1", "sigs.k8s.io/yaml",
	}, forbidden: with(onLaptop, map[string]string{
		"plugin/flows": "it runs in pods, from the plugin's image; the tool reads what it prints",
	})},
	{dir: "agent/ctl/explain", allowed: []string{
		"agent/ctl/cluster", "agent/ctl/outcome", "agent/ctl/output", "agent/inspect", "internal/entry", "internal/excerpt",
		"internal/invalid", "internal/podfacts", "plugin/annotation", "plugin/record", "plugin/redirect", "plugin/trace",
		"github.com/spf13/cobra", "go.yaml.in/yaml/v3", "k8s.io/api/...", "k8s.io/apimachinery/...",
		"k8s.io/client-go/kubernetes/scheme",
	}, forbidden: onLaptop},
	{dir: "agent/ctl/trace", allowed: []string{
		"agent/ctl/cluster",
		"agent/ctl/explain", // a pod's rules follow from its decision
		"agent/ctl/outcome", "agent/ctl/output", "agent/inspect", "internal/invalid", "plugin/look/report",
		"plugin/redirect", "plugin/trace",
		"github.com/spf13/cobra", "k8s.io/api/core/v1",
	}, forbidden: onLaptop},
	{dir: "agent/ctl/outcome", standard: []string{"errors", "fmt"}},
	{dir: "agent/ctl/output", allowed: []string{
		"agent/ctl/outcome", "internal/columns", "internal/invalid", "github.com/spf13/cobra", "golang.org/x/term",
		"sigs.k8s.io/yaml",
	}, forbidden: onLaptop},

	{dir: "chart", standard: []string{"embed"}},
	{dir: "docs"}, // its tests compare it with the code
	{dir: "internal/await", standard: []string{"io", "math", "os", "testing", "time"}},
	{dir: "internal/blank", standard: []string{"bytes", "encoding/json", "fmt", "regexp", "strings"}},
	{dir: "internal/buildinfo", standard: []string{"runtime/debug"}},
	{dir: "internal/columns", allowed: []string{"golang.org/x/text/width"}, standard: []string{"unicode/utf8"}},
	{dir: "internal/deps"},
	{dir: "internal/entry", allowed: []string{"plugin/redirect", "internal/invalid"}, standard: []string{
		"bytes", "encoding/json", "errors", "fmt", "path", "slices", "strings", "time",
	}, forbidden: with(heavy, map[string]string{"net": oneEntry, "os/exec": oneEntry, "plugin/netfilter/...": oneEntry})},
	{dir: "internal/escape", allowed: []string{"golang.org/x/sys/unix"}},
	{dir: "internal/excerpt", standard: []string{"strconv", "strings", "unicode/utf8"}},
	{dir: "internal/fdleak", standard: []string{"fmt", "os", "time"}},
	{dir: "internal/files", standard: []string{
		"bytes", "fmt", "io", "io/fs", "math/rand/v2", "os", "path/filepath", "syscall",
	}},
	{dir: "internal/golden", allowed: []string{"internal/columns"}, standard: []string{
		"flag", "fmt", "os", "strings", "testing",
	}},
	{dir: "internal/invalid", allowed: []string{"internal/excerpt"}, standard: []string{"errors", "fmt"}},
	{dir: "internal/linear"},
	{dir: "internal/podfacts", allowed: []string{"plugin/redirect", "k8s.io/api/core/v1"}, standard: []string{
		"maps", "net/netip", "path", "slices", "strings",
	}},
	{dir: "internal/program", allowed: []string{"internal/buildinfo", "internal/excerpt"}, standard: []string{
		"fmt", "io", "os", "slices", // not flag: it adds some 25 kB to the plugin, which has no flags
	}},
	{dir: "internal/program/flags", allowed: []string{"internal/invalid", "internal/program"}, standard: []string{
		"errors", "flag", "io", "strings", "time",
	}},
	{dir: "internal/standin", allowed: []string{"golang.org/x/sys/unix", "internal/escape"}, standard: []string{
		"bufio", "cmp", "context", "crypto/hmac", "crypto/rand", "crypto/sha256", "crypto/tls", "crypto/x509",
		"encoding/binary", "encoding/hex", "errors", "fmt", "io", "net", "net/netip", "os", "strings", "sync/atomic",
		"syscall", "time",
	}},
	{dir: "internal/testnet", allowed: []string{"github.com/vishvananda/netlink", "golang.org/x/sys/unix",
		"internal/escape"},
		forbidden: map[string]string{
			"plugin/...": "a laboratory that shares code with the plugin proves nothing about it",
			"k8s.io/...": "the laboratory is about packets",
		}},
	{dir: "internal/nodes", allowed: []string{"agent"}},
	{dir: "internal/watch", allowed: []string{"github.com/fsnotify/fsnotify"}, standard: []string{
		"errors", "fmt", "os", "syscall",
	}},
	{dir: "internal/watch/exhausted", standard: []string{"os", "os/exec", "path/filepath", "syscall", "testing"}},
}

// anywhere are the operator's tool and the types that it reads, which build for every system that it supports.
var anywhere = []string{"agent/istio-pod-networkctl", "plugin/facts", "plugin/record"}

// contracts are the packages of this module that a package of conformance may import.
var contracts = []string{
	"conformance/...", "internal/await", "internal/files", "internal/golden", "internal/testnet",
	"internal/escape", "internal/standin", // they also run in pods
	"plugin/annotation", "plugin/facts", "plugin/record", "plugin/redirect",
}

// blackBoxes maps packages of conformance to what they must not import, even indirectly, with the reason.
var blackBoxes = map[string]map[string]string{
	"conformance/bench/echo":   with(heavy, map[string]string{"plugin/...": "it is what ADD is measured against"}),
	"conformance/bench/plugin": {"k8s.io/...": "no cluster is needed"},
	"conformance/crio/driver": {
		"internal/...": "it is also built by a go.mod that has libcni alone", "plugin/...": "it stands for CRI-O"},
	"conformance/demo": {"k8s.io/...": "no cluster is needed, and it has to be built soon on a fresh machine"},
}

// with returns both maps as one.
func with(a, b map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range []map[string]string{a, b} {
		for key, reason := range m {
			all[key] = reason
		}
	}
	return all
}

// matches reports whether a pattern of a row matches an import path.
func matches(pattern, path string) bool {
	if first, _, _ := strings.Cut(pattern, "/"); ours[first] {
		pattern = module + "/" + pattern
	}
	if prefix, below := strings.CutSuffix(pattern, "/..."); below {
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	}
	return path == pattern
}

// ours are the top directories of this module. `internal` and `plugin` are also names in the standard library, which
// rows never mean.
var ours = map[string]bool{"plugin": true, "install": true, "agent": true, "chart": true, "internal": true,
	"conformance": true}
