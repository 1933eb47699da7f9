// Command injector is Istio's own sidecar injection as a webhook: the code of istiod, with the templates and values
// that Istio's charts render, and nothing of the rest. PLATFORM=openshift makes it take the proxy's user from the
// namespace, as on OpenShift. With -inject it injects a manifest instead, as istioctl kube-inject does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"
	"istio.io/istio/operator/pkg/render"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/mesh/meshwatcher"
	"istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/kube/inject"
	"istio.io/istio/pkg/kube/multicluster"
)

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

func main() {
	var sets, files list
	flag.Var(&sets, "set", "a `value` of Istio's, as for istioctl install; may be repeated")
	flag.Var(&files, "file", "a `file` with an IstioOperator; may be repeated")
	manifests := flag.String("manifests", "", "the `directory` with Istio's charts")
	kubeconfig := flag.String("kubeconfig", "", "`file` that says how to reach the API server")
	listen := flag.String("listen", "127.0.0.1:15017", "`address` of the webhook")
	manifest := flag.String("inject", "", "`file` with a manifest, to be injected to the standard output")
	cert, key := flag.String("cert", "", "`file` with its certificate"), flag.String("key", "", "`file` with its key")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s, err := rendered(files, append(sets, "installPackagePath="+*manifests, "profile=empty",
		"components.pilot.enabled=true"))
	if err == nil && *manifest != "" {
		err = s.inject(*manifest)
	} else if err == nil {
		err = s.serve(ctx, *kubeconfig, *listen, *cert, *key)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "injector:", err)
		os.Exit(1)
	}
}

// settings are what istiod reads from its ConfigMaps.
type settings struct{ config, values, mesh string }

// rendered takes them from Istio's charts.
func rendered(files, sets []string) (s settings, err error) {
	sets = append(sets, "values.pilot.env.UNSAFE_ENABLE_ADMIN_ENDPOINTS=false")
	all, _, err := render.GenerateManifest(files, sets, false, nil, nil)
	if err != nil {
		return s, fmt.Errorf("rendering Istio's charts: %w", err)
	}
	for _, set := range all {
		for _, o := range set.Manifests {
			if o.GetKind() != "ConfigMap" {
				continue
			}
			data, _ := o.Object["data"].(map[string]any)
			text := func(key string) string { value, _ := data[key].(string); return value }
			switch o.GetName() {
			case "istio-sidecar-injector":
				s.config, s.values = text("config"), text("values")
			case "istio":
				s.mesh = text("mesh")
			}
		}
	}
	if s.config == "" || s.values == "" || s.mesh == "" {
		return s, errors.New("Istio's charts render no configuration of the injection")
	}
	return s, nil
}

// fixed is a watcher of settings that do not change.
type fixed struct {
	config *inject.Config
	values string
}

func (fixed) SetHandler(func(*inject.Config, string) error) {}
func (fixed) HasSynced() bool                               { return true }
func (fixed) Run(stop <-chan struct{})                      { <-stop }

func (f fixed) Get() (*inject.Config, string, error) { return f.config, f.values, nil }

// read gives them the form that Istio's code takes.
func (s settings) read() (inject.Config, *meshconfig.MeshConfig, error) {
	config, err := inject.UnmarshalConfig([]byte(s.config))
	if err != nil {
		return config, nil, err
	}
	meshConfig, err := mesh.ApplyMeshConfig(s.mesh, mesh.DefaultMeshConfig())
	return config, meshConfig, err
}

// inject is istioctl kube-inject.
func (s settings) inject(path string) error {
	config, meshConfig, err := s.read()
	if err != nil {
		return err
	}
	templates, err := inject.ParseTemplates(config.RawTemplates)
	if err != nil {
		return err
	}
	values, err := inject.NewValuesConfig(s.values)
	if err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return inject.IntoResourceFile(nil, templates, values, "", meshConfig, file, os.Stdout,
		func(warning string) { fmt.Fprintln(os.Stderr, warning) })
}

func (s settings) serve(ctx context.Context, kubeconfig, listen, cert, key string) error {
	config, meshConfig, err := s.read()
	if err != nil {
		return err
	}
	client, err := kube.NewClient(kube.BuildClientCmd(kubeconfig, ""), "Kubernetes")
	if err != nil {
		return err
	}
	env := &model.Environment{Watcher: meshwatcher.NewTestWatcher(meshConfig), ConfigStore: model.NewFakeStore()}
	env.SetPushContext(&model.PushContext{ProxyConfigs: &model.ProxyConfigs{}})
	clusters, mux := multicluster.NewFakeController(), http.NewServeMux()
	if _, err = inject.NewWebhook(inject.WebhookParameters{Watcher: fixed{&config, s.values}, Env: env, Mux: mux,
		MultiCluster: clusters}); err != nil {
		return err
	}
	done := make(chan struct{})
	clusters.Add("Kubernetes", client, done)
	client.RunAndWait(done)
	server := &http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { close(done); _ = server.Close() })
	fmt.Println("ready")
	if err := server.ListenAndServeTLS(cert, key); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
