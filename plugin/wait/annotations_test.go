package wait

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/record"
)

func TestParseAnnotations(t *testing.T) {
	for _, c := range []struct {
		name, data string
		want       annotations
	}{
		{"empty", "", annotations{}},
		{"one", `a/b="c"`, annotations{"a/b": "c"}},
		{"several, newline at the end", "a=\"1\"\nb=\"2\"\n", annotations{"a": "1", "b": "2"}},
		{"quoting", `a="x\ny=\"z\"\u00e9é"`, annotations{"a": "x\ny=\"z\"éé"}},
		{"empty value", `a=""`, annotations{"a": ""}},
		{"value with =", `a="b=c"`, annotations{"a": "b=c"}},
		{"torn in the value", "a=\"1\"\nb=\"ini", annotations{"a": "1"}},
		{"torn in an escape", `a="1\"`, annotations{}},
		{"torn in the key", "a=\"1\"\nb", annotations{"a": "1"}},
		{"torn before the value", "a=\"1\"\nb=", annotations{"a": "1"}},
		{"torn at the front", "nitialized\"\na=\"1\"", annotations{"a": "1"}},
		{"no quotes", "a=initialized", annotations{}},
		{"other quotes", "a='x'\nb=`initialized`", annotations{}},
		{"more behind the value", `a="1" x`, annotations{}},
		{"no key", `="1"`, annotations{}},
		{"twice the same", "a=\"1\"\na=\"1\"", annotations{"a": "1"}},
		{"twice, different", "a=\"1\"\na=\"2\"\na=\"1\"\nb=\"3\"", annotations{"b": "3"}},
		{"binary", "\x00\xff=\"\x80\"\n\n\n", annotations{"\x00\xff": "\ufffd"}},
		{"CRLF", "a=\"1\"\r\nb=\"2\"", annotations{"b": "2"}},
	} {
		if got := parseAnnotations(c.data); !maps.Equal(got, c.want) {
			t.Errorf("%s: want %q, got %q", c.name, c.want, got)
		}
	}
}

// FuzzAnnotations cuts a file of the kubelet at any place. The parser must not return anything that the file does not
// have.
func FuzzAnnotations(f *testing.F) {
	f.Add("initialized", "x\ny=\"z", "junk=\"a\"\n", uint(10))
	f.Add("\\", `"`, "a=b", uint(3))
	f.Add("", "\xff", statusKey+`="initialized`, uint(1<<20))
	f.Fuzz(func(t *testing.T, status, netns, raw string, cut uint) {
		parseAnnotations(raw) // must not panic
		whole := strings.Join(marked(status, record.NetNS(netns)), "\n")
		all := parseAnnotations(whole)
		if all[statusKey] != status || all[netnsKey] != netns || len(all) != 3 {
			t.Fatalf("read %q of %q", all, whole)
		}
		for key, value := range parseAnnotations(whole[:min(cut, uint(len(whole)))]) {
			if all[key] != value {
				t.Errorf("read %q=%q of a part", key, value)
			}
		}
	})
}

func TestReadAnnotations(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) string {
		await.Must(t, os.WriteFile(dir+"/"+name, []byte(data), 0o600))
		return dir + "/" + name
	}
	await.Must(t, syscall.Mkfifo(dir+"/pipe", 0o600))
	big := line("a", "1") + "\n" + strings.Repeat("#", maxFile)
	for _, c := range []struct {
		name  string
		files []string
		want  string // the value of "a", or a part of the error
		fails bool
	}{
		{"the first", []string{write("one", `a="1"`), write("two", `a="2"`)}, "1", false},
		{"the second, where the first is absent", []string{dir + "/none", dir + "/two"}, "2", false},
		{"a swapped link", []string{newVolume(t, `a="3"`).file()}, "3", false},
		{"as large as may be", []string{write("full", big[:maxFile])}, "1", false},
		{"too large", []string{write("big", big[:maxFile+1])}, "larger than 1048576 bytes", true},
		{"endless", []string{"/dev/zero"}, "not a regular file", true},
		{"a pipe", []string{dir + "/pipe"}, "not a regular file", true},
		{"a directory", []string{dir}, "not a regular file", true},
		{"none", []string{dir + "/none", dir + "/nor"}, dir + "/none and " + dir + "/nor: no such file", true},
		{"below a file", []string{dir + "/one/x"}, "not a directory", true},
	} {
		a, err := readAnnotations(c.files)
		if (err != nil) != c.fails || a["a"] != c.want && !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: want %q, got %q, %v", c.name, c.want, a, err)
		}
	}
}
