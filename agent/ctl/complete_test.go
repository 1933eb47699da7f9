package ctl

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// lists is an API server that only answers lists of names, by the paths of the requests. It forbids everything else.
func lists(t *testing.T, names map[string][]string) (server string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		type meta struct {
			Name string `json:"name"`
		}
		type object struct {
			Metadata meta `json:"metadata"`
		}
		list := struct {
			Kind       string   `json:"kind"`
			APIVersion string   `json:"apiVersion"`
			Items      []object `json:"items"`
		}{Kind: "PodList", APIVersion: "v1"}
		switch path.Base(r.URL.Path) {
		case "namespaces":
			list.Kind = "NamespaceList"
		case "nodes":
			list.Kind = "NodeList"
		}
		has, known := names[strings.TrimPrefix(r.URL.Path, "/api/v1/")]
		w.Header().Set("Content-Type", "application/json")
		if !known {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		for _, name := range has {
			list.Items = append(list.Items, object{meta{name}})
		}
		if err := json.NewEncoder(w).Encode(list); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

const kubeconfig = `{"apiVersion": "v1", "kind": "Config", "current-context": "laptop",
	"contexts": [{"name": "laptop", "context": {"cluster": "kind", "user": "me", "namespace": "shop"}},
		{"name": "lab", "context": {"cluster": "lab-1", "user": "you"}}],
	"clusters": [{"name": "kind", "cluster": {"server": "SERVER"}}, {"name": "lab-1", "cluster": {"server": "SERVER"}}],
	"users": [{"name": "me", "user": {}}, {"name": "you", "user": {}}]}`

// A shell is offered names from the cluster and the kubeconfig, and only those that are valid in that place.
func TestCompletion(t *testing.T) {
	server := lists(t, map[string][]string{
		"namespaces": {"bank", "secret", "shop", "shop-2"}, "nodes": {"node-a", "node-b", "other"},
		"namespaces/shop/pods": {"cart-0", "cart-1", "web"}, "namespaces/bank/pods": {"ledger-7f", "shopper"},
	})
	few := lists(t, map[string][]string{"namespaces/shop/pods": {"cart-0"}})
	config := func(server string) string {
		file := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(kubeconfig, "SERVER", server)), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	const noFile, noSpace, failed = ":4", ":6", ":1"
	all := config(server)
	for _, test := range []struct{ file, args, want string }{
		{all, "explain ", "cart-0 cart-1 web bank/ secret/ shop/ shop-2/ " + noSpace},
		{all, "explain c", "cart-0 cart-1 " + noFile},
		{all, "explain cart-0 c", "cart-1 " + noFile},
		{all, "explain sh", "shop/ shop-2/ " + noSpace},
		{all, "explain shop/", "shop/cart-0 shop/cart-1 shop/web " + noFile},
		{all, "explain shop/cart-0 shop/c", "shop/cart-1 " + noFile},
		{all, "explain -n bank ", "ledger-7f shopper " + noFile},
		{all, "explain -n bank shop/w", "shop/web " + noFile},
		{all, "trace bank/l", "bank/ledger-7f " + noFile},
		{all, "explain secret/", failed},
		{all, "explain -n sh", "shop shop-2 " + noFile},
		{all, "status --namespace b", "bank " + noFile},
		{all, "trace --agents-namespace b", "bank " + noFile},
		{all, "status --context ", "lab laptop " + noFile},
		{all, "status --cluster k", "kind " + noFile},
		{all, "status --user ", "me you " + noFile},
		{all, "verify --nodes node", "node-a node-b " + noFile},
		{all, "verify --nodes node-a,", "node-a,node-b node-a,other " + noFile},
		{all, "check --nodes o", "other " + noFile},
		{all, "sysdump --nodes node-b,node-", "node-b,node-a " + noFile},
		{all, "sysdump --pod ba", "bank/ " + noSpace},
		{all, "sysdump --pod shop/w", "shop/web " + noFile},
		{all, "status -o ", "table wide json yaml " + noFile},
		{all, "explain -o ", "table wide json yaml " + noFile},
		{all, "trace -o ", "table wide json yaml " + noFile},
		{all, "check -o ", "table wide json yaml " + noFile},
		{all, "verify -o ", "table wide json yaml " + noFile},
		{all, "version -o ", "table wide json yaml " + noFile},
		{all, "sysdump --format ", "table wide json yaml " + noFile},
		{config(few), "explain ", "cart-0 " + noFile},
		{config(few), "explain -n bank ", failed},
		{config(few), "verify --nodes ", failed},
	} {
		t.Setenv("KUBECONFIG", test.file)
		got := ""
		for range 5 { // a shell gets fewer if a busy machine takes longer than it waits
			_, stdout, _ := ran(append([]string{own, "__completeNoDesc"}, strings.Split(test.args, " ")...)...)
			if got = strings.Join(strings.Fields(stdout), " "); got == test.want {
				break
			}
		}
		if got != test.want {
			t.Errorf("%q: %s, want %s", test.args, got, test.want)
		}
	}
}
