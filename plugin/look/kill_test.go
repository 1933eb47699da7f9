package look

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
)

// killAt are the system calls at which the program is killed, each time it makes one: all that change anything outside
// the process, and those between. What the Go runtime does for itself (signals, memory, locks, threads) is left out.
var killAt = []string{"execve", "openat", "read", "newfstatat", "fstat", "statfs", "fstatfs", "setns", "ioctl", "uname",
	"setfsuid", "setfsgid", "socket", "bind", "getsockopt", "setsockopt", "connect", "sendto", "sendmsg",
	"recvfrom", "write", "shutdown", "close", "exit_group"}

// TestKill kills the program with SIGKILL at its n-th call of a system call, for every n until it gets to its end.
// Nothing is left in the pod then: no table, no rule that is not as before, and no socket that would send again.
func TestKill(t *testing.T) {
	for name, args := range map[string][3]string{
		"a process of the pod": {"uid:1000:1000", "tcp", "203.0.113.7:80"},
		"a datagram":           {"uid:1337:1337", "udp", "203.0.113.7:53"},
		"outside":              {"outside", "tcp", "10.88.0.1:8080"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPod(t, testnet.Options{})
			p.apply(testnet.BaseProfiles[0])
			before, points, added := p.listing(), 0, 0
			for _, call := range killAt {
				for n, killed := 1, true; killed; n++ {
					var wasAdded bool
					if killed, wasAdded = p.killedAt(call, n, p.args(args[0], args[1], args[2])); killed {
						points++
					}
					if wasAdded {
						added++
					}
					if now := p.listing(); now != before {
						t.Errorf("killed at %s %d: left\n%s", call, n, now)
					}
					if left := p.sending(); left != "" {
						t.Errorf("killed at %s %d: left the socket %s", call, n, left)
					}
				}
			}
			if points < 60 || added < 5 {
				t.Errorf("no good test: killed %d times, %d of them with the table there", points, added)
			}
			t.Logf("killed at %d points, at %d with the table there", points, added)
		})
	}
}

// killedAt runs the program under strace. added says that it was killed when the kernel had its table.
func (p *pod) killedAt(call string, n int, args []string) (killed, added bool) {
	p.Helper()
	traced := filepath.Join(p.TempDir(), "trace")
	cmd := exec.Command("nsenter", append([]string{"--net=" + p.lab.PeerPath, "strace", "-f", "-o", traced, "-e",
		"trace=connect," + call, fmt.Sprintf("--inject=%s:signal=KILL:when=%d", call, n), built}, args...)...)
	out, failure := cmd.CombinedOutput()
	seen, err := os.ReadFile(traced)
	if err != nil {
		p.Fatal(err)
	}
	killed = strings.Contains(string(seen), "+++ killed by SIGKILL +++")
	if !killed && failure != nil {
		p.Errorf("not killed, and still: %v: %s", failure, out)
	}
	return killed, killed && strings.Contains(string(seen), "connect(") // it sends when all is in place
}

// sending is a socket of the pod that waits for an answer, "" for none.
func (p *pod) sending() string {
	p.Helper()
	out, err := p.lab.PodCommand("cat", "/proc/net/tcp", "/proc/net/tcp6").Output()
	if err != nil {
		p.Fatal(err)
	}
	const state, synSent = 3, "02" // TCP_SYN_SENT, include/net/tcp_states.h
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > state && fields[state] == synSent {
			return line
		}
	}
	return ""
}
