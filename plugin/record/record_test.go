package record

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The fixture is what released plugins wrote on nodes. It must not be changed.
func TestFrozenV1(t *testing.T) {
	frozen := fixture(t, "v1-redirect.json")
	r, err := parse(frozen)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(r, sample()) {
		t.Errorf("parsed\n%+v, want\n%+v", r, sample())
	}
	data, err := encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, frozen) {
		t.Errorf("encoded\n%s, want\n%s", data, frozen)
	}
}

func TestFixtureSetsEveryKey(t *testing.T) {
	v := reflect.ValueOf(sample())
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("the sample leaves %s zero, so the fixture does not freeze it", v.Type().Field(i).Name)
		}
	}
}

func TestUnknownKeysAreIgnored(t *testing.T) {
	r, err := parse(fixture(t, "v1-untouched.json"))
	if err != nil || r.Decision != Untouched || r.Reason != "inject-false" {
		t.Errorf("parsed %+v, %v", r, err)
	}
}

func TestVersionSkew(t *testing.T) {
	for name, want := range map[string]string{
		"v2-other-types.json": "it has record version 2, this program knows version 1",
		"v2-same-types.json":  "it has record version 2, this program knows version 1",
		"v0-none.json":        "it has no record version, this program knows version 1",
	} {
		_, err := parse(fixture(t, name))
		if !IsVersion(err) || err.Error() != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	r := sample()
	r.Version = 2
	if _, err := encode(r); !IsVersion(err) {
		t.Errorf("encoding version 2: %v", err)
	}
	if r.Version = 0; IsVersion(nil) {
		t.Error("nil is a version error")
	}
	if data, err := encode(r); err != nil || !bytes.HasPrefix(data, []byte(`{"version":1,`)) {
		t.Errorf("encoding version 0: %s, %v", data, err)
	}
}

func TestParseRefuses(t *testing.T) {
	change := func(old, replacement string) string {
		data := string(fixture(t, "v1-redirect.json"))
		if !strings.Contains(data, old) {
			t.Fatalf("the fixture has no %s", old)
		}
		return strings.Replace(data, old, replacement, 1)
	}
	for want, data := range map[string]string{
		"unexpected end of JSON":                  "",
		"unexpected end":                          `{"version":1,"network":"k`,
		"cannot unmarshal array":                  "[]",
		"after top-level value":                   string(fixture(t, "v1-redirect.json")) + "x",
		"it has no record version":                "{}",
		"no network name":                         change(`"k8s-pod-network"`, `""`),
		`decision: invalid value "maybe"; valid`:  change(`"decision":"redirect"`, `"decision":"maybe"`),
		`interface name: invalid value "../../x"`: change(`"eth0"`, `"../../x"`),
		`container ID: invalid value "../6f1e`:    change(`"6f1e`, `"../6f1e`),
		"cannot unmarshal string":                 change(`5321`, `"5321"`),
		"parsing time":                            change(`2025-03-04`, `yesterday-`),
		"cannot unmarshal number 1.5 ":            change(`"version":1,`, `"version":1.5,`),
	} {
		_, err := parse([]byte(data))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %s", data, err, want)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	for want, change := range map[string]func(*Record){
		"no network name":          func(r *Record) { r.Network = "" },
		`invalid value "Redirect"`: func(r *Record) { r.Decision = "Redirect" },
		"container ID":             func(r *Record) { r.ContainerID = "a/b" },
		"interface name":           func(r *Record) { r.IfName = ".." },
		"unexpected end":           func(r *Record) { r.Spec = json.RawMessage(`{"mode":`) },
		"larger than 4194304":      func(r *Record) { r.Spec = json.RawMessage(`"` + strings.Repeat("x", maxSize) + `"`) },
	} {
		r := sample()
		change(&r)
		if _, err := encode(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestTimeIsStoredInUTC(t *testing.T) {
	r := sample()
	r.Time = r.Time.In(time.FixedZone("east", 3600))
	data, err := encode(r)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(`"2025-03-04T05:06:07.000000008Z"`)) {
		t.Errorf("encoded %s", data)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"v1-redirect.json", "v1-untouched.json", "v2-other-types.json", "v2-same-types.json",
		"v0-none.json"} {
		f.Add(fixture(f, name))
	}
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parse(data)
		if err != nil {
			if !reflect.DeepEqual(r, Record{}) {
				t.Fatalf("an error and a record: %+v, %v", r, err)
			}
			return
		}
		first, err := encode(r)
		if err != nil {
			t.Fatalf("parsed, yet it does not encode: %v", err)
		}
		again, err := parse(first)
		if err != nil {
			t.Fatalf("encoded, yet it does not parse: %v", err)
		}
		second, err := encode(again)
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("a round trip changes\n%s into\n%s (%v)", first, second, err)
		}
	})
}
