// Package scc decides about a pod as OpenShift's admission of SecurityContextConstraints does, of which no Go module
// can be had: constraints fill in what a pod leaves open, and then admit or refuse it. The rules are those that
// openshift/apiserver-library-go (pkg/securitycontextconstraints) publishes, without the parts that no pod of these
// tests touches: flex volumes, sysctls that are not safe (a pod that has any is refused here), ephemeral containers and
// the annotations that once were seccomp's.
package scc

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Annotations of a namespace, of a pod that wants certain constraints, and of one that was admitted by some.
const (
	// of a namespace: first/count, such as 1000660000/10000, or first-last
	KeyUsers = "openshift.io/sa.scc.uid-range"
	// of a namespace: some of those, after commas; absent: the users'
	KeyGroups   = "openshift.io/sa.scc.supplemental-groups"
	KeyLevel    = "openshift.io/sa.scc.mcs" // of a namespace: an SELinux level such as s0:c26,c5
	KeyRequired = "openshift.io/required-scc"
	KeyAdmitted = "openshift.io/scc"
)

// The strategies.
const (
	runAsAny       = "RunAsAny"
	mustRunAs      = "MustRunAs"
	mustRunAsRange = "MustRunAsRange"
	nonRoot        = "MustRunAsNonRoot"
)

// Constraints are an object SecurityContextConstraints of security.openshift.io/v1.
type Constraints struct {
	Metadata struct{ Name string }
	Priority *int32

	AllowHostNetwork, AllowHostPID, AllowHostIPC, AllowHostPorts bool
	AllowPrivilegedContainer, ReadOnlyRootFilesystem             bool
	AllowPrivilegeEscalation, DefaultAllowPrivilegeEscalation    *bool

	AllowedCapabilities, DefaultAddCapabilities, RequiredDropCapabilities []corev1.Capability

	Volumes, SeccompProfiles []string
	UserNamespaceLevel       string
	RunAsUser                Users
	RunAsGroup               Groups
	FSGroup                  Groups
	SupplementalGroups       Groups
	SELinuxContext           struct {
		Type           string
		SELinuxOptions *corev1.SELinuxOptions
	}
}

// Users says as which users containers may run.
type Users struct {
	Type                          string
	UID, UIDRangeMin, UIDRangeMax *int64
}

// Groups says which groups there may be.
type Groups struct {
	Type   string
	Ranges []Range
}

// Range is a range of IDs with both its ends.
type Range struct{ Min, Max int64 }

func (r Range) holds(id int64) bool { return r.Min <= id && id <= r.Max }

// Admit is what becomes of a pod that is made in a namespace with those annotations: it is admitted by the first of all
// constraints, in their order, that may be used and that it fits, once they have filled in what it leaves open. final
// says that it is not for changing any more, since all of admission has seen it. The error lists why each of the
// constraints does not admit it.
func Admit(pod *corev1.Pod, namespace map[string]string, all []Constraints, mayUse func(name string) bool,
	final bool) (*corev1.Pod, error) {
	sorted := slices.SortedFunc(slices.Values(all), compare)
	if name, required := pod.Annotations[KeyRequired]; required {
		sorted = slices.DeleteFunc(sorted, func(c Constraints) bool { return c.Metadata.Name != name })
		if len(sorted) == 0 {
			return nil, fmt.Errorf("failed to retrieve the required SCC %q", name)
		}
	}
	var reasons []string
	for _, c := range sorted {
		if !mayUse(c.Metadata.Name) {
			reasons = append(reasons, fmt.Sprintf("%s: not usable by user or serviceaccount", c.Metadata.Name))
			continue
		}
		c, err := c.allocated(namespace)
		if err != nil {
			return nil, err
		}
		admitted := pod.DeepCopy()
		c.fillIn(admitted)
		refused := c.validate(admitted)
		if final && !equality.Semantic.DeepEqual(admitted.Spec, pod.Spec) {
			refused = append(refused, "would have to change the pod")
		}
		if len(refused) > 0 {
			reasons = append(reasons, c.Metadata.Name+": "+strings.Join(refused, ", "))
			continue
		}
		if !final {
			admitted.Annotations = maps.Clone(admitted.Annotations)
			if admitted.Annotations == nil {
				admitted.Annotations = map[string]string{}
			}
			admitted.Annotations[KeyAdmitted] = c.Metadata.Name
		}
		return admitted, nil
	}
	return nil, fmt.Errorf("unable to validate against any security context constraint: %s", strings.Join(reasons, "; "))
}

// compare puts constraints into the order in which they are tried: by priority, then the more restrictive ones first,
// then by name.
func compare(a, b Constraints) int {
	priority := func(c Constraints) int32 {
		if c.Priority == nil {
			return 0
		}
		return *c.Priority
	}
	return cmp.Or(cmp.Compare(priority(b), priority(a)), cmp.Compare(a.points(), b.points()),
		cmp.Compare(a.Metadata.Name, b.Metadata.Name))
}

// points say how little constraints restrict (util/sort/byrestrictions.go).
func (c Constraints) points() (points int) {
	if c.AllowPrivilegedContainer {
		points += 1000000
	}
	trivial := []string{"secret", "configMap", "emptyDir", "downwardAPI", "projected", "none"}
	switch {
	case slices.Contains(c.Volumes, "hostPath") || slices.Contains(c.Volumes, "*"):
		points += 100000
	case slices.ContainsFunc(c.Volumes, func(v string) bool { return !slices.Contains(trivial, v) }):
		points += 50000
	}
	if c.AllowHostNetwork {
		points += 200000
	}
	if c.AllowHostPorts {
		points += 400000
	}
	capabilities := 5000 + 300*len(c.DefaultAddCapabilities)
	if slices.Contains(c.AllowedCapabilities, "*") || slices.Contains(c.AllowedCapabilities, "ALL") {
		capabilities += 4000
	} else {
		capabilities += 10 * len(c.AllowedCapabilities)
	}
	if slices.Contains(c.RequiredDropCapabilities, "ALL") {
		capabilities -= 3000
	} else {
		capabilities -= 50 * len(c.RequiredDropCapabilities)
	}
	points += min(max(capabilities, 0), 9999)
	strategies := map[string]int{runAsAny: 40000, nonRoot: 30000, mustRunAsRange: 20000, mustRunAs: 10000}
	return points + strategies[c.SELinuxContext.Type] + strategies[c.RunAsUser.Type]
}
