package facts

import (
	"bytes"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// fixture returns a frozen line of the protocol, without its line feed. Fixtures of releases are never changed.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(data, []byte("\n"))
}

// frozen are the messages in the fixtures.
var frozen = struct {
	request    Request
	pod, error Response
}{
	request: Request{Version: 1, Op: "pod", Namespace: "shop", Name: "cart-0",
		UID: "0f3b2a52-7d1d-4f0e-9d5b-6a7c8d9e0f10"},
	pod: Response{Version: 1, Pod: &redirect.Pod{
		Namespace: "shop", Name: "cart-0", UID: "0f3b2a52-7d1d-4f0e-9d5b-6a7c8d9e0f10",
		Annotations: map[string]string{"sidecar.istio.io/status": "{}"}, Complete: true,
		Labels:               map[string]string{"app": "cart"},
		NamespaceAnnotations: map[string]string{"istio-pod-network-controller/initialize": "true"},
		RunAsUser:            ref(1000), RunAsGroup: ref(0),
		Containers: []redirect.Container{{Name: "istio-proxy", Args: []string{"proxy", "sidecar"},
			Env: map[string]string{"ISTIO_META_DNS_CAPTURE": "true"}, RunAsUser: ref(1337), RunAsGroup: ref(1337)}},
		InitContainers: []redirect.Container{{Name: "istio-init", NetAdmin: true}},
	}},
	error: Response{Version: 1, Error: &Error{Code: 11, Message: "the API server does not answer"}},
}

func ref(id int64) *int64 { return &id }

func TestFrozenV1(t *testing.T) {
	request, err := parseRequest(fixture(t, "request-v1.json"))
	check(t, "request-v1.json", request, frozen.request, err)
	for name, want := range map[string]Response{"response-pod-v1.json": frozen.pod,
		"response-error-v1.json": frozen.error} {
		response, err := parseResponse(fixture(t, name))
		check(t, name, response, want, err)
	}
}

// check compares a parsed fixture with the message, and its bytes with what is written today.
func check(t *testing.T, name string, got, want any, err error) {
	t.Helper()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: parsed\n%+v, %v, want\n%+v", name, got, err, want)
	}
	if line, err := encode(want); err != nil || string(line) != string(fixture(t, name))+"\n" {
		t.Errorf("%s: encoded\n%s, %v", name, line, err)
	}
}

func TestVersionSkew(t *testing.T) {
	const unknown = "it has protocol version 2, this program speaks version 1"
	for line, want := range map[string]string{
		string(fixture(t, "request-v2.json")):  unknown,
		string(fixture(t, "response-v2.json")): unknown,
		`{"version":2}`:                        unknown,
		`{}`:                                   "it has no protocol version, this program speaks version 1",
		`null`:                                 "it has no protocol version, this program speaks version 1",
	} {
		_, requestErr := parseRequest([]byte(line))
		_, responseErr := parseResponse([]byte(line))
		for _, err := range []error{requestErr, responseErr} {
			if !IsVersion(err) || err.Error() != want {
				t.Errorf("%s: %v, want %s", line, err, want)
			}
		}
	}
	if _, err := parseRequest([]byte(`{"version":1,"later":[],"op":"pod","namespace":"a","name":"b"}`)); err != nil {
		t.Errorf("an unknown key of the same version: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"":                            "unexpected end of JSON input",
		"[]":                          "cannot unmarshal array",
		`{"version":1,"name":"b"}`:    "it has to name the pod",
		`{"version":1,"name":7}`:      "cannot unmarshal number",
		`{"version":"1"}`:             "cannot unmarshal string",
		`{"version":1} {"version":1}`: "after top-level value",
	} {
		if _, err := parseRequest([]byte(line)); err == nil || !strings.Contains(err.Error(), want) || IsVersion(err) {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
	if _, err := parseResponse([]byte(`{"version":1,"pod":{},"error":{}}`)); err == nil ||
		!strings.Contains(err.Error(), "either") {
		t.Errorf("a pod and an error: %v", err)
	}
}

func TestReadLine(t *testing.T) {
	long := strings.Repeat("x", 10000)
	for _, test := range []struct{ in, want, err string }{
		{"line\n", "line", ""},
		{"\n", "", ""},
		{long + "\n", long, ""},
		{strings.Repeat("x", 11999) + "\n", strings.Repeat("x", 11999), ""},
		{strings.Repeat("x", 12000) + "\n", "", "longer than 12000 bytes"},
		{strings.Repeat("x", 99999), "", "longer than 12000 bytes"},
		{"", "", io.ErrUnexpectedEOF.Error()},
		{"li", "", io.ErrUnexpectedEOF.Error()},
	} {
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(test.in), "bytes": iotest.OneByteReader(strings.NewReader(test.in)),
			"halves": iotest.HalfReader(strings.NewReader(test.in)), "eof": iotest.DataErrReader(strings.NewReader(test.in)),
		} {
			got, err := readLine(r, 12000)
			if string(got) != test.want || (err == nil) != (test.err == "") || err != nil &&
				!strings.Contains(err.Error(), test.err) {
				t.Errorf("%s of %.20q (%d): %.20q, %v, want %.20q, %s", name, test.in, len(test.in), got, err, test.want, test.err)
			}
		}
	}
	for _, in := range []string{"a\nb", "a\n\n", "a\nb\n"} {
		if _, err := readLine(strings.NewReader(in), 100); err == nil || err.Error() != "there is more behind its line" {
			t.Errorf("%q: %v", in, err)
		}
	}
	broken := errors.New("broken")
	if _, err := readLine(iotest.ErrReader(broken), 100); !errors.Is(err, broken) {
		t.Errorf("broken reader: %v", err)
	}
}

// roundTrips fails the test if a message that parses is written in a form that does not parse to the same message.
func roundTrips[T any](t *testing.T, parse func([]byte) (T, error), line []byte) {
	var zero T
	message, err := parse(line)
	if err != nil {
		if !reflect.DeepEqual(message, zero) {
			t.Fatalf("an error and a message: %+v, %v", message, err)
		}
		return
	}
	first, err := encode(message)
	if err != nil {
		t.Fatalf("parsed, yet it does not encode: %v", err)
	}
	if bytes.Count(first, []byte("\n")) != 1 {
		t.Fatalf("not one line: %q", first)
	}
	again, err := parse(first)
	if err != nil {
		t.Fatalf("encoded, yet it does not parse: %v", err)
	}
	if second, err := encode(again); err != nil || !bytes.Equal(first, second) {
		t.Fatalf("a round trip changes\n%s into\n%s (%v)", first, second, err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(fixture(f, "request-v1.json"))
	f.Add(fixture(f, "request-v2.json"))
	f.Fuzz(func(t *testing.T, line []byte) { roundTrips(t, parseRequest, line) })
}

func FuzzResponse(f *testing.F) {
	for _, name := range []string{"response-pod-v1.json", "response-error-v1.json", "response-v2.json"} {
		f.Add(fixture(f, name))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		roundTrips(t, parseResponse, line)
		if pod, err := accept(line, question); err == nil && (pod.Namespace != "shop" || pod.Name != "cart-0") {
			t.Fatalf("accepted the answer about %q %q", pod.Namespace, pod.Name)
		}
	})
}
