package conflist

import (
	"strings"
	"testing"
)

func TestVersionsAndTypes(t *testing.T) {
	for conf, want := range map[string]string{
		`{"name":"n","type":"ptp"}`:                                                                 "0.1.0|ptp",
		`{"name":"n","cniVersion":"","plugins":[{"type":"ptp"}]}`:                                   "0.1.0|ptp",
		`{"name":"n","cniVersion":"0.3.0","type":"azure","ipam":{"type":"azure-ipam"}}`:             "0.3.0|azure azure-ipam",
		`{"cniVersion":"1.0.0","cniVersions":["1.1.0","1.0.0"],"plugins":[{"type":"a","ipam":{}}]}`: "1.0.0 1.1.0|a",
		`{"cniVersion":"1.0.0","cniVersions":"1.1.0","plugins":[{"type":"a"}]}`:                     "1.0.0|a",
		`{"cniVersion":"1.0.0","plugins":[{"type":"a","ipam":"x"},{"type":"b","ipam":{"type":"a"}},
			{"type":"istio-pod-network","ipam":{"type":"z"}}]}`: "1.0.0|a b",
	} {
		c, err := Parse([]byte(conf))
		if got := strings.Join(c.Versions(), " ") + "|" + strings.Join(c.Types(), " "); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", conf, got, err, want)
		}
	}
}
