package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/plugin/annotation"
)

// audit reads the service accounts' requests from the API server's audit log. Each read starts where the last one
// ended.
type audit struct {
	path   string
	offset int64
}

// request is one line of the log.
type request struct {
	apiserver.Request
	Stage string `json:"stage"`
}

// kind returns verb and resource. For a mark that was not written, or a watch that did not begin, it adds the status,
// because the client tries these again.
func (r request) kind() string {
	resource := r.Object.Resource
	if r.Object.Subresource != "" {
		resource += "/" + r.Object.Subresource
	}
	kind := r.Verb + " " + resource
	if kind != markKind && r.Verb != "watch" || r.Status.Code == http.StatusOK {
		return kind
	}
	return fmt.Sprintf("%s, answered %d", kind, r.Status.Code)
}

// fields returns the field selector, which names the node in the agents' requests for pods.
func (r request) fields() string {
	u, err := url.Parse(r.URI)
	if err != nil {
		return ""
	}
	return u.Query().Get("fieldSelector")
}

// requests returns the requests since the last call.
func (a *audit) requests() ([]request, error) {
	log, err := os.Open(a.path)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if _, err := log.Seek(a.offset, io.SeekStart); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(log)
	if err != nil {
		return nil, err
	}
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	a.offset += int64(len(data))
	var all []request
	for line := range bytes.Lines(data) {
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			continue // the API server was killed while it wrote the line
		}
		if r.Verb == "watch" && r.Stage != "ResponseStarted" && r.Status.Code == http.StatusOK { // counted when it began
			continue
		}
		all = append(all, r)
	}
	return all, nil
}

// spent is what has been used at one moment, or the difference between two.
type spent struct {
	at              time.Time
	server          int           // number of the API server's process, because a restart resets its metrics
	apiserver, etcd time.Duration // processor time
	to, from        float64       // bytes of the agents to and from the API server, with TCP and TLS
	rejected        float64       // requests that API priority and fairness rejected
	watches         float64       // open watches of all clients
}

func (c *cluster) spent() (s spent, err error) {
	s.at, s.server = time.Now(), c.restarts
	if s.apiserver, s.etcd, err = c.server.Used(); err != nil {
		return s, err
	}
	if s.to, s.from, err = readCounters(); err != nil {
		return s, err
	}
	text, err := c.client.RESTClient().Get().AbsPath("/metrics").DoRaw(context.Background())
	s.rejected = sum(text, "apiserver_flowcontrol_rejected_requests_total", "")
	s.watches = sum(text, "apiserver_longrunning_requests", `verb="WATCH"`)
	return s, err
}

func (s spent) minus(before spent) spent {
	if s.server != before.server { // the metrics of a new process start at 0
		before.apiserver, before.rejected, before.watches = 0, 0, 0
	}
	return spent{at: s.at, apiserver: s.apiserver - before.apiserver, etcd: s.etcd - before.etcd, to: s.to - before.to,
		from: s.from - before.from, rejected: s.rejected - before.rejected, watches: s.watches - before.watches}
}

// sum adds up the metrics of that name that have that text in their labels.
func sum(text []byte, name, label string) (total float64) {
	for line := range strings.Lines(string(text)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		its, labels, _ := strings.Cut(series, "{")
		if i := strings.LastIndex(line, "} "); i >= 0 {
			value = strings.TrimSpace(line[i+2:])
			_, labels, _ = strings.Cut(line[:i], "{")
		}
		if its == name && strings.Contains(labels, label) {
			n, _ := strconv.ParseFloat(value, 64)
			total += n
		}
	}
	return total
}

// counters count the bytes between the agents and the API server, by the address that only the agents use.
const counters = `table inet scale {
	counter to {}
	counter from {}
	chain output {
		type filter hook output priority 0
		ip daddr ` + agentsHost + ` tcp dport 6443 counter name to
		ip saddr ` + agentsHost + ` tcp sport 6443 counter name from
	}
}`

func addCounters() error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(counters)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("counting bytes: %w: %s", err, out)
	}
	return nil
}

func readCounters() (to, from float64, err error) {
	out, err := exec.Command("nft", "-j", "list", "counters", "table", "inet", "scale").Output()
	if err != nil {
		return 0, 0, fmt.Errorf("reading the counters of bytes: %w", err)
	}
	var list struct {
		Nftables []struct {
			Counter struct {
				Name  string
				Bytes float64
			}
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return 0, 0, err
	}
	bytesOf := map[string]float64{}
	for _, c := range list.Nftables {
		bytesOf[c.Counter.Name] = c.Counter.Bytes
	}
	return bytesOf["to"], bytesOf["from"], nil
}

// bytesOfMark returns how much larger a mesh pod with a mark is in etcd than one without, on average.
func (c *cluster) bytesOfMark() (float64, error) {
	pods, err := c.etcd.has("/registry/pods", `"limit": 2000`)
	if err != nil {
		return 0, err
	}
	var size, count [2]float64
	for _, kv := range pods.KVs {
		if bytes.Contains(kv.Value, []byte("sidecar.istio.io/status")) {
			marked := 0
			if bytes.Contains(kv.Value, []byte(annotation.Status)) {
				marked = 1
			}
			size[marked], count[marked] = size[marked]+float64(len(kv.Value)), count[marked]+1
		}
	}
	if count[0] == 0 || count[1] == 0 {
		return 0, fmt.Errorf("of the first pods in etcd %v have no mark, and %v have one", count[0], count[1])
	}
	return size[1]/count[1] - size[0]/count[0], nil
}
