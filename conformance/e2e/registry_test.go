package e2e

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Credentials of the reader for the registry.
const readerName, readerPassword = "reader", "let-me-in"

// images is a registry that a reader pushes to and nodes pull from. A push requires the password, and a pull too once
// the registry is private.
type images struct {
	*reader
	host    string
	private atomic.Bool
}

// registry starts a registry. The nodes in on also reach it under other names that the pages use. The images that they
// have pulled are removed at the end of the test.
func (n *reader) registry(on []*cluster.Node, alsoNamed ...string) *images {
	n.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(cluster.Address, "0"))
	must(n, err)
	i := &images{reader: n, host: listener.Addr().String()}
	blobs := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pull := r.Method == http.MethodGet || r.Method == http.MethodHead
		if user, password, _ := r.BasicAuth(); (user != readerName || password != readerPassword) &&
			(!pull || i.private.Load() || r.URL.Path == "/v2/") {
			w.Header().Set("WWW-Authenticate", `Basic realm="images"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		blobs.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(listener) }()
	n.Cleanup(func() { must(n, server.Close()) })
	for _, node := range on {
		for _, name := range append(alsoNamed, i.host) {
			must(n, node.PullsFrom(name, i.host))
			n.Cleanup(func() { must(n, node.Forget(name)) })
		}
	}
	n.environment = append(n.environment, "REGISTRY_HOST="+i.host, "READER="+readerName, "PASSWORD="+readerPassword)
	n.builds()
	return i
}

// builds makes the reader's scripts/images.sh build images with Go alone, because another builder would need a base
// image.
func (n *reader) builds() {
	n.Helper()
	out, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE").Output()
	must(n, err)
	where := strings.Fields(string(out))
	if len(where) != 2 {
		n.Fatalf("go env says %q", out)
	}
	n.environment = append(n.environment, "GOCACHE="+where[0], "GOMODCACHE="+where[1]) // instead of the reader's home
	root, err := filepath.Abs(build.Root())
	must(n, err)
	must(n, os.WriteFile(filepath.Join(n.dir, "scripts", "images.sh"), fmt.Appendf(nil,
		"#!/bin/sh\nexec %s --builder none --output %s \"$@\"\n", filepath.Join(root, "scripts", "images.sh"),
		n.TempDir()), 0o755))
}

// loggedIn logs the reader in before a page begins.
func (i *images) loggedIn() {
	i.Helper()
	cmd := exec.Command(filepath.Join(i.programs, "docker"), "login", i.host)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + i.dir}, i.environment...)
	i.output(cmd)
}

// digest returns the digest of an image in the registry.
func (i *images) digest(name string) string {
	i.Helper()
	repository, tag, _ := strings.Cut(name, ":")
	request, err := http.NewRequestWithContext(i.ctx, http.MethodHead,
		fmt.Sprintf("http://%s/v2/%s/manifests/%s", i.host, repository, tag), nil)
	must(i, err)
	request.SetBasicAuth(readerName, readerPassword)
	response, err := http.DefaultClient.Do(request)
	must(i, err)
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		i.Fatalf("the registry has no %s: %s", name, response.Status)
	}
	return response.Header.Get("Docker-Content-Digest")
}

// pulled fails unless pods of these namespaces run each of the names, and exactly what was pushed to the repository.
func (i *images) pulled(repository string, names []string, namespaces ...string) {
	i.Helper()
	found := map[string]bool{}
	check := func(pod corev1.Pod, c corev1.ContainerStatus) {
		short := imageOf(pod, c.Name, repository)
		if short == "" {
			return
		}
		found[short] = true
		_, path, _ := strings.Cut(repository, "/")
		if want := i.digest(path + "/" + short); !strings.HasSuffix(c.ImageID, "@"+want) {
			i.Errorf("%s/%s: %s runs %s, pushed was %s as %s", pod.Namespace, pod.Name, c.Name, c.ImageID, short, want)
		}
	}
	for _, namespace := range namespaces {
		for _, pod := range i.withImages(namespace) {
			for _, c := range containersOf(pod) {
				check(pod, c)
			}
		}
	}
	for _, name := range names {
		if !found[name+":"+version()] {
			i.Errorf("no pod runs %s of %s, but %v", name, repository, found)
		}
	}
}

// withImages waits until each container of a namespace's pods has its image, and returns the pods.
func (i *images) withImages(namespace string) (pods []corev1.Pod) {
	i.Helper()
	i.eventually("all containers in "+namespace+" have their images", func() bool {
		list, err := nodes.Client.CoreV1().Pods(namespace).List(i.ctx, metav1.ListOptions{})
		must(i, err)
		pods = list.Items
		return !slices.ContainsFunc(pods, func(pod corev1.Pod) bool {
			return slices.ContainsFunc(containersOf(pod), func(c corev1.ContainerStatus) bool { return c.ImageID == "" })
		})
	})
	return pods
}

func containersOf(pod corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
}

// imageOf returns the name and tag of a container's image in a repository, or "" if it is in another.
func imageOf(pod corev1.Pod, container, repository string) string {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if short, is := strings.CutPrefix(c.Image, repository+"/"); is && c.Name == container {
			return short
		}
	}
	return ""
}
