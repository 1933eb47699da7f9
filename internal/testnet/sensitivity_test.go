package testnet

import (
	"os"
	"strings"
	"testing"
	"time"
)

func restore(t *testing.T, l *Lab, family Family, rules string) {
	tool := "iptables-nft-restore"
	if family == IPv6 {
		tool = "ip6tables-nft-restore"
	}
	cmd := l.PodCommand(tool)
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s\n%s", tool, err, out, rules)
	}
}

func TestSensitivity(t *testing.T) {
	only := os.Getenv("ONLY")
	for _, p := range Profiles {
		if only != "" && p.Name != only {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			l := newLab(t, Options{})
			l.AddPassthrough()
			l.Use(p)
			applyIstio(t, l, p.settings())
			base := l.RunAll()
			n := 0
			begin := time.Now()
			for _, family := range l.Families() {
				lines := strings.Split(istioRules(p.settings(), family), "\n")
				for i, line := range lines {
					if !strings.HasPrefix(line, "-A") {
						continue
					}
					n++
					mutant := strings.Join(append(append([]string{}, lines[:i]...), lines[i+1:]...), "\n")
					restore(t, l, family, mutant)
					l.Reset()
					changed := 0
					for j, r := range l.RunAll() {
						if r.Got != base[j].Got {
							changed++
						}
					}
					if changed == 0 {
						t.Logf("SURVIVES %s %s", family, line)
					}
				}
				restore(t, l, family, strings.Join(lines, "\n"))
			}
			t.Logf("%d mutants, %s each", n, time.Since(begin)/time.Duration(n))
		})
	}
}
