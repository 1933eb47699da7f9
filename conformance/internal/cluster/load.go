package cluster

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// LoadSocket returns the path of the Unix socket on which a cluster takes images from `scripts/cluster.sh load`. dir is
// the cluster's directory.
func LoadSocket(dir string) string { return filepath.Join(dir, "images.sock") }

// Importer is a node that can import an image archive.
type Importer interface{ Import(archive string) error }

// TakeImages serves HTTP until the listener is closed. The body of a request is an image archive, which it writes into
// dir and imports on every node. The nodes must see dir.
func TakeImages[N Importer](l net.Listener, dir string, nodes []N) {
	server := http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if err := take(r.Body, dir, nodes); err != nil {
				http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			}
		})}
	_ = server.Serve(l)
}

func take[N Importer](body io.Reader, dir string, nodes []N) error {
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
