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

// load gives all nodes of the cluster at dir what an archive has.
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

// loadFile loads an archive, or that of an image of one program if it has a name.
func (p playground) loadFile(path, name string) error {
	if name != "" {
		dir, err := os.MkdirTemp("", "playground-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		archive, program := filepath.Join(dir, "image.tar"), filepath.Base(path)
		// Pod Security restricted wants an image whose user is not root.
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

// fullName is an image's name as the runtime has it, of one as a pod has it.
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
