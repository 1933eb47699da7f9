package conflist

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/istio-pod-network/controller/install/installtest"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/golden"
	"github.com/istio-pod-network/controller/internal/invalid"
)

// TestGolden compares the result for every file in testdata/splice with that in testdata/spliced. With -update it
// writes those, which then have to be reviewed. It also checks what libcni reads from them, and that Unsplice restores
// every byte.
func TestGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/splice/*.conf*")
	if err != nil || len(paths) < 30 {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) { spliced(t, path) })
	}
}

func spliced(t *testing.T, path string) {
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	after, err := Splice(before, ours)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), ".conf"), ".conflist") + ".conflist"
	want := filepath.Join("testdata", "spliced", name)
	golden.Compare(t, want, string(after))
	holds(t, before, ours)
	list := installtest.Chained(t, want)
	if bytes.Contains(before, []byte(entry.Type)) {
		return
	}
	// Splice must keep everything, not only add our entry.
	var former []*libcni.PluginConfig
	if single, err := libcni.NetworkPluginConfFromBytes(before); err == nil {
		former = append(former, single)
		if list.Name != single.Network.Name || list.CNIVersion != single.Network.CNIVersion {
			t.Errorf("%s %s became %s %s", single.Network.Name, single.Network.CNIVersion, list.Name, list.CNIVersion)
		}
	} else if was, err := libcni.NetworkConfFromBytes(before); err == nil {
		former = was.Plugins
		if was.Name != list.Name || was.CNIVersion != list.CNIVersion || was.DisableCheck != list.DisableCheck {
			t.Errorf("%+v became %+v", was, list)
		}
	} else {
		t.Fatal(err)
	}
	if len(list.Plugins) != len(former)+1 {
		t.Fatalf("%d plugins became %d", len(former), len(list.Plugins))
	}
	for i, p := range former {
		if !Equal(p.Bytes, list.Plugins[i].Bytes) {
			t.Errorf("%s became %s", p.Bytes, list.Plugins[i].Bytes)
		}
	}
}

// holds checks properties for any input: valid JSON stays valid, a second Splice changes nothing, and Unsplice restores
// the input, also after a Splice with another entry.
func holds(t *testing.T, x, ours []byte) {
	t.Helper()
	clean, err := Unsplice(x)
	if err != nil {
		t.Fatal(err)
	}
	once, err := Splice(x, ours)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(once) {
		t.Fatalf("not valid: %s", once)
	}
	if twice, err := Splice(once, ours); err != nil || !bytes.Equal(once, twice) {
		t.Errorf("twice: %v %s\nonce: %s", err, twice, once)
	}
	other, err := Splice(once, []byte(`{"other": [{}, {"a": 1}], "type": "istio-pod-network"}`))
	if err != nil {
		t.Fatal(err)
	}
	// Splice keeps our entry in another format; the bytes before it are then unknown.
	if foreign := bytes.Equal(x, once); !foreign {
		for _, spliced := range [][]byte{once, other} {
			undone, err := Unsplice(spliced)
			if err != nil || !bytes.Equal(undone, clean) {
				t.Errorf("undone: %v %q\nwant %q", err, undone, clean)
			}
		}
	}
	if p, err := Parse(x); err != nil || len(p.ours) == 0 && !bytes.Equal(clean, x) {
		t.Errorf("not ours, and still changed: %v %s", err, clean)
	}
	c, err := Parse(once)
	if err != nil || c.single || len(c.ours) != 1 || c.ours[0] != len(c.plugins)-1 || len(c.plugins) < 2 {
		t.Errorf("%+v %v: %s", c, err, once)
	}
}

// For what cannot be a primary, Splice returns an error that says why, and never a network of our own.
func TestRefused(t *testing.T) {
	for input, want := range map[string]error{
		``: ErrNotJSON, `{`: ErrNotJSON, `{} {}`: ErrNotJSON, `[]`: ErrNotObject, `null`: ErrNotObject,
		`{}`: ErrNoType, `{"type": 1}`: ErrNoType, `{"type":"ptp"}`: ErrNoName, `{"name":1,"type":"ptp"}`: ErrNoName,
		`{"plugins":[]}`: ErrNoPlugins, `{"plugins":{}}`: ErrPlugins, `{"plugins":[1]}`: ErrPlugins,
		`{"name":"n","type":"istio-pod-network"}`: ErrOnlyOurs, `{"plugins":[{"type":"istio-pod-network"}]}`: ErrOnlyOurs,
	} {
		if out, err := Splice([]byte(input), ours); !errors.Is(err, want) || out != nil {
			t.Errorf("%q: %v, want %v", input, err, want)
		}
	}
	for _, e := range []string{``, `1`, `{}`, `{"type":"other"}`, `{"type":"istio-pod-network"`} {
		if _, err := Splice([]byte(`{"name":"n","type":"ptp"}`), []byte(e)); !invalid.Is(err) {
			t.Errorf("entry %q: %v", e, err)
		}
	}
}

// Chained means: our entry once and last. Which entry it is matters only if one is given.
func TestChained(t *testing.T) {
	const other = `{"type":"istio-pod-network"}`
	for list, want := range map[string][2]bool{ // for this entry, and for any entry of ours
		`{"type":"a"},` + string(ours):          {true, true},
		`{"type":"a"},` + other:                 {false, true},
		string(ours) + `,{"type":"a"}`:          {false, false},
		other + `,{"type":"a"},` + string(ours): {false, false},
		`{"type":"a"}`:                          {false, false},
		string(ours):                            {false, false},
	} {
		c, err := Parse([]byte(`{"name":"n","plugins":[` + list + `]}`))
		if got := [2]bool{c.Chained(ours), c.Chained(nil)}; err != nil || got != want {
			t.Errorf("%s: %t, %v, want %t", list, got, err, want)
		}
	}
}

// Unsplice keeps a list that only looks like one made from a .conf.
func TestListLikeOurs(t *testing.T) {
	list, err := Splice([]byte("{\n  \"name\": \"n\", \"type\": \"ptp\"\n}"), ours)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := Without(list)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Splice(bare, ours)
	if err != nil {
		t.Fatal(err)
	}
	if undone, err := Unsplice(again); err != nil || !bytes.Equal(undone, bare) {
		t.Errorf("%v %s", err, undone)
	}
}

func FuzzSplice(f *testing.F) {
	paths, _ := filepath.Glob("testdata/splice*/*")
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"plugins":[{"type":"a"},{"type":"istio-pod-network"},{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Splice(data, ours); err != nil {
			if clean, err := Unsplice(data); err == nil && !json.Valid(clean) {
				t.Errorf("not valid: %s", clean)
			}
			return
		}
		holds(t, data, ours)
	})
}
