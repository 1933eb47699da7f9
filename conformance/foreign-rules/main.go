// Command foreign-rules is a chained CNI plugin that stands for another mesh's. It writes the rules of Istio's own
// tools, for mode REDIRECT with default settings, with the node's iptables.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// rules is the input of iptables-restore. Its placeholders stand for addresses of the family: that of the pod itself,
// and the source address of the proxy's calls to it.
const rules = `*nat
-N ISTIO_INBOUND
-N ISTIO_REDIRECT
-N ISTIO_IN_REDIRECT
-N ISTIO_OUTPUT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A ISTIO_INBOUND -p tcp -m multiport --dports 15008,15020,15021,15090 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -o lo -s PASS -j RETURN
-A ISTIO_OUTPUT -o lo ! -d SELF -p tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d SELF -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
COMMIT
`

func add(args *skel.CmdArgs) error {
	var config struct {
		types.NetConf
		RawPrevResult json.RawMessage `json:"prevResult"`
	}
	if err := json.Unmarshal(args.StdinData, &config); err != nil {
		return err
	}
	for program, addresses := range map[string]*strings.Replacer{
		"iptables-nft-restore":  strings.NewReplacer("SELF", "127.0.0.1/32", "PASS", "127.0.0.6/32"),
		"ip6tables-nft-restore": strings.NewReplacer("SELF", "::1/128", "PASS", "::6/128"),
	} {
		cmd := exec.Command("nsenter", "--net="+args.Netns, "--", program, "--noflush")
		cmd.Stdin = strings.NewReader(addresses.Replace(rules))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", program, err, out)
		}
	}
	_, err := os.Stdout.Write(config.RawPrevResult)
	return err
}

func nothing(*skel.CmdArgs) error { return nil }

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: nothing, Check: nothing, GC: nothing, Status: nothing}, version.All,
		"foreign-rules: for tests")
}
