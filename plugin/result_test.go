package plugin

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// everyVersion are the CNI versions that the plugin supports.
var everyVersion = []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// The result is printed byte for byte: white space, order of keys, unknown keys, and numbers that no float can hold.
func TestPreviousResultUnchanged(t *testing.T) {
	for name, result := range map[string]string{
		"small":         `{"cniVersion":"1.1.0"}`,
		"white space":   "{\n\t\"cniVersion\" :  \"1.1.0\", \"ips\": [ ]\r\n}",
		"unknown keys":  `{"z":{"deep":[null,{"b":1,"a":2}]},"cniVersion":"1.1.0","x.y/z":true}`,
		"big integers":  `{"cniVersion":"1.1.0","n":123456789012345678901234567890,"m":9007199254740993,"f":1.0}`,
		"big float":     `{"cniVersion":"1.1.0","huge":1e400,"tiny":-1e-400}`,
		"escapes":       `{"cniVersion":"1.1.0","html":"<&>\u2028","u":"\u00e9é\ud83d\ude00"}`,
		"no version":    `{"ips":[{"address":"10.0.0.2/24"}]}`,
		"empty version": `{"cniVersion":"","ips":[]}`,
		"repeated key":  `{"cniVersion":"1.1.0","a":1,"a":2}`,
	} {
		for _, pod := range []object{mesh, {}} {
			t.Run(name, func(t *testing.T) {
				r := newRig(t)
				r.annotate(pod)
				r.conf["prevResult"] = "RESULT"
				got := r.addRaw("RESULT", result)
				if got != result+"\n" {
					t.Errorf("printed %q, want %q", got, result)
				}
			})
		}
	}
}

// addRaw runs ADD with a configuration in which raw text replaces the string mark. json.Marshal would compact and
// escape even a RawMessage.
func (r *rig) addRaw(mark, raw string) string {
	r.Helper()
	stdin, err := json.Marshal(r.conf)
	if err != nil {
		r.Fatal(err)
	}
	args := r.args
	args.StdinData = []byte(strings.Replace(string(stdin), `"`+mark+`"`, raw, 1))
	if err := r.funcs().Add(&args); err != nil {
		r.Fatal(err)
	}
	return r.out.String()
}

func TestNoPreviousResult(t *testing.T) {
	for _, version := range everyVersion {
		for _, previous := range []any{nil, json.RawMessage("null")} {
			r := newRig(t)
			r.conf["cniVersion"], r.conf["prevResult"] = version, previous
			if previous == nil {
				delete(r.conf, "prevResult")
			}
			r.must("ADD")
			if got, want := r.out.String(), `{"cniVersion":"`+version+`"}`+"\n"; got != want {
				t.Errorf("printed %q, want %q", got, want)
			}
		}
	}
}

// A runtime reads the version that it configured, so a result of another version is converted.
func TestPreviousResultConverted(t *testing.T) {
	result := func(version, ip string) json.RawMessage {
		return json.RawMessage(`{"cniVersion":"` + version +
			`","interfaces":[{"name":"eth0","mac":"aa:bb:cc:dd:ee:ff","sandbox":"/x"}],` +
			`"ips":[{` + ip + `"interface":0,"address":"10.0.0.2/24","gateway":"10.0.0.1"}],"routes":[{"dst":"0.0.0.0/0"}],` +
			`"dns":{"nameservers":["10.0.0.9"]}}`)
	}
	for _, from := range everyVersion {
		for _, to := range everyVersion {
			if from < "0.3.0" || to < "0.3.0" {
				continue // has a format of its own: TestFirstResultConverted
			}
			r := newRig(t)
			ip := ""
			if from < "1" {
				ip = `"version":"4",`
			}
			r.conf["cniVersion"], r.conf["prevResult"] = to, result(from, ip)
			r.must("ADD")
			var got struct {
				CNIVersion string
				Interfaces []struct{ Name string }
				IPs        []struct{ Version, Address, Gateway string }
				Routes     []struct{ Dst string }
				DNS        struct{ Nameservers []string }
			}
			if err := json.Unmarshal(r.out.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if got.CNIVersion != to || len(got.Interfaces) != 1 || len(got.IPs) != 1 || got.IPs[0].Address != "10.0.0.2/24" ||
				(got.IPs[0].Version == "4") != (to < "1") || len(got.Routes) != 1 || len(got.DNS.Nameservers) != 1 {
				t.Errorf("from %s to %s: %s", from, to, r.out.String())
			}
		}
	}
}

// Before 0.3.0 a result has one address of each family and no interfaces. ADD prints that format if it is configured.
func TestFirstResultConverted(t *testing.T) {
	first := `"ip4":{"ip":"10.0.0.2/24","gateway":"10.0.0.1","routes":[{"dst":"0.0.0.0/0"}]},` +
		`"ip6":{"ip":"fd00::2/64"},"dns":{"nameservers":["10.0.0.9"]}}`
	later := `"ips":[{"version":"4","address":"10.0.0.2/24","gateway":"10.0.0.1"},` +
		`{"version":"6","address":"fd00::2/64"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.0.0.9"]}}`
	for _, from := range everyVersion {
		for _, to := range everyVersion {
			if from >= "0.3.0" && to >= "0.3.0" {
				continue
			}
			previous := `{"cniVersion":"` + from + `",` + map[bool]string{true: first, false: later}[from < "0.3.0"]
			r := newRig(t)
			r.conf["cniVersion"], r.conf["prevResult"] = to, json.RawMessage(previous)
			r.must("ADD")
			var got struct {
				CNIVersion string
				IP4, IP6   struct{ IP string }
				IPs        []struct{ Address string }
				DNS        struct{ Nameservers []string }
			}
			if err := json.Unmarshal(r.out.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			addresses := []string{got.IP4.IP, got.IP6.IP}
			if to >= "0.3.0" {
				addresses = nil
				for _, ip := range got.IPs {
					addresses = append(addresses, ip.Address)
				}
			}
			if got.CNIVersion != to || strings.Join(addresses, " ") != "10.0.0.2/24 fd00::2/64" ||
				len(got.DNS.Nameservers) != 1 {
				t.Errorf("from %s to %s: %s", from, to, r.out.String())
			}
		}
	}
}

// A configuration without a version, or with an empty one, has version 0.1.0.
func TestNoVersion(t *testing.T) {
	for _, version := range []any{nil, ""} {
		r := newRig(t)
		r.conf["cniVersion"] = version
		if version == nil {
			delete(r.conf, "cniVersion")
		}
		delete(r.conf, "prevResult")
		r.must("ADD")
		if got, want := r.out.String(), `{"cniVersion":"0.1.0"}`+"\n"; got != want {
			t.Errorf("%v: printed %q, want %q", version, got, want)
		}
	}
}

func TestPreviousResultRefused(t *testing.T) {
	for raw, words := range map[string][]string{
		`5`:                      {"prevResult: invalid value 5", "valid: a CNI result object"},
		`"text"`:                 {`prevResult: invalid value "text"`},
		`[{}]`:                   {"prevResult: invalid value [{}]"},
		`{"cniVersion":5}`:       {`prevResult: invalid value {"cniVersion":5}`},
		`{"cniVersion":"9.9.9"}`: {`prevResult.cniVersion: invalid value "9.9.9"`, "normally 1.1.0"},
		`{"cniVersion":"1.0.0","ips":[{"address":"x"}]}`: {`prevResult.cniVersion: invalid value "1.0.0"`,
			"invalid CIDR address: x"},
	} {
		r := newRig(t)
		r.conf["prevResult"] = json.RawMessage(raw)
		r.fails("ADD", 7, words...)
		r.clean()
		if r.opened != 0 {
			t.Errorf("%s: the namespace was opened", raw)
		}
	}
}

// ADD checks that the result can be printed before it touches the namespace, for a mesh pod and for any other.
func TestResultComesFirst(t *testing.T) {
	r := newRig(t)
	r.annotate(object{annotation.SidecarInject: "false"})
	r.conf["prevResult"] = 5
	r.fails("ADD", 7)
	r.clean()
}
