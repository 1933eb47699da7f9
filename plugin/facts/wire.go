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

// OpPod is the operation that asks for the facts of one pod. There is no other.
const OpPod = "pod"

// Codes of errors that Serve itself answers with. They are CNI error codes, and the agent's own should be too.
const (
	CodeDecode   uint = 6   // the request is not a line of this protocol
	CodeTryLater uint = 11  // another release may know the request's version or operation
	CodeInternal uint = 999 // the caller is not root, or the answer cannot be sent
)

// Limits of a line in bytes, with its line feed.
const (
	maxRequest  = 64 << 10
	maxResponse = 4 << 20 // the API server takes pods of 1.5 MiB; JSON may need six times the 256 KiB of annotations
)

// Request is the plugin's question.
type Request struct {
	Version   int    `json:"version"` // Ask sets it if it is zero
	Op        string `json:"op"`      // Ask sets it if it is empty
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"` // K8S_POD_UID; for a static pod the config hash that its mirror pod carries
	// NoNamespace says that the namespace's annotations do not matter. Plugins of earlier releases do not send it.
	NoNamespace bool `json:"noNamespace,omitempty"`
}

// Response is the agent's answer. It has either Pod or Error.
type Response struct {
	Version int           `json:"version"` // Serve sets it if it is zero
	Pod     *redirect.Pod `json:"pod,omitempty"`
	Error   *Error        `json:"error,omitempty"`
}

// Error is the agent's answer if it does not know the pod's facts.
type Error struct {
	Code    uint   `json:"code"` // a CNI error code
	Message string `json:"message"`
}

// Error returns the message and the code.
func (e *Error) Error() string { return fmt.Sprintf("%s (code %d)", e.Message, e.Code) }

// parseResponse parses the line of an answer.
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

// parseRequest parses the line of a question. It accepts any operation.
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

// parse decodes one line into message, and checks *version, which points into message.
func parse(line []byte, message any, version *int) error {
	if err := json.Unmarshal(line, message); err != nil {
		// A later version may change the type of a key, so look at the version alone before calling the line invalid.
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

// encode returns a message as its line.
func encode(message any) ([]byte, error) {
	line, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	return append(line, '\n'), nil
}

// readLine reads one line of at most limit bytes and returns it without its line feed. It does not wait for the end of
// the stream, but bytes that have already arrived after the line are an error. If the stream ends within the line, the
// error is io.ErrUnexpectedEOF.
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
			buf = append(buf, 0)[:len(buf)] // append grows the buffer to about twice its size
		}
	}
}
