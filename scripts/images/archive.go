package main

import (
	"context"
	"fmt"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/istio-pod-network/controller/scripts/images/ocitar"
)

// deliver writes an archive with an image for all platforms, and pushes the image if --push is set.
func (o options) deliver(ctx context.Context, i imageSpec, built []v1.Image, archive string) error {
	all := index(built, o.platforms)
	if err := o.writeArchive(archive, "docker.io/library/"+i.name, o.version, built, all); err != nil {
		return fmt.Errorf("writing %q: %w", archive, err)
	}
	if o.push == "" {
		return nil
	}
	tag := fmt.Sprintf("%s/%s:%s", o.push, i.name, o.version)
	reference, err := name.ParseReference(tag)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "images: pushing", tag)
	to := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	if len(built) == 1 {
		return remote.Write(reference, built[0], to...)
	}
	return remote.WriteIndex(reference, all, to...)
}

// index returns an image index with one image for each platform.
func index(built []v1.Image, platforms []v1.Platform) v1.ImageIndex {
	all := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for n, image := range built {
		all = mutate.AppendManifests(all,
			mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &platforms[n]}})
	}
	return all
}

// writeArchive writes a tar of an OCI image layout. It sets two annotations with the image's name: containerd reads the
// first one, others the second one.
func (o options) writeArchive(path, repository, version string, built []v1.Image, all v1.ImageIndex) error {
	dir, err := os.MkdirTemp(o.work, "layout-")
	if err != nil {
		return err
	}
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	named := layout.WithAnnotations(map[string]string{"io.containerd.image.name": repository + ":" + version,
		"org.opencontainers.image.ref.name": version})
	if len(built) == 1 {
		err = l.AppendImage(built[0], named)
	} else {
		err = l.AppendIndex(all, named)
	}
	if err != nil {
		return err
	}
	return ocitar.Pack(dir, path)
}

// readArchive unpacks a tar of an OCI image layout and returns its only image. dir has to stay as long as the image is
// used.
func readArchive(path, dir string) (v1.Image, error) {
	if err := ocitar.Unpack(path, dir); err != nil {
		return nil, fmt.Errorf("reading %q: %w", path, err)
	}
	all, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := all.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(manifest.Manifests) != 1 {
		return nil, fmt.Errorf("%d images in %q, want one", len(manifest.Manifests), path)
	}
	return all.Image(manifest.Manifests[0].Digest)
}
