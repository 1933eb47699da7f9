package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/escape"
	corev1 "k8s.io/api/core/v1"
)

// attackingUser is a user other than the sidecar's.
const attackingUser = 1000

// attacked adds a container to a pod that makes every known attempt to get around a sidecar. It has no capabilities and
// no privileges.
func attacked(pod *corev1.Pod) *corev1.Pod {
	attacker := container(pod, "app").DeepCopy()
	attacker.Name, attacker.SecurityContext = "attacker", restricted(attackingUser)
	attacker.Command = []string{"/podprogram", "escape", "-name=" + pod.Namespace + "/" + pod.Name}
	attacker.Args = []string{strings.TrimPrefix(target4, "tcp:"), strings.TrimPrefix(target6, "tcp:")}
	pod.Spec.Containers = append(pod.Spec.Containers, *attacker)
	return pod
}

// An app without any privilege tries to send TCP around its sidecar, or to use connection tracking so that a peer
// outside reaches it around the sidecar. The peer counts what it answers: nothing from a mesh pod, and every attempt
// from a pod outside the mesh, which proves that the attempt is real. The exceptions are attempts from an address of
// lo: only the mesh's rules make them possible, or they never leave the pod.
func TestEscape(t *testing.T) {
	r := newRig(t)
	r.installed()
	home := r.namespace
	r.create(attacked(r.appPod("plain")))
	r.create(attacked(r.meshPod("cart-0")))
	r.namespace = r.newNamespace(enforcing("privileged"), nil) // the sidecar needs it, not the app
	r.create(attacked(inTPROXY(r.meshPod("cart-1"))))
	r.keptBySidecar("cart-1")
	r.namespace = home
	r.keptBySidecar("cart-0")
	r.wereReal("plain")
}

// wereReal fails unless the peer has answered every attempt of a pod outside the mesh. Attempts from lo are exempt.
func (r *rig) wereReal(name string) {
	r.Helper()
	made, answered := r.escapes(name)
	for attempt := range made {
		way, _, _ := strings.Cut(attempt, " ")
		reaches := func() bool { // a busy peer may read, and count, a call that no longer waits for the answer
			answered[attempt] = max(answered[attempt], outside.reached(r.namespace, name+" "+attempt))
			return answered[attempt] > 0
		}
		if a, _ := escape.Named(way); !a.Loopback && !r.soon(reaches) {
			r.Errorf("no attempt %s of a pod outside the mesh is answered by the peer: it attacks nothing:\n%s", attempt,
				r.says(name, "attacker"))
		}
		r.control += answered[attempt]
	}
}

// keptBySidecar fails if the peer has answered an attempt of a mesh pod, or if the sidecar does not serve the app.
func (r *rig) keptBySidecar(name string) {
	r.Helper()
	r.notEscaped(name)
	r.throughSidecar(name)
	r.answersFrom("sidecar-inbound", r.pod(name), 8080)
}

// notEscaped fails if the peer has answered an attempt of a mesh pod.
func (r *rig) notEscaped(name string) {
	r.Helper()
	made, answered := r.escapes(name)
	escapes := 0
	for attempt, times := range made {
		r.attempts += times
		escapes += times
		r.leaks += answered[attempt]
		if answered[attempt] > 0 {
			r.Errorf("leak: the peer has answered %s of %s %d times", attempt, name, answered[attempt])
		}
	}
	r.note("%s: %d attempts of %d kinds", name, escapes, len(made))
}

// escapes waits until a pod has made all its attempts. It returns how often it made each, by name and family, and how
// often the peer has answered it.
func (r *rig) escapes(name string) (made, answered map[string]int) {
	r.Helper()
	log := ""
	r.eventually("all attempts of "+name+" are made", func() bool {
		log = r.says(name, "attacker")
		return strings.Contains(log, "all attempts made\n")
	})
	made, answered = map[string]int{}, map[string]int{}
	for line := range strings.Lines(log) {
		if words := strings.Fields(line); len(words) > 3 && words[0] == "escape" && words[3] != "not" {
			attempt := words[1] + " " + words[2]
			made[attempt]++
			answered[attempt] = outside.reached(r.namespace, name+" "+attempt)
			if words[3] == "answer" && words[4] == "peer" && answered[attempt] == 0 {
				answered[attempt] = 1
			}
		}
	}
	if all := slices.Sorted(maps.Keys(made)); !slices.Equal(all, attempts()) {
		r.Errorf("%s has made the attempts %q, not %q:\n%s", name, all, attempts(), log)
	}
	return made, answered
}

// attempts returns the attempts that a pod with one interface can make, by name and family, sorted.
func attempts() []string {
	var all []string
	for _, a := range escape.Attempts {
		for family, ipv6 := range map[string]bool{"IPv4": false, "IPv6": true} {
			if a.In(ipv6) && !a.NeedsSecond() {
				all = append(all, fmt.Sprint(a.Name, " ", family))
			}
		}
	}
	slices.Sort(all)
	return all
}
