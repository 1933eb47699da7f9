// Package kube is the agent's view of the cluster: the requests that it makes, what it keeps of pods and namespaces,
// and what it reads off a pod. It decides nothing and knows no record.
package kube
