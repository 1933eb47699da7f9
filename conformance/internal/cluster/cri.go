package cluster

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CRI returns a client of the node's container runtime, over the CRI as the kubelet uses it, and a function that closes
// the connection.
func (n *Node) CRI() (client runtimev1.RuntimeServiceClient, closed func() error, err error) {
	connection, err := grpc.NewClient("unix://"+n.Path(socket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	return runtimev1.NewRuntimeServiceClient(connection), connection.Close, nil
}

// PodGroup returns the control group for pods that a test creates through CRI, without the kubelet. All of them share
// it. It is removed with the node.
func (n *Node) PodGroup() string { return "/" + group() + "/" + n.Name + "/kubepods/sandboxes" }
