//go:build libcni1_1

package main

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/libcni"
)

var errNone = errors.New("this libcni has neither STATUS nor GC")

func status(context.Context, *libcni.CNIConfig, *libcni.NetworkConfigList) error { return errNone }

func collectGarbage(context.Context, *libcni.CNIConfig, *libcni.NetworkConfigList, []string, string) error {
	return errNone
}
