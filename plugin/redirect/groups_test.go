package redirect

import "testing"

// TestLeftOut finds containers that run beside the sidecar in a group that is not captured.
func TestLeftOut(t *testing.T) {
	excluded, included := `{"excludeOutboundOwnerGroups":"1338"}`, `{"includeOutboundOwnerGroups":"7,1337"}`
	for _, test := range []struct {
		name, settings string
		change         func(*Pod)
		want           LeftOut
	}{
		{"nothing said", excluded, func(*Pod) {}, LeftOut{}},
		{"the app", excluded, func(p *Pod) { p.Containers[0].RunAsGroup = id(1338) }, LeftOut{"app", 1338}},
		{"the app, by the pod", excluded, func(p *Pod) { p.RunAsGroup = id(1338) }, LeftOut{"app", 1338}},
		{"the app has its own", excluded, func(p *Pod) {
			p.RunAsGroup, p.Containers[0].RunAsGroup = id(1338), id(7)
		}, LeftOut{}},
		{"the sidecar", excluded, func(p *Pod) { p.Containers[1].RunAsGroup = id(1338) }, LeftOut{}},
		{"an init container", excluded, func(p *Pod) { p.InitContainers[0].RunAsGroup = id(1338) }, LeftOut{}},
		{"a native sidecar", excluded, func(p *Pod) {
			p.InitContainers[0].RunAsGroup, p.InitContainers[0].Restartable = id(1338), true
		}, LeftOut{"wait", 1338}},
		{"one of the included", included, func(p *Pod) { p.Containers[0].RunAsGroup = id(7) }, LeftOut{}},
		{"none of the included", included, func(p *Pod) { p.Containers[0].RunAsGroup = id(8) }, LeftOut{"app", 8}},
		{"no settings", `{}`, func(p *Pod) { p.Containers[0].RunAsGroup = id(0) }, LeftOut{}},
	} {
		pod, _ := meshPod()
		test.change(&pod)
		got := pod.LeftOut(spec(t, test.settings))
		if got == nil {
			got = &LeftOut{}
		}
		if *got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, *got, test.want)
		}
	}
}
