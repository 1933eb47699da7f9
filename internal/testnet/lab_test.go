package testnet

import (
	"testing"
	"time"
)

// newLab creates a lab that is closed with the test.
func newLab(t *testing.T, options Options) *Lab {
	t.Helper()
	l, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("closing the lab: %v", err)
		}
	})
	return l
}

func TestNoRules(t *testing.T) {
	for name, options := range map[string]Options{
		"dual stack": {}, "IPv4 only": {Families: []Family{IPv4}}, "IPv6 only": {Families: []Family{IPv6}},
		"IPv6 disabled": {Families: []Family{IPv4}, NoIPv6: true}, "user namespace": {UserNamespace: true},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			l := newLab(t, options)
			t.Logf("lab made in %s", time.Since(begin))
			if !options.NoIPv6 {
				if err := l.AddPassthrough(); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Use(NoRules); err != nil {
				t.Fatal(err)
			}
			begin = time.Now()
			for _, r := range l.Check() {
				t.Error(r)
			}
			t.Logf("flows run in %s", time.Since(begin))
		})
	}
}
