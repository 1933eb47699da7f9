package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
)

// loadSocket is where a cluster that is up takes images.
func (p playground) loadSocket() string { return filepath.Join(p.dir, "images.sock") }

// importer gives a node an image's archive.
type importer interface{ Import(archive string) error }

// takeImages serves what comes by load, until the process ends: the body of a request is an archive, which all nodes
// get. They see the directory.
func takeImages[N importer](l net.Listener, dir string, nodes []N) {
	server := http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if err := take(r.Body, dir, nodes); err != nil {
				http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			}
		})}
	_ = server.Serve(l)
}

func take[N importer](body io.Reader, dir string, nodes []N) error {
	archive, err := os.CreateTemp(dir, "image-*.tar")
	if err != nil {
		return err
	}
	defer os.Remove(archive.Name())
	_, err = io.Copy(archive, body)
	if err := errors.Join(err, archive.Close()); err != nil {
		return err
	}
	for _, n := range nodes {
		if err := n.Import(archive.Name()); err != nil {
			return err
		}
	}
	return nil
}

// load gives all nodes of the cluster at dir what an archive has.
func (p playground) load(archive io.Reader) error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", p.loadSocket())
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
