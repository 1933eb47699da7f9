//go:build !libcni1_1

package main

import (
	"context"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// status calls STATUS of a network.
func status(ctx context.Context, cni *libcni.CNIConfig, list *libcni.NetworkConfigList) error {
	return cni.GetStatusNetworkList(ctx, list)
}

// collectGarbage calls GC of a network with the valid attachments.
func collectGarbage(
	ctx context.Context, cni *libcni.CNIConfig, list *libcni.NetworkConfigList, containerIDs []string, ifName string,
) error {
	args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}
	for _, id := range containerIDs {
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: id, IfName: ifName})
	}
	return cni.GCNetworkList(ctx, list, args)
}
