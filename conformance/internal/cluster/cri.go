package cluster

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CRI is a client of the node's runtime, by the interface that the kubelet uses, and what closes it.
func (n *Node) CRI() (client runtimev1.RuntimeServiceClient, closed func() error, err error) {
	connection, err := grpc.NewClient("unix://"+n.Path(socket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	return runtimev1.NewRuntimeServiceClient(connection), connection.Close, nil
}

// PodGroup is the control group of a pod that nobody but its runtime looks after. All of them share one, which is gone
// with the node.
func (n *Node) PodGroup() string { return "/" + group() + "/" + n.Name + "/kubepods/sandboxes" }
