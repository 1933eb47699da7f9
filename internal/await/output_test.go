package await

import (
	"bufio"
	"os/exec"
	"testing"
)

// What a program wrote before it answered on another file is in its output.
func TestOutput(t *testing.T) {
	for n := range 100 {
		log := NewOutput(t)
		cmd := exec.Command("sh", "-c", "echo first >&2; echo answer")
		cmd.Stderr = log.File
		stdout, err := cmd.StdoutPipe()
		Must(t, err)
		Must(t, cmd.Start())
		answer, err := bufio.NewReader(stdout).ReadString('\n')
		if said := log.String(); err != nil || answer != "answer\n" || said != "first\n" {
			t.Errorf("try %d: the answer %q, %v; said %q", n, answer, err, said)
		}
		Must(t, cmd.Wait())
	}
}
