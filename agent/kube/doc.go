// Package kube is the agent's view of the cluster: its requests, its caches of pods and namespaces, and what it reads
// from a pod. It makes no decisions and does not know records.
package kube
