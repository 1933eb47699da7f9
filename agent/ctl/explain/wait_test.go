package explain

import (
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/plugin/annotation"
	corev1 "k8s.io/api/core/v1"
)

// The init wait's own words: its log, its termination message, or why the kubelet does not start it.
func TestWait(t *testing.T) {
	runs := func(f *fake, since time.Duration) {
		f.pod.Annotations = map[string]string{annotation.SidecarStatus: "{}"}
		f.told.Record, f.told.WaitsLong = nil, since < -time.Minute
		f.pod.Status.InitContainerStatuses[0].State = corev1.ContainerState{
			Running: &corev1.ContainerStateRunning{StartedAt: at(since)}}
		f.log = "istio-pod-network-wait: waiting for 5s: annotation: absent\n\n" +
			"istio-pod-network-wait: waiting for 10s: annotation: absent\x1b[2J; probe: \xff127.0.0.6:15002 is refused\n"
	}
	held := func(f *fake, reason, message string) {
		f.pod.Status.InitContainerStatuses[0] = corev1.ContainerStatus{Name: "istio-validation",
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
	}
	situations{
		"waits-long": {injected, func(f *fake) { runs(f, -4*time.Minute) }, outcome.NotWell},
		"waits":      {injected, func(f *fake) { f.told.Bypassed = true; runs(f, -20*time.Second) }, outcome.NotWell},
		"waits-no-log": {injected, func(f *fake) {
			runs(f, -4*time.Minute)
			f.errs["log"] = forbidden("pods/log")
		}, outcome.NotWell},
		"waits-nobody-told": {injected, func(f *fake) {
			runs(f, -4*time.Minute)
			f.agent = nil
		}, outcome.NotWell},
		"gave-up-silently": {injected, func(f *fake) {
			f.pod.Status.InitContainerStatuses[0] = givenUp("")
			f.log = "error Output of iptables validation: connection refused\n"
		}, outcome.NotWell},
		"no-image": {injected, func(f *fake) { held(f, "ImagePullBackOff", `Back-off pulling image "wait:none"`) },
			outcome.NotWell},
		"cannot-start": {injected, func(f *fake) { held(f, "CreateContainerConfigError", "") }, outcome.NotWell},
		"starts":       {injected, func(f *fake) { held(f, "PodInitializing", "") }, outcome.Well},
	}.show(t)
}
