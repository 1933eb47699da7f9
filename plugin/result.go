package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/istio-pod-network/controller/internal/invalid"
)

// result returns what ADD prints: the previous plugin's result byte for byte, with unknown keys and large numbers. An
// additional network (Multus) may have no previous result; then it is the smallest valid result.
func (c config) result() ([]byte, error) {
	if c.prevResult == nil {
		return json.Marshal(map[string]string{"cniVersion": c.cniVersion})
	}
	var head struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(c.prevResult, &head); err != nil {
		return nil, invalid.JSON("prevResult", string(c.prevResult), "", "a CNI result object")
	}
	if head.CNIVersion == "" || head.CNIVersion == c.cniVersion {
		return c.prevResult, nil
	}
	return c.convert(head.CNIVersion)
}

// convert converts a result of another CNI version, because the runtime expects the version that it configured.
func (c config) convert(from string) ([]byte, error) {
	parsed, err := create.Create(from, c.prevResult)
	if err != nil {
		return nil, invalid.Text("prevResult.cniVersion", from, err.Error(), "a CNI version, normally "+c.cniVersion)
	}
	converted, err := parsed.GetAsVersion(c.cniVersion)
	if err != nil {
		return nil, fmt.Errorf("prevResult: converting from CNI version %s to %s: %w", from, c.cniVersion, err)
	}
	var out bytes.Buffer
	if err := converted.PrintTo(&out); err != nil {
		return nil, fmt.Errorf("prevResult: %w", err)
	}
	return out.Bytes(), nil
}
