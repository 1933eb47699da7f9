package cluster

import (
	"fmt"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
)

// service is one of a node's own programs. It is started again whenever it ends, as systemd does.
type service struct {
	start func() (*apiserver.Process, error)

	mu      sync.Mutex
	process *apiserver.Process
	stopped bool
}

// startAgainAfter is how long a program is away that has ended by itself.
const startAgainAfter = 300 * time.Millisecond

// run starts a program of the node, with a log.
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

// keep starts the program again until it is stopped.
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

// kill ends the program by a signal that it cannot catch; it will be started again.
func (s *service) kill() {
	s.mu.Lock()
	p := s.process
	s.mu.Unlock()
	p.Kill()
}

// stop ends it for good.
func (s *service) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.kill()
}

// halt ends all of the node's own programs.
func (n *Node) halt() {
	n.mu.Lock()
	services := n.services
	n.services = nil
	n.mu.Unlock()
	for _, s := range services {
		s.stop()
	}
}

// Restart ends one of the node's own programs by a signal that it cannot catch, and lets it start again.
func (n *Node) Restart(name string) error {
	n.mu.Lock()
	s := n.services[name]
	n.mu.Unlock()
	if s == nil {
		return fmt.Errorf("%s has no %s now", n.Name, name)
	}
	s.kill()
	return nil
}
