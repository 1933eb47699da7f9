// The driver with the libcni of earlier releases of CRI-O: go build -modfile of this file, in conformance.
module github.com/istio-pod-network/controller/conformance

go 1.26.8

require (
	github.com/containernetworking/cni v1.1.2
	golang.org/x/sys v0.49.0
)
