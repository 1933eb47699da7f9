package cluster

import (
	"testing"

	"github.com/spf13/pflag"
)

// The usual flag has a default for pods. As the agents' namespace it counts only if the user sets it.
func TestAgentsNamespace(t *testing.T) {
	set := pflag.NewFlagSet("ctl", pflag.ContinueOnError)
	if got := AgentsNamespace(set); got != "" {
		t.Errorf("without the flag: %q", got)
	}
	set.StringP("namespace", "n", "default", "")
	if got := AgentsNamespace(set); got != "" {
		t.Errorf("by default: %q", got)
	}
	if err := set.Parse([]string{"-n", "mesh"}); err != nil {
		t.Fatal(err)
	}
	if got := AgentsNamespace(set); got != "mesh" {
		t.Errorf("as the user says: %q", got)
	}
}
