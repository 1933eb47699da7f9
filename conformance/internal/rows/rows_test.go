package rows

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const page = "# Scenarios\n\n```\n" +
	"scenario        outcome  time   attempts  leaks  resets  control  measured\n" +
	"TestOld         ok       1.0 s  2         0      0       20\n" +
	"TestTwo/…-node  ok       3.0 s  -         -      -       -        2 repaired; x\n" +
	"```\n\nMore.\n\n```\nscenarios\n```\n"

func TestMerge(t *testing.T) {
	ran := []Row{
		{"TestTwo/…-node", "ok", "33.0 s", "44", "0", "0", "20", ""},
		{"TestNew", "ok", "5.0 s", "-", "-", "-", "-", "a; b"},
		{"TestOld", "FAILED", "9.0 s", "7", "1", "0", "20", ""},
	}
	want := "# Scenarios\n\n```\n" +
		"scenario        outcome  time    attempts  leaks  resets  control  measured\n" +
		"TestNew         ok       5.0 s   -         -      -       -        a; b\n" +
		"TestOld         ok       1.0 s   2         0      0       20\n" +
		"TestTwo/…-node  ok       33.0 s  44        0      0       20\n" +
		"```\n\nMore.\n\n```\nscenarios\n```\n"
	got, err := Merge(page, ran)
	if err != nil || got != want {
		t.Errorf("%v\n%s", err, got)
	}
	if again, err := Merge(got, ran); err != nil || again != got {
		t.Errorf("merged again: %v\n%s", err, again)
	}
}

// Several runs may update one page at the same time.
func TestUpdate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	names := strings.Fields("TestA TestB TestC TestD TestE TestF TestG TestH")
	var all sync.WaitGroup
	for _, name := range names {
		all.Go(func() {
			if err := Update(path, []Row{{name, "ok", "1.0 s", "1", "0", "0", "1", ""}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list, err := Read(string(text))
	if err != nil || len(list) != len(names)+2 {
		t.Errorf("%v, %d rows:\n%s", err, len(list), text)
	}
}

func TestNoTable(t *testing.T) {
	for _, bad := range []string{"", "```\nother\n```\n", "```\nscenario x\nTestA  ok\n```\n"} {
		if got, err := Merge(bad, nil); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}
