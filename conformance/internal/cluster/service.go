package cluster

import (
	"fmt"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
)

// service is one of a node's programs. It is restarted whenever it ends, as by systemd.
type service struct {
	start func() (*apiserver.Process, error)

	mu      sync.Mutex
	process *apiserver.Process
	stopped bool
}

// startAgainAfter is the delay before a program that has ended is restarted.
const startAgainAfter = 300 * time.Millisecond

// run starts a program of the node, with a log file.
func (n *Node) run(name, program string, args ...string) error {
	s := &service{start: func() (*apiserver.Process, error) {
		return apiserver.RunCommand(n.cluster.path(n.Name+"-"+name+".log"), n.Command(program, args...))
	}}
	var err error
	if s.process, err = s.start(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.services == nil {
		n.services = map[string]*service{}
	}
	n.services[name] = s
	go s.keep()
	return nil
}

// keep restarts the program until it is stopped.
func (s *service) keep() {
	for {
		s.mu.Lock()
		p := s.process
		s.mu.Unlock()
		<-p.Done()
		time.Sleep(startAgainAfter)
		s.mu.Lock()
		if s.stopped {
			s.mu.Unlock()
			return
		}
		if again, err := s.start(); err == nil {
			s.process = again
		}
		s.mu.Unlock()
	}
}

// kill sends SIGKILL to the program, and returns the process that ends. The program is restarted.
func (s *service) kill() *apiserver.Process {
	s.mu.Lock()
	p := s.process
	s.mu.Unlock()
	p.Kill()
	return p
}

// stop ends the program. It is not restarted.
func (s *service) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.kill()
}

// halt ends all programs of the node.
func (n *Node) halt() {
	n.mu.Lock()
	services := n.services
	n.services = nil
	n.mu.Unlock()
	for _, s := range services {
		s.stop()
	}
}

// Kill sends SIGKILL to one of the node's programs. It is restarted soon.
func (n *Node) Kill(name string) error {
	s, err := n.service(name)
	if err == nil {
		s.kill()
	}
	return err
}

// RestartRuntime kills the container runtime, and waits until it answers again.
func (n *Node) RestartRuntime() error {
	s, err := n.service(runtimeService)
	if err != nil {
		return err
	}
	<-s.kill().Done()
	return n.RuntimeAnswers()
}

func (n *Node) service(name string) (*service, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.services[name]
	if s == nil {
		return nil, fmt.Errorf("%s has no %s now", n.Name, name)
	}
	return s, nil
}
