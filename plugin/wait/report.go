package wait

import (
	"os"
	"strings"
	"syscall"

	"github.com/istio-pod-network/controller/internal/excerpt"
)

// maxMessage is how many bytes of a termination message the kubelet keeps
// (https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/).
const maxMessage = 4096

const advice = ". The rules are written on the node when the pod's sandbox is made: see the pod's Events, and the " +
	"log of istio-pod-network-agent on this node"

// fail writes a failure to standard error and to the container's termination message, and returns the code.
func (w *waiter) fail(code int, why string) int {
	message := "the pod's network is not proven to be initialized: " + why
	w.sayf("%s", message)
	if w.termination == "" {
		return code
	}
	message = excerpt.Head(strings.ToValidUTF8(message, "?"), maxMessage)
	if err := writeMessage(w.termination, message); err != nil {
		w.sayf("writing the termination message: %v", err)
	}
	return code
}

// writeMessage never creates the default file: the kubelet mounts it, and without that mount nothing reads it.
func writeMessage(path, message string) error {
	flags := os.O_WRONLY | os.O_TRUNC | syscall.O_NONBLOCK
	if path != defaultTermination {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if os.IsNotExist(err) && path == defaultTermination {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(message)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
