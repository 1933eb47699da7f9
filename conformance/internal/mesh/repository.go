package mesh

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// smallGateway are values of the chart gateway for a cluster on one machine whose nodes already have the images.
const smallGateway = `autoscaling: {enabled: false}
imagePullPolicy: IfNotPresent
resources: {requests: {cpu: 10m, memory: 64Mi}}
`

// Repository writes a Helm repository of Istio's charts base, istiod and gateway into a directory, to be served at a
// URL, with these versions. The values for these images are the charts' defaults, so that a user installs them as from
// Istio's own repository.
func (h Helm) Repository(dir, url string, versions ...string) error {
	defaults := map[string][]byte{"base": nil, "gateway": []byte(smallGateway)}
	var err error
	if defaults["istiod"], err = Values(h.Bin); err != nil {
		return err
	}
	for name, values := range defaults {
		chart := filepath.Join(h.Dir, "charts", name)
		if err := os.CopyFS(chart, os.DirFS(filepath.Join(h.Bin, "istio-manifests", charts[name]))); err != nil {
			return err
		}
		// Istio's defaults are below one key of values.yaml. Keys beside it override them.
		file := filepath.Join(chart, "values.yaml")
		own, err := os.ReadFile(file)
		if err == nil && values != nil && !bytes.Contains(own, []byte("\n_internal_defaults_do_not_set:\n")) {
			err = fmt.Errorf("%s has no key for Istio's own defaults", file)
		}
		if err == nil {
			err = os.WriteFile(file, append(append(own, '\n'), values...), 0o644)
		}
		for _, version := range versions {
			if err == nil {
				err = h.run("package", chart, "--destination="+dir, "--version="+version, "--app-version="+version)
			}
		}
		if err != nil {
			return err
		}
	}
	return h.run("repo", "index", dir, "--url="+url)
}
