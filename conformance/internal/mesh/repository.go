package mesh

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// smallGateway are values of the chart gateway for a machine on which all nodes are, and the images with them.
const smallGateway = `autoscaling: {enabled: false}
imagePullPolicy: IfNotPresent
resources: {requests: {cpu: 10m, memory: 64Mi}}
`

// Repository makes a directory what serves Istio's charts base, istiod and gateway at a URL, as Istio's own repository
// does, in these versions. What Values says of these images are the charts' defaults there, so that whoever installs
// them need not know it.
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
		// Istio's own defaults are below a key of their own, and what stands beside it wins over them.
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
