// Package apiserver starts a real kube-apiserver with a real etcd on loopback, for tests and benchmarks that need nothing
// else of a cluster. It keeps an audit log, in which requests are counted.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Programs are what has to be in Server.Bin.
var Programs = []string{"kube-apiserver", "etcd"}

// Where they listen. The caller has a network namespace of its own, so the ports are free.
const (
	etcdURL    = "http://127.0.0.1:2379"
	peerURL    = "http://127.0.0.1:2380"
	securePort = "6443"
)

// Server is a running API server.
type Server struct {
	Bin string // directory of the programs
	Dir string // directory of its own, where data, keys and logs go

	etcd, apiserver *process
	pki             pki
}

// Start starts both programs and waits until the API server is ready.
func Start(bin, dir string) (*Server, error) {
	s := &Server{Bin: bin, Dir: dir}
	var err error
	if s.pki, err = newPKI(dir); err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.path("audit.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return nil, err
	}
	s.etcd, err = s.start("etcd", "--name=default", "--data-dir="+s.path("etcd"), "--unsafe-no-fsync", "--log-level=error",
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL, "--initial-cluster=default="+peerURL)
	if err != nil {
		return nil, err
	}
	if err := s.Up(); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func (s *Server) path(name string) string { return filepath.Join(s.Dir, name) }

// Up starts the API server, after Down too, and waits until it is ready.
func (s *Server) Up() error {
	var err error
	s.apiserver, err = s.start("kube-apiserver", "--etcd-servers="+etcdURL, "--bind-address=127.0.0.1", "--secure-port="+securePort,
		"--advertise-address=192.0.2.1", // never told anybody; loopback is refused here
		"--tls-cert-file="+s.pki.serving.cert, "--tls-private-key-file="+s.pki.serving.key, "--client-ca-file="+s.pki.ca.cert,
		"--service-account-key-file="+s.pki.serving.key, "--service-account-signing-key-file="+s.pki.serving.key,
		"--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=RBAC", "--allow-privileged",
		"--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none",
		"--disable-admission-plugins=ServiceAccount", // there is no controller that would make the default accounts
		"--audit-policy-file="+s.path("audit.yaml"), "--audit-log-path="+s.path("audit.log"), "--audit-log-mode=blocking",
		"--profiling=false", "--v=0")
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
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := client.RESTClient().Get().AbsPath("/readyz").Do(context.Background()).Error()
		if err == nil {
			_, err = client.CoreV1().Namespaces().Get(context.Background(), "kube-system", getOptions)
		}
		switch {
		case err == nil:
			return nil
		case s.apiserver.ended():
			return fmt.Errorf("the API server has ended: %s", s.apiserver.tail())
		case time.Now().After(deadline):
			return fmt.Errorf("the API server is not ready: %w; %s", err, s.apiserver.tail())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Down kills the API server; etcd keeps what it has acknowledged.
func (s *Server) Down() { s.apiserver.kill() }

// Pause stops the API server from answering, with its connections open, until Resume.
func (s *Server) Pause() error { return s.apiserver.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (s *Server) Resume() error { return s.apiserver.cmd.Process.Signal(syscall.SIGCONT) }

// Stop ends both programs.
func (s *Server) Stop() {
	for _, p := range []*process{s.apiserver, s.etcd} {
		if p != nil {
			p.kill()
		}
	}
}

// Admin is how to reach the API server with all rights and without a limit of requests.
func (s *Server) Admin() *rest.Config {
	return &rest.Config{Host: s.URL(), QPS: -1, TLSClientConfig: rest.TLSClientConfig{
		CAFile: s.pki.ca.cert, CertFile: s.pki.admin.cert, KeyFile: s.pki.admin.key,
	}}
}

// URL is where the API server answers.
func (s *Server) URL() string { return "https://127.0.0.1:" + securePort }

// Kubeconfig writes a file with which a program reaches the API server as the owner of a token.
func (s *Server) Kubeconfig(path, token string) error {
	return os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
`, s.URL(), s.pki.ca.cert, token), 0o600)
}

// process is a program with a log.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// start runs a program that dies with this one.
func (s *Server) start(name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(filepath.Join(s.Bin, name), args...), log: s.path(name + ".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	return p, nil
}

func (p *process) kill() {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return
	}
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// tail is the end of the log.
func (p *process) tail() string {
	data, _ := os.ReadFile(p.log)
	return string(data[max(0, len(data)-2000):])
}
