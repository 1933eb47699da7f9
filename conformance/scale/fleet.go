package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/plugin/record"
)

// node is a node that consists of its object, its directories and its agent.
type node struct {
	name   string
	dir    string // conf, bin, and the state directory, which is on a tmpfs as on a real node
	listen string
	store  record.Store
}

func (n node) socket() string { return filepath.Join(n.store.Dir, "agent.sock") }

// newNode makes a node's directories and installs the plugin. The plugin is a link: thousands of copies would measure
// this machine's memory.
func newNode(dir string, number int, selection string) (node, error) {
	n := node{name: nodeName(number), dir: filepath.Join(dir, nodeName(number)),
		listen: fmt.Sprintf("127.1.%d.%d:15088", number/250, number%250+1)}
	n.store.Dir = filepath.Join(n.dir, "run")
	for _, sub := range []string{"bin", "net.d"} {
		if err := os.MkdirAll(filepath.Join(n.dir, sub), 0o755); err != nil {
			return n, err
		}
	}
	plugin := filepath.Join(dir, "istio-pod-network")
	if err := os.Link(plugin, filepath.Join(n.dir, "bin", filepath.Base(plugin))); err != nil {
		return n, err
	}
	entry, err := json.Marshal(map[string]any{
		"type": "istio-pod-network", "agentSocket": n.socket(), "stateDir": n.store.Dir, "selection": selection,
		"capabilities": map[string]bool{"io.kubernetes.cri.pod-annotations": true},
	})
	if err != nil {
		return n, err
	}
	for name, data := range map[string][]byte{
		"net.d/10-net.conflist": []byte(`{"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "ptp"}]}`),
		"bin/ptp":               nil, // the agent checks that bin has the network's plugin; nothing runs it
		"entry.json":            entry,
	} {
		if err := os.WriteFile(filepath.Join(n.dir, name), data, 0o755); err != nil {
			return n, err
		}
	}
	return n, nil
}

func nodeName(number int) string { return fmt.Sprintf("node-%05d", number) }

// args returns the flags of the node's agent: the defaults except for paths and addresses.
func (n node) args() []string {
	return []string{"--node-name=" + n.name, "--kubeconfig=" + filepath.Join(n.dir, "kubeconfig"),
		"--network-config=" + filepath.Join(n.dir, "entry.json"), "--bin-dir=" + filepath.Join(n.dir, "bin"),
		"--conf-dir=" + filepath.Join(n.dir, "net.d"), "--listen=" + n.listen, "--log-level=warning",
		"--source=" + filepath.Join(filepath.Dir(n.dir), "istio-pod-network")}
}

// fleet has the agents of all nodes, several in each process.
type fleet struct {
	nodes     []node
	each      int    // agents in one process
	log       string // path of the log of all of them
	processes []*exec.Cmd
}

// behind is the agents' nice value. In a cluster no agent takes processor time from the API server. Here hundreds do,
// and at the same priority it got a tenth of this machine: requests waited in its queue until it rejected them.
const behind = "10"

// start starts all agents at the same time.
func (f *fleet) start() error {
	log, err := os.OpenFile(f.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	for first := 0; first < len(f.nodes); first += f.each {
		var all [][]string
		for _, n := range f.nodes[first:min(first+f.each, len(f.nodes))] {
			all = append(all, n.args())
		}
		args, err := json.Marshal(all)
		if err != nil {
			return err
		}
		cmd := exec.Command("nice", "-n", behind, filepath.Join(isolated.BinDir(), "nodes"))
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(args), log, log
		if err := cmd.Start(); err != nil {
			return err
		}
		f.processes = append(f.processes, cmd)
	}
	return nil
}

// stop ends all agents at the same time, as an upgrade may.
func (f *fleet) stop() {
	for _, p := range f.processes {
		_ = p.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range f.processes {
		_ = p.Wait()
	}
	f.processes = nil
}

// ready waits until every agent is ready, and returns when the last one was.
func (f *fleet) ready() (time.Time, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var mu sync.Mutex
	var last time.Time
	var unready []string
	var all sync.WaitGroup
	deadline := time.Now().Add(patience)
	askers := make(chan struct{}, 8) // few at the same time, so that the machine has time for the agents
	for _, n := range f.nodes {
		all.Go(func() {
			for {
				askers <- struct{}{}
				is := isReady(client, n.listen)
				at := time.Now()
				<-askers
				mu.Lock()
				switch {
				case is:
					last = at
				case at.After(deadline):
					unready = append(unready, n.name)
				}
				mu.Unlock()
				if is || at.After(deadline) {
					return
				}
				time.Sleep(time.Second / 2)
			}
		})
	}
	all.Wait()
	if len(unready) > 0 {
		return last, fmt.Errorf("within %v %d of %d agents are not ready, one is that of %s", patience, len(unready),
			len(f.nodes), unready[0])
	}
	return last, nil
}

func isReady(client *http.Client, listen string) bool {
	response, err := client.Get("http://" + listen + "/readyz")
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// memory returns the resident memory of all agents together.
func (f *fleet) memory() (bytes float64, err error) {
	for _, p := range f.processes {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.Process.Pid))
		if err != nil {
			return 0, err
		}
		var size, resident float64
		if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
			return 0, err
		}
		bytes += resident * float64(os.Getpagesize())
	}
	return bytes, nil
}

// tail returns the end of the agents' log.
func (f *fleet) tail() string {
	data, _ := os.ReadFile(f.log)
	return string(data[max(0, len(data)-2000):])
}
