package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/istio-pod-network/controller/scripts/images/ocitar"
)

// Helm's media types for charts in a registry (https://helm.sh/docs/topics/registries/).
const (
	chartConfig  types.MediaType = "application/vnd.cncf.helm.config.v1+json"
	chartContent types.MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// packChart writes the chart as helm package does, and as the OCI artifact that helm push makes. Helm's own commands
// would write the present time into both.
func (b builder) packChart(ctx context.Context) error {
	list := exec.CommandContext(ctx, "git", "-C", filepath.Join(b.root, b.chart.dir), "ls-files", "-z")
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	var files []file
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(b.root, b.chart.dir, name))
		if err != nil {
			return err
		}
		f := file{b.chart.Name + "/" + name, data, 0o644}
		if name == "Chart.yaml" { // the first file, as Helm does it
			files = append([]file{f}, files...)
		} else {
			files = append(files, f)
		}
	}
	archive := b.name(b.chart.Name, ".tgz")
	if err := b.write(archive, b.tarball, files); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(b.dir, archive))
	if err != nil {
		return err
	}
	image, err := b.chartArtifact(data)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.work, "chart-")
	if err != nil {
		return err
	}
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	named := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": b.version})
	if err := l.AppendImage(image, named); err != nil {
		return err
	}
	return ocitar.Pack(dir, filepath.Join(b.dir, b.name(b.chart.Name, layoutSuffix)))
}

// stored is an artifact made of its bytes.
type stored struct {
	manifest, config []byte
	layer            v1.Layer
}

// chartArtifact returns the chart as an OCI artifact.
func (b builder) chartArtifact(data []byte) (v1.Image, error) {
	config, err := json.Marshal(b.chart.raw)
	if err != nil {
		return nil, err
	}
	content := static.NewLayer(data, chartContent)
	describe := func(layer v1.Layer) (d v1.Descriptor, err error) {
		described, err := partial.Descriptor(layer)
		if err == nil {
			d = *described
		}
		return d, err
	}
	first, err := describe(static.NewLayer(config, chartConfig))
	if err != nil {
		return nil, err
	}
	second, err := describe(content)
	if err != nil {
		return nil, err
	}
	const prefix = "org.opencontainers.image."
	description, _ := b.chart.raw["description"].(string)
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: first, Layers: []v1.Descriptor{second},
		Annotations: map[string]string{
			prefix + "title": b.chart.Name, prefix + "description": description, prefix + "version": b.version,
			prefix + "source": home, prefix + "revision": b.commit, prefix + "created": b.created.Format(time.RFC3339),
		},
	})
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(stored{manifest, config, content})
}

func (s stored) RawManifest() ([]byte, error)        { return s.manifest, nil }
func (s stored) RawConfigFile() ([]byte, error)      { return s.config, nil }
func (s stored) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (s stored) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	if digest, err := s.layer.Digest(); err != nil || digest == h {
		return s.layer, err
	}
	return nil, errors.New("it has no layer " + h.String())
}
