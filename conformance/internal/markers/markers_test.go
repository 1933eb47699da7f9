package markers

import "testing"

func TestInsert(t *testing.T) {
	const page = "before\n<!-- make a writes from here -->\nold\n<!-- to here -->\n" +
		"between\n<!-- make b writes from here -->\n<!-- to here -->\nafter\n"
	for command, want := range map[string]string{
		"make a": "before\n<!-- make a writes from here -->\nnew\n<!-- to here -->\n" +
			"between\n<!-- make b writes from here -->\n<!-- to here -->\nafter\n",
		"make b": "before\n<!-- make a writes from here -->\nold\n<!-- to here -->\n" +
			"between\n<!-- make b writes from here -->\nnew\n<!-- to here -->\nafter\n",
		"make c": "",
	} {
		got, err := Insert(page, command, "new\n")
		if got != want || (err == nil) == (want == "") {
			t.Errorf("%s: %q, %v", command, got, err)
		}
	}
	if _, err := Insert("<!-- make a writes from here -->\n", "make a", "new\n"); err == nil {
		t.Error("a page without an end was taken")
	}
}
