package e2e

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// template returns an app of the mesh as a pod template. Each pod answers with its own name.
func (m *serviceMesh) template(r *rig, name string) corev1.PodTemplateSpec {
	r.Helper()
	pod := m.app(r, name, name, "v1")
	app := container(pod, "app")
	app.Command[2] = "-name=" + r.namespace + "/$(POD)"
	app.Env = []corev1.EnvVar{{Name: "POD", ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}
	return corev1.PodTemplateSpec{Spec: pod.Spec,
		ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations}}
}

// workloads tests a StatefulSet and a Job. The pods of the StatefulSet are called by their own names, from other pods
// and by each other, by mTLS. The Job calls a service of the mesh and tries to reach the peer. It completes, because it
// has a native sidecar.
func (m *serviceMesh) workloads(r *rig) {
	r.namespace = m.namespace
	r.service("ledger", headless)
	ledger, two := m.template(r, "ledger"), int32(2)
	r.apply(m.namespace, string(asJSON(&appsv1.StatefulSet{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"}, ObjectMeta: metav1.ObjectMeta{Name: "ledger"},
		Spec: appsv1.StatefulSetSpec{ServiceName: "ledger", Replicas: &two, Template: ledger,
			PodManagementPolicy: appsv1.ParallelPodManagement,
			Selector:            &metav1.LabelSelector{MatchLabels: ledger.Labels}},
	})))
	bill := m.template(r, "bill")
	bill.Annotations["sidecar.istio.io/nativeSidecar"] = "true"
	bill.Spec.RestartPolicy = corev1.RestartPolicyNever
	app, reviews := &bill.Spec.Containers[0], "tcp:reviews:90"
	app.Command = []string{"/podprogram", "call", app.Command[2], "-every=100ms", "-tries=25"}
	app.Args = []string{target4, target6, reviews}
	r.apply(m.namespace, string(asJSON(&batchv1.Job{
		TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}, ObjectMeta: metav1.ObjectMeta{Name: "bill"},
		Spec: batchv1.JobSpec{Template: bill},
	})))
	r.rolledOut("statefulset/ledger")
	for _, pod := range []string{"ledger-0.ledger", "ledger-1.ledger"} {
		m.hearsFront(r, fmt.Sprint("http://", pod, ":", webPort, "/"))
		m.hearsFront(r, fmt.Sprint("grpc://", pod, ":", grpcPort))
		m.hearsFront(r, fmt.Sprint("tcp://", pod, ":", linesPort))
	}
	a := r.calls("ledger-0", "http://ledger-1.ledger:8080/", "answers", answered)
	m.identified(r, a, r.namespace, "ledger")
	if who := a.page().Name; who != m.namespace+"/ledger-1" {
		r.Errorf("ledger-1 is %s", who)
	}
	for _, name := range []string{"ledger-0", "ledger-1"} {
		r.marked(name)
		m.keepsPlaintextOut(r, name)
		m.keeps(r, name)
	}
	r.output(kubectlIn(m.namespace, "wait", "--for=condition=Complete", "job/bill", waits()))
	name := r.onlyPod(batchv1.JobNameLabel + "=bill")
	if log := r.says(name, app.Name); !strings.Contains(log, reviews+" answer app ") {
		r.Errorf("reviews has not answered the job:\n%s", log)
	}
	m.keeps(r, name)
}

// headless makes a service headless. Its pods are called directly, so each port is the target port.
func headless(s *corev1.ServiceSpec) {
	s.ClusterIP = corev1.ClusterIPNone
	for i := range s.Ports {
		s.Ports[i].Port = s.Ports[i].TargetPort.IntVal
	}
}
