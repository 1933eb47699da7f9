package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// levels are the levels of Pod Security, the strictest first.
var levels = []string{restricted, "baseline", "privileged"}

// needs finds out what the way requires. It returns an error if the table says otherwise.
func (v *visit) needs(ctx context.Context, m *measurement) error {
	n := &needs{Containers: v.inits}
	for _, level := range levels {
		admits, err := v.admits(ctx, level)
		if err != nil {
			return err
		}
		if admits {
			n.Level = level
			break
		}
	}
	m.Needs = n
	var err error
	if n.Tokens, err = v.tokens(); err != nil {
		return err
	}
	if said := v.table; n.Level != said.admits || strings.Join(n.Tokens, " ") != said.token {
		return fmt.Errorf("the table says Pod Security %q and credential %q; seen: %q and %q", said.admits, said.token,
			n.Level, n.Tokens)
	}
	return nil
}

// admits reports whether a namespace with that level of Pod Security admits the way's pods.
func (v *visit) admits(ctx context.Context, level string) (bool, error) {
	name := v.namespace + "-" + level
	namespaces := v.cluster.Client.CoreV1().Namespaces()
	_, err := namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name,
		Labels: map[string]string{"istio-injection": "enabled", enforce: level}}}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	pod := v.newPod("try")
	pod.Namespace = name
	admitted := false
	err = until(ctx, "the API server decides about a pod", func() (bool, error) {
		_, err := v.cluster.Client.CoreV1().Pods(name).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{"All"}})
		admitted = err == nil
		return admitted || strings.Contains(err.Error(), "violates PodSecurity"), nil
	})
	if err == nil {
		err = namespaces.Delete(ctx, name, metav1.DeleteOptions{}) // clean waits for its end
	}
	return admitted, err
}

// disk are the directories of the node in which a way may leave something. notItsOwn are directories below them that
// belong to others.
var (
	disk      = []string{"/etc/cni", "/opt/cni", "/run", "/var/lib/cni"}
	notItsOwn = []string{"/run/containerd", "/run/overlay", "/run/netns"}
)

// jwt is the beginning of a service account's token (RFC 7515: a JSON header in base64url).
var jwt = []byte("eyJhbGciOi")

// tokens returns the files of the node that have a token.
func (v *visit) tokens() (found []string, err error) {
	for _, dir := range disk {
		root := v.node.Path(dir)
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			name := dir + strings.TrimPrefix(path, root)
			switch {
			case err != nil: // it was deleted, or never existed
				return nil
			case e.IsDir() && slices.Contains(notItsOwn, name):
				return fs.SkipDir
			case !e.Type().IsRegular():
				return nil
			}
			data, err := os.ReadFile(path)
			if err == nil && bytes.Contains(data, jwt) && !bytes.HasPrefix(data, []byte("\x7fELF")) {
				found = append(found, name)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}
