package testnet

import (
	"slices"
	"strings"
	"testing"
)

// redundant are rules of Istio that no packet needs, by a part of their text.
var redundant = map[string]string{
	"--gid-owner 1337 -j ISTIO_IN_REDIRECT":  "everybody but the proxy's user has already left",
	"! --gid-owner 1337 -j RETURN":           "likewise",
	"ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN": "needed only with a loopback range: to 127.0.0.1 means through lo",
}

// redundantTPROXY are those of TPROXY mode.
var redundantTPROXY = map[string]string{
	"--mark 1337 -j RETURN":    "the rule for unmarked packets on lo does the same",
	"--dport 15008 -j RETURN":  "in a chain of nat that nobody jumps to",
	"--uid-owner 1337 -j MARK": "the user's packets are also redirected by nat",
}

// TestSensitivity removes each of Istio's rules in turn. A flow must then land elsewhere, or the flows would not notice
// that a renderer forgets the rule.
func TestSensitivity(t *testing.T) {
	for _, name := range []string{"default", "dns", "tproxy-dns"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, found := ProfileNamed(name)
			if !found {
				t.Fatal("no such profile")
			}
			l := newLab(t, Options{Families: []Family{IPv4}})
			if err := l.Use(p); err != nil {
				t.Fatal(err)
			}
			applyIstio(t, l, p.settings())
			base := l.RunAll()
			lines := strings.Split(istioRules(p.settings(), IPv4), "\n")
			for i, line := range lines {
				if !strings.HasPrefix(line, "-A") {
					continue
				}
				restore(t, l, IPv4, strings.Join(slices.Concat(lines[:i], lines[i+1:]), "\n"))
				changed := !slices.Equal(l.RunAll(), base)
				known := matches(redundant, line) || p.settings().tproxy && matches(redundantTPROXY, line)
				if !changed && !known {
					t.Errorf("no flow misses %s", line)
				}
			}
		})
	}
}

func matches(parts map[string]string, line string) bool {
	for part := range parts {
		if strings.Contains(line, part) {
			return true
		}
	}
	return false
}

// TestEstablished opens connections, and then applies Istio's rules.
func TestEstablished(t *testing.T) {
	for _, name := range []string{"default", "tproxy", "no-inbound"} {
		t.Run(name, func(t *testing.T) {
			p, _ := ProfileNamed(name)
			l := newLab(t, Options{})
			if err := l.Use(p); err != nil {
				t.Fatal(err)
			}
			e, err := l.Establish()
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			applyIstio(t, l, p.settings())
			for _, r := range e.Ask() {
				if !r.OK() {
					t.Error(r)
				}
			}
		})
	}
}
