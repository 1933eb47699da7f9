package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
)

// load loads the images of an archive into all nodes of the cluster in dir.
func (p playground) load(archive io.Reader) error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", cluster.LoadSocket(p.dir))
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial}}
	response, err := client.Post("http://cluster/images", "application/x-tar", archive)
	if err != nil {
		return fmt.Errorf("the cluster does not answer: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	return fmt.Errorf("the nodes do not take it: %s", strings.TrimSpace(string(text)))
}

// loadFile loads an archive, or with a name an image that has only this program.
func (p playground) loadFile(path, name string) error {
	if name != "" {
		dir, err := os.MkdirTemp("", "playground-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		archive, program := filepath.Join(dir, "image.tar"), filepath.Base(path)
		// Pod Security restricted needs an image whose user is not root.
		if err := cluster.Image(archive, fullName(name), "65532:65532",
			[]cluster.File{{Source: path, Path: program}}, "/"+program); err != nil {
			return err
		}
		path = archive
	}
	if path == "-" {
		return p.load(os.Stdin)
	}
	archive, err := os.Open(path)
	if err != nil {
		return err
	}
	defer archive.Close()
	return p.load(archive)
}

// fullName returns the runtime's name of an image for that in a pod.
func fullName(name string) string {
	host, _, found := strings.Cut(name, "/")
	switch {
	case !found:
		name = "docker.io/library/" + name
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		name = "docker.io/" + name
	}
	if !strings.Contains(name[strings.LastIndex(name, "/"):], ":") {
		name += ":latest"
	}
	return name
}
