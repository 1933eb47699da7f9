package check

import (
	"cmp"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// versionLabel is the label in which Kubernetes recommends to store an object's version.
const versionLabel = "app.kubernetes.io/version"

// versionOf returns a program's version: the first image tag of its containers, otherwise the label of its object,
// otherwise "".
func versionOf(containers []corev1.Container, labels map[string]string) (version string) {
	for _, c := range containers {
		version = cmp.Or(version, tagOf(c.Image))
	}
	return cmp.Or(version, labels[versionLabel])
}

// tagOf returns the tag in an image's name, "" if there is none. A port may precede it, and a digest may follow.
func tagOf(image string) string {
	name, _, _ := strings.Cut(image, "@")
	_, tag, _ := strings.Cut(name[strings.LastIndex(name, "/")+1:], ":")
	return tag
}
