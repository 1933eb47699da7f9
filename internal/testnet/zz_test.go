package testnet
import ("testing";"strings";"time")
func TestZZ(t *testing.T) {
	l := newLab(t, Options{})
	p,_ := ProfileNamed("default")
	l.Use(p)
	for _, rule := range []string{"oifname lo meta skuid != 1337 return", "oifname lo meta skuid 1337 jump x; oifname lo return"} {
	c := l.PodCommand("nft","-f","-")
	c.Stdin = strings.NewReader("add table ip t\ndelete table ip t\ntable ip t {\nchain x {\n}\nchain o {\ntype nat hook output priority -100;\n"+strings.ReplaceAll(rule,";","\n")+"\nmeta skuid 1337 return\nmeta skgid 1337 return\nmeta l4proto tcp redirect to :15001\n}\n}\n")
	if o, err := c.CombinedOutput(); err != nil { t.Fatal(string(o)) }
	l.Reset()
	for _, r := range l.RunAll() { if strings.Contains(r.Flow.Name,"no-socket") { t.Log(r) } }
	}
}
func TestTime(t *testing.T) {
	for _, n := range []string{"default","tproxy","tproxy-dns"} {
	l := newLab(t, Options{})
	p,_ := ProfileNamed(n)
	l.AddPassthrough()
	l.Use(p)
	applyIstio(t, l, p.settings())
	for range 5 { b := time.Now(); k := l.RunAll(); t.Log(n, len(k), time.Since(b)) }
	}
}
