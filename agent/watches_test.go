package agent

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/istio-pod-network/controller/agent/health"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/sirupsen/logrus"
)

// A failing watch is logged once, at the default level and within a minute, and once more when it works again. Nothing
// is logged if the API server ends a watch and the next one starts at once.
func TestWatchesWarn(t *testing.T) {
	refused := errors.New("dial tcp 10.96.0.1:443: connect: connection refused")
	type step struct {
		after time.Duration
		pods  bool // the watch of pods fails
		err   error
	}
	for name, c := range map[string]struct {
		steps  []step
		logged []string
	}{
		"all is well":       {nil, nil},
		"ends, and follows": {[]step{{0, true, nil}, {2 * time.Second, false, nil}}, nil},
		"refused": {[]step{{0, true, refused}},
			[]string{"level=warning", "cannot be watched", "pods: dial tcp 10.96.0.1:443: connect: connection refused"}},
		"hangs": {[]step{{0, true, nil}}, []string{"level=warning", "pods: it has ended"}},
		"refused for a while": {[]step{{0, true, refused}, {29500 * time.Millisecond, false, nil}},
			[]string{"level=warning", "level=info", "watched again", "after=30s"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			log := logrus.New() // at logrus's default level, as the agent's log
			log.SetOutput(&out)
			var since time.Time
			var err error
			w := watches{{"namespaces", func() (time.Time, error) { return time.Time{}, nil }},
				{"pods", func() (time.Time, error) { return since, err }}}
			ctx, end := context.WithCancel(t.Context())
			go w.warn(ctx, log)
			for _, s := range c.steps {
				time.Sleep(s.after)
				since, err = map[bool]time.Time{true: time.Now()}[s.pods], s.err
			}
			time.Sleep(time.Minute)
			end()
			synctest.Wait()
			for _, words := range c.logged {
				if strings.Count(out.String(), words) != 1 {
					t.Errorf("%s: no %q, or not once, in %s", name, words, out.String())
				}
			}
			if n := strings.Count(out.String(), "\n"); n > 2 || n > 0 && c.logged == nil {
				t.Errorf("%s: %s", name, out.String())
			}
		})
	}
}

// The agent stays ready while a watch fails: it answers with what it knows. /readyz shows the failure.
func TestWatchesInReadiness(t *testing.T) {
	since, err := time.Time{}, error(nil)
	a := &agent{pods: new(kube.Pods), namespaces: new(kube.Namespaces), watches: watches{
		{"pods", func() (time.Time, error) { return since, err }},
	}}
	for _, c := range []struct {
		since time.Time
		err   error
		says  []string
	}{
		{time.Time{}, nil, []string{"watched"}},
		{time.Now(), nil, []string{"watched"}},
		{time.Now().Add(-20 * time.Minute), errors.New("forbidden:\nno"),
			[]string{"not watched for 20m", "pods: forbidden: no"}},
	} {
		since, err = c.since, c.err
		found := false
		for _, check := range a.ready() {
			if check.Name != "API server" {
				continue
			}
			found = true
			pass, text := check.Run()
			for _, words := range c.says {
				if !pass || !strings.HasPrefix(text, c.says[0]) || !strings.Contains(text, words) || strings.Contains(text, "\n") {
					t.Errorf("%v: %t %q", c, pass, text)
				}
			}
		}
		if !found {
			t.Error("no line in /readyz")
		}
	}
}

// Before the first list has come, the check fails. Its detail says why the list did not come, if that is known.
func TestNotReadYet(t *testing.T) {
	for _, c := range []struct {
		is   bool
		err  error
		want string
	}{
		{true, errors.New("forbidden"), "known"}, {false, nil, "not read yet"},
		{false, errors.New("forbidden"), "not read yet: forbidden"},
	} {
		check := health.Check{Run: synced(func() bool { return c.is },
			func() (time.Time, error) { return time.Now(), c.err })}
		if pass, text := check.Run(); pass != c.is || text != c.want {
			t.Errorf("%v: %t %q", c, pass, text)
		}
	}
}

// Namespaces are watched only if a decision may depend on one: each agent's watch makes the API server send all
// namespaces.
func TestNamespacesWatched(t *testing.T) {
	for selection, watched := range map[redirect.Selection]bool{
		redirect.SelectInjected: false, redirect.SelectAnnotated: true,
	} {
		path := filepath.Join(t.TempDir(), "kubeconfig")
		await.Must(t, os.WriteFile(path, []byte(`{"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": `+
			`[{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}], "contexts": [{"name": "c", "context": `+
			`{"cluster": "c"}}]}`), 0o600))
		api, err := kube.Connect(kube.Config{Kubeconfig: path, QPS: 1, Burst: 1})
		await.Must(t, err)
		o := options{policy: redirect.Policy{Selection: selection}}
		if is := o.namespacesOf(api).Watched(); is != watched {
			t.Errorf("%s: watched %t", selection, is)
		}
	}
}
