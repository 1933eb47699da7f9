package cluster

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	corev1 "k8s.io/api/core/v1"
)

// tail keeps whole lines: a part of a token might not be recognised as a credential.
func TestTail(t *testing.T) {
	long := strings.Repeat("0123456789\n", 100000)
	for _, test := range []struct {
		text, want string
		cut        bool
	}{
		{"", "", false},
		{"a\nb\n", "a\nb\n", false},
		{"0123456789\nabcdefgh\n", "abcdefgh\n", true},
		{"0123456789abcdefghij", "", true},
		{long, "0123456789\n", true},
	} {
		got, cut, err := tail(iotest.HalfReader(strings.NewReader(test.text)), 12)
		if string(got) != test.want || cut != test.cut || err != nil {
			t.Errorf("%.30q: %q, %t, %v", test.text, got, cut, err)
		}
	}
	failing := errors.New("broken off")
	from := io.MultiReader(strings.NewReader("a\n"), iotest.ErrReader(failing))
	if _, _, err := tail(from, 12); !errors.Is(err, failing) {
		t.Error(err)
	}
}

func TestPortOf(t *testing.T) {
	var pod corev1.Pod
	if got := portOf(pod); got != "" {
		t.Errorf("%q", got)
	}
	pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "x", ContainerPort: 1},
		{Name: "metrics", ContainerPort: 15088}}}}
	if got := portOf(pod); got != "15088" {
		t.Errorf("%q", got)
	}
}
