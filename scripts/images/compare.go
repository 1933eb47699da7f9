package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// compare returns an error unless the image has the files and the configuration of an assembled one.
func (o options) compare(ctx context.Context, i imageSpec, p v1.Platform, got v1.Image) error {
	want, err := assembler{o}.build(ctx, i, p)
	if err != nil {
		return err
	}
	a, err := describe(want)
	if err != nil {
		return err
	}
	b, err := describe(got)
	if err != nil {
		return err
	}
	var differences []error
	for _, key := range slices.Sorted(maps.Keys(merged(a, b))) {
		if a[key] != b[key] {
			differences = append(differences, fmt.Errorf("%s: %q, assembled %q", key, b[key], a[key]))
		}
	}
	return errors.Join(differences...)
}

func merged(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// describe returns what must be equal in two builds of one image, by name.
func describe(image v1.Image) (map[string]string, error) {
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	all := map[string]string{
		"platform": config.OS + "/" + config.Architecture, "user": config.Config.User,
		"entrypoint": strings.Join(config.Config.Entrypoint, " "),
		"command":    strings.Join(config.Config.Cmd, " "), "created": config.Created.UTC().String(),
	}
	for key, value := range config.Config.Labels {
		if !strings.HasPrefix(key, "io.buildah.") {
			all["label "+key] = value
		}
	}
	contents := tar.NewReader(mutate.Extract(image))
	for {
		header, err := contents.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if header.Typeflag == tar.TypeDir {
			continue
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, contents); err != nil {
			return nil, err
		}
		all["file "+strings.TrimPrefix(header.Name, "/")] = fmt.Sprintf("mode %o owner %d:%d time %d sha256 %x",
			header.Mode&0o7777, header.Uid, header.Gid,
			header.ModTime.Unix(), sum.Sum(nil))
	}
}

// contentSize returns the compressed size of the layers in bytes.
func contentSize(image v1.Image) (size int64, err error) {
	layers, err := image.Layers()
	if err != nil {
		return 0, err
	}
	for _, layer := range layers {
		n, err := layer.Size()
		if err != nil {
			return 0, err
		}
		size += n
	}
	return size, nil
}
