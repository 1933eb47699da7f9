package check

import (
	"cmp"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// versionLabel is where Kubernetes recommends to say the version of what an object is of.
const versionLabel = "app.kubernetes.io/version"

// versionOf is that of a program: by the tag of the first container's image that has one, else by the labels of its
// object; "" if neither says it.
func versionOf(containers []corev1.Container, labels map[string]string) (version string) {
	for _, c := range containers {
		version = cmp.Or(version, tagOf(c.Image))
	}
	return cmp.Or(version, labels[versionLabel])
}

// tagOf is the tag in the name of an image, "" if there is none: that may have a port before it, and a digest behind.
func tagOf(image string) string {
	name, _, _ := strings.Cut(image, "@")
	_, tag, _ := strings.Cut(name[strings.LastIndex(name, "/")+1:], ":")
	return tag
}
