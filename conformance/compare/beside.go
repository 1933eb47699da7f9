package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/faulttable"
)

// beside installs this project beside Istio CNI, as during a migration. Istio's plugin runs first and writes a pod's
// rules, the pod is served, and the operator's tool reports the other plugin as the table of faults says.
func (b *bench) beside(ctx context.Context) error {
	b.progress = "istio-cni, and this project beside it"
	its, err := wayOf("istio-cni")
	if err != nil {
		return err
	}
	own, err := wayOf("wait")
	if err != nil {
		return err
	}
	v, err := b.open(ctx, its, 0)
	if err == nil {
		err = v.install(ctx)
	}
	if err == nil {
		err = v.besideOurs(ctx, &visit{bench: b, way: own})
	}
	if v == nil {
		return err
	}
	return errors.Join(err, v.close(ctx))
}

// besideOurs installs this project, creates a pod, and asks the tool.
func (v *visit) besideOurs(ctx context.Context, ours *visit) (err error) {
	defer func() {
		a := ours.agent
		err = errors.Join(err, v.empty(ctx), v.helm.Uninstall(a.release, a.namespace),
			run(v.kubectl("delete", "namespace", a.namespace, "--ignore-not-found")))
	}()
	if err := ours.ours(); err != nil {
		return err
	}
	names := []string{"beside"}
	defer func() { err = errors.Join(err, v.remove(ctx, names)) }()
	start := time.Now()
	if err := v.make(ctx, names); err != nil {
		return err
	}
	m := measurement{Part: "beside", Number: 1, Count: 1}
	if m.outcome = v.settle(ctx, names, start, patience); m.served() != nil {
		return m.served()
	}
	about := []string{"", names[0]} // "" is the cluster
	for _, n := range v.cluster.Nodes {
		about = append(about, n.Name)
	}
	for _, f := range faulttable.MadeBy(faulttable.Compare) {
		for _, command := range faulttable.Compare.Commands() {
			if err := v.says(ctx, f, command, names[0], about); err != nil {
				return err
			}
		}
		say("%s: the tool says so: %s", v.progress, f.Name)
	}
	return nil
}

// says waits until a command of the tool reports a fault as the table says.
func (v *visit) says(ctx context.Context, f faulttable.Fault, command, pod string, about []string) error {
	var wrong error
	err := until(ctx, "the tool says what the table has", func() (bool, error) {
		args := faulttable.Args(command, v.namespace+"/"+pod)
		out, err := v.asAdmin(exec.Command(filepath.Join(v.cluster.Bin, "istio-pod-networkctl"), args...)).Output()
		status := 0
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			status, err = failed.ExitCode(), nil
		}
		if err != nil {
			return false, err
		}
		said, err := faulttable.Read(command, out)
		if err != nil {
			return false, fmt.Errorf("%s: status %d: %w", strings.Join(args, " "), status, err)
		}
		wrong = f.Judge(command, status, said, about...)
		return wrong == nil, nil
	})
	return errors.Join(err, wrong)
}
