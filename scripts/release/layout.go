package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/istio-pod-network/controller/scripts/images/ocitar"
)

// content is the only image, index or chart in an archive of an OCI layout.
type content struct {
	digest v1.Hash
	index  v1.ImageIndex // or nil
	image  v1.Image      // or nil
}

// openLayout unpacks an archive below work and reads it. work has to stay as long as the content is used.
func openLayout(archive, work string) (c content, err error) {
	dir, err := os.MkdirTemp(work, "layout-")
	if err == nil {
		err = ocitar.Unpack(archive, dir)
	}
	if err != nil {
		return c, fmt.Errorf("reading %q: %w", archive, err)
	}
	all, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return c, err
	}
	manifest, err := all.IndexManifest()
	if err != nil {
		return c, err
	}
	if len(manifest.Manifests) != 1 {
		return c, fmt.Errorf("%d images in %q, want one", len(manifest.Manifests), archive)
	}
	described := manifest.Manifests[0]
	c.digest = described.Digest
	if described.MediaType.IsIndex() {
		c.index, err = all.ImageIndex(c.digest)
	} else {
		c.image, err = all.Image(c.digest)
	}
	return c, err
}

// programs returns the programs in an image for all its platforms.
func (c content) programs() (list []program, err error) {
	manifest, err := c.index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, described := range manifest.Manifests {
		image, err := c.index.Image(described.Digest)
		if err != nil {
			return nil, err
		}
		files := mutate.Extract(image)
		for r := tar.NewReader(files); ; {
			header, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
			if header.Typeflag != tar.TypeReg || header.Mode&0o100 == 0 {
				continue
			}
			data, err := io.ReadAll(r)
			if err != nil {
				return nil, err
			}
			path := strings.TrimPrefix(header.Name, "/")
			p, err := readProgram(filepath.Join(described.Platform.String(), path), described.Platform.String(), data)
			if err != nil {
				return nil, err
			}
			list = append(list, p)
		}
		_ = files.Close()
	}
	return list, nil
}
