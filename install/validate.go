package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/istio-pod-network/controller/internal/entry"
)

const (
	answersWithin = 10 * time.Second
	codeConfig    = 7 // invalid network configuration, CNI SPEC.md "Error"
)

// Validate asks the plugin that is to be installed, by CNI's STATUS, whether it takes our entry: once chained, one that
// it refuses would keep every pod of the node from starting. The error is the plugin's, which names the key, the value
// and what is valid, or says that the plugin cannot be run here. Whatever else STATUS reports is no reason not to
// install. Without a Source nobody is asked.
func Validate(ctx context.Context, c Config) error {
	c, err := c.withDefaults()
	if err != nil || c.Source == "" {
		return err
	}
	// What the plugin reads is what will be there, numbers included. 1.1.0 is the first version with STATUS.
	stdin, err := c.Entry.With(map[string]any{"cniVersion": "1.1.0", "name": entry.Type})
	if err != nil {
		return fmt.Errorf("network configuration: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	plugin := exec.CommandContext(ctx, c.Source)
	plugin.Env = []string{"CNI_COMMAND=STATUS", "CNI_PATH=" + c.BinDir, entry.EnvInstaller + "=1"}
	plugin.Stdin = bytes.NewReader(stdin)
	out, err := plugin.Output()
	if err == nil {
		return nil
	}
	var refusal struct {
		Code int
		Msg  string
	}
	if errors.As(err, new(*exec.ExitError)) && json.Unmarshal(out, &refusal) == nil {
		if refusal.Code == codeConfig {
			return fmt.Errorf("network configuration: %s", refusal.Msg)
		}
		return nil
	}
	return fmt.Errorf("running the plugin %q: %w", c.Source, err)
}
