// Package apiserver starts a real kube-apiserver with a real etcd on loopback, for tests and benchmarks that need no
// other part of a cluster. The API server writes an audit log, from which tests count requests.
package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Programs are the programs that must be in Server.Bin.
var Programs = []string{"kube-apiserver", "etcd"}

// WithoutControllers is the flag for an API server without a controller manager. The admission plugin ServiceAccount
// would reject every pod, because nothing creates the default service accounts.
const WithoutControllers = "--disable-admission-plugins=ServiceAccount"

// Where etcd and the API server listen. The caller has its own network namespace, so the ports are free.
const (
	etcdURL    = "http://127.0.0.1:2379"
	peerURL    = "http://127.0.0.1:2380"
	securePort = "6443"
)

// Server is an API server with its etcd. Set the exported fields, then call Server.Start.
type Server struct {
	Bin   string   // directory of the programs
	Dir   string   // directory for data, keys and logs, not shared
	Host  string   // address by which clients reach it; loopback if empty
	Flags []string // added after the default flags of kube-apiserver, so they can also override them

	etcd, apiserver *Process
	pki             pki
	admin           *rest.Config
}

// Start starts etcd and the API server on loopback, and waits until the API server is ready.
func Start(bin, dir string, flags ...string) (*Server, error) {
	s := &Server{Bin: bin, Dir: dir, Flags: flags}
	return s, s.Start()
}

// Start starts etcd and the API server, and waits until the API server is ready.
func (s *Server) Start() error {
	var err error
	if s.pki, err = newPKI(s.Dir, s.Host); err != nil {
		return err
	}
	s.admin = &rest.Config{Host: s.URL(), QPS: -1, TLSClientConfig: rest.TLSClientConfig{
		CAFile: s.pki.ca.cert, CertFile: s.pki.admin.cert, KeyFile: s.pki.admin.key,
	}}
	// With files alone, client-go would read them again every few minutes, also after a test has removed them.
	if err := rest.LoadTLSFiles(s.admin); err != nil {
		return err
	}
	if err := os.WriteFile(s.path("audit.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	s.etcd, err = s.start("etcd", "--name=default", "--data-dir="+s.path("etcd"), "--unsafe-no-fsync", "--log-level=error",
		"--quota-backend-bytes=8589934592", // the maximum: old revisions stay until compaction
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL, "--initial-cluster=default="+peerURL)
	if err != nil {
		return err
	}
	if err := s.Up(); err != nil {
		s.Stop()
		return err
	}
	return nil
}

func (s *Server) path(name string) string { return filepath.Join(s.Dir, name) }

// Up starts the API server, also after Down, and waits until it is ready.
func (s *Server) Up() error {
	var err error
	s.apiserver, err = s.start("kube-apiserver",
		append([]string{"--etcd-servers=" + etcdURL, "--bind-address=127.0.0.1", "--secure-port=" + securePort,
			"--advertise-address=192.0.2.1", // not used, but required: the API server rejects loopback here
			"--tls-cert-file=" + s.pki.serving.cert, "--tls-private-key-file=" + s.pki.serving.key,
			"--client-ca-file=" + s.pki.ca.cert,
			"--service-account-key-file=" + s.pki.serving.key, "--service-account-signing-key-file=" + s.pki.serving.key,
			"--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=Node,RBAC", "--allow-privileged",
			"--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none",
			"--audit-policy-file=" + s.path("audit.yaml"), "--audit-log-path=" + s.path("audit.log"),
			"--audit-log-mode=blocking",
			"--profiling=false", "--v=0"}, s.Flags...)...)
	if err != nil {
		return err
	}
	return s.ready()
}

func (s *Server) ready() error {
	client, err := kubernetes.NewForConfig(s.Admin())
	if err != nil {
		return err
	}
	deadline := time.Now().Add(5 * time.Minute)
	for {
		err := client.RESTClient().Get().AbsPath("/readyz").Do(context.Background()).Error()
		if err == nil {
			_, err = client.CoreV1().Namespaces().Get(context.Background(), "kube-system", getOptions)
		}
		switch {
		case err == nil:
			return nil
		case s.apiserver.Ended():
			return fmt.Errorf("the API server has ended: %s", s.apiserver.Tail())
		case time.Now().After(deadline):
			return fmt.Errorf("the API server is not ready: %w; %s", err, s.apiserver.Tail())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Down kills the API server. Etcd keeps running.
func (s *Server) Down() { s.apiserver.Kill() }

// Used returns the processor time that the API server has used since Up, and etcd since Start.
func (s *Server) Used() (apiserver, etcd time.Duration, err error) {
	apiserver, err = s.apiserver.Used()
	if err == nil {
		etcd, err = s.etcd.Used()
	}
	return apiserver, etcd, err
}

// EtcdURL returns the URL of etcd. It needs no credentials.
func (s *Server) EtcdURL() string { return etcdURL }

// Pause stops the API server with SIGSTOP until Resume. Its connections stay open.
func (s *Server) Pause() error { return s.apiserver.Signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (s *Server) Resume() error { return s.apiserver.Signal(syscall.SIGCONT) }

// Stop ends the API server and etcd.
func (s *Server) Stop() {
	for _, p := range []*Process{s.apiserver, s.etcd} {
		if p != nil {
			p.Kill()
		}
	}
}

// Admin returns a client configuration with all rights and no rate limit.
func (s *Server) Admin() *rest.Config { return rest.CopyConfig(s.admin) }

// URL returns the URL of the API server.
func (s *Server) URL() string {
	return "https://" + net.JoinHostPort(cmp.Or(s.Host, "127.0.0.1"), securePort)
}

// Kubeconfig writes a kubeconfig that authenticates with a bearer token.
func (s *Server) Kubeconfig(path, token string) error {
	return s.kubeconfig(path, fmt.Sprintf("token: %q", token))
}

// KubeconfigOf creates a client certificate for a user in a group, and writes a kubeconfig that authenticates with it.
func (s *Server) KubeconfigOf(path, user, group string) error {
	p, err := s.pki.leaf(s.Dir, filepath.Base(path), user, group)
	if err != nil {
		return err
	}
	return s.kubeconfig(path, fmt.Sprintf("client-certificate: %q, client-key: %q", p.cert, p.key))
}

func (s *Server) kubeconfig(path, user string) error {
	return os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: u, user: {%s}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
`, s.URL(), s.pki.ca.cert, user), 0o600)
}

// CA returns the path of the certificate of the cluster's certificate authority.
func (s *Server) CA() string { return s.pki.ca.cert }

// Serving returns the paths of the API server's serving certificate and its key. Other servers at the same addresses
// may use them.
func (s *Server) Serving() (cert, key string) { return s.pki.serving.cert, s.pki.serving.key }

// ServiceAccountKey returns the path of the key that signs service account tokens.
func (s *Server) ServiceAccountKey() string { return s.pki.serving.key }

// start runs etcd or the API server.
func (s *Server) start(name string, args ...string) (*Process, error) {
	return Run(s.path(name+".log"), filepath.Join(s.Bin, name), args...)
}

// Embedded returns a kubeconfig with all rights that contains its certificates and key. It is for a client that uses
// another URL and cannot read the server's files.
func (s *Server) Embedded(url string) ([]byte, error) {
	config := clientcmdapi.NewConfig()
	var err error
	read := func(path string) []byte {
		data, failed := os.ReadFile(path)
		err = errors.Join(err, failed)
		return data
	}
	config.Clusters["cluster"] = &clientcmdapi.Cluster{Server: url, CertificateAuthorityData: read(s.pki.ca.cert)}
	config.AuthInfos["admin"] = &clientcmdapi.AuthInfo{ClientCertificateData: read(s.pki.admin.cert),
		ClientKeyData: read(s.pki.admin.key)}
	config.Contexts["cluster"] = &clientcmdapi.Context{Cluster: "cluster", AuthInfo: "admin"}
	config.CurrentContext = "cluster"
	if err != nil {
		return nil, err
	}
	return clientcmd.Write(*config)
}
