package facts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// Version of the protocol, in requests and responses.
const Version = 1

// OpPod asks for the facts of one pod. It is the only operation.
const OpPod = "pod"

// Codes of Error that Serve itself answers with. They are CNI error codes, as the agent's own should be.
const (
	CodeDecode   uint = 6   // the request is no JSON line of this protocol
	CodeTryLater uint = 11  // the request's version or operation is of another release
	CodeInternal uint = 999 // the caller is not root, or the answer cannot be sent
)

// Bounds of a line in bytes, its line feed included.
const (
	maxRequest  = 64 << 10
	maxResponse = 4 << 20 // the API server takes pods of 1.5 MiB; in JSON, 256 KiB of annotations may be six times as much
)

// Request is the plugin's question.
type Request struct {
	Version   int    `json:"version"` // filled in by Ask when zero
	Op        string `json:"op"`      // filled in by Ask when empty
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"` // K8S_POD_UID; of a static pod the hash that its mirror pod carries
	// NoNamespace says that no annotation of the namespace matters. A plugin of an earlier release does not say it.
	NoNamespace bool `json:"noNamespace,omitempty"`
}

// Response is the agent's answer: Pod or Error, never both.
type Response struct {
	Version int           `json:"version"` // filled in by Serve when zero
	Pod     *redirect.Pod `json:"pod,omitempty"`
	Error   *Error        `json:"error,omitempty"`
}

// Error is the agent saying that it cannot tell.
type Error struct {
	Code    uint   `json:"code"` // a CNI error code
	Message string `json:"message"`
}

// Error is the agent's message with its code.
func (e *Error) Error() string { return fmt.Sprintf("%s (code %d)", e.Message, e.Code) }

// parseResponse reads an answer's line.
func parseResponse(line []byte) (Response, error) {
	var r Response
	if err := parse(line, &r, &r.Version); err != nil {
		return Response{}, err
	}
	if (r.Pod == nil) == (r.Error == nil) {
		return Response{}, errors.New("it has to carry either a pod or an error")
	}
	return r, nil
}

// parseRequest reads a question's line. It accepts any operation.
func parseRequest(line []byte) (Request, error) {
	var r Request
	if err := parse(line, &r, &r.Version); err != nil {
		return Request{}, err
	}
	if r.Namespace == "" || r.Name == "" {
		return Request{}, errors.New("it has to name the pod and its namespace")
	}
	return r, nil
}

// parse decodes one line into message, whose version is *version.
func parse(line []byte, message any, version *int) error {
	if err := json.Unmarshal(line, message); err != nil {
		// A later version may give a key another type, so the version has to be looked at alone before calling it garbage.
		var only struct {
			Version int `json:"version"`
		}
		if json.Unmarshal(line, &only) == nil && only.Version != Version {
			return &versionError{peer: only.Version}
		}
		return err
	}
	if *version != Version {
		return &versionError{peer: *version}
	}
	return nil
}

// encode renders a message as its line.
func encode(message any) ([]byte, error) {
	line, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	return append(line, '\n'), nil
}

// readLine reads one line of at most limit bytes and returns it without its line feed. It does not wait for the end of
// the stream, but what has already come behind the line is an error. A stream that ends early is io.ErrUnexpectedEOF.
func readLine(r io.Reader, limit int) ([]byte, error) {
	buf := make([]byte, 0, 4096)
	for {
		n, err := r.Read(buf[len(buf):min(cap(buf), limit)])
		fresh := buf[len(buf) : len(buf)+n]
		buf = buf[:len(buf)+n]
		if i := bytes.IndexByte(fresh, '\n'); i >= 0 {
			if i != n-1 {
				return nil, errors.New("there is more behind its line")
			}
			return buf[:len(buf)-1], nil
		}
		switch {
		case len(buf) >= limit:
			return nil, fmt.Errorf("it is longer than %d bytes", limit)
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)] // doubles it, more or less
		}
	}
}
