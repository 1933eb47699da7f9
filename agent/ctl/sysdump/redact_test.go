package sysdump

import (
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	r := newRedactor([]byte("salt"))
	r.knowNode("node-a.example.com")
	r.know(ofNamespace, "shop")
	r.know(ofPod, "cart-0")
	r.know(ofPod, "shop") // it is known as a namespace already
	r.know(ofNamespace, "default")
	node, short := r.pseudonym(ofNode, "node-a.example.com"), r.pseudonym(ofNode, "node-a")
	shop, cart := r.pseudonym(ofNamespace, "shop"), r.pseudonym(ofPod, "cart-0")
	v4, v6 := r.pseudonym("ipv4", "10.0.0.1"), r.pseudonym("ipv6", "fd00::1")
	card, nat64 := r.pseudonym("mac", "0a:58:0a:f4:00:07"), r.pseudonym("ipv6", "64:ff9b::a00:1")
	full := r.pseudonym("ipv6", "2001:db8::1")
	for text, want := range map[string]string{
		"":                                         "",
		"shop/cart-0 is on node-a":                 shop + "/" + cart + " is on " + short,
		"cart-0.shop.svc.cluster.local:":           cart + "." + shop + ".svc.cluster.local:",
		"node-a.example.com.":                      node + ".",
		"www.node-a.example.com":                   "www." + node,
		"/var/log/pods/shop_cart-0_1":              "/var/log/pods/" + shop + "_" + cart + "_1",
		`line\ncart-0 %2Fcart-0`:                   `line\n` + cart + ` %2F` + cart,
		"shopping cart-01 default":                 "shopping cart-01 default",
		"10.0.0.1:80 [fd00::1]:80":                 v4 + ":80 [" + v6 + "]:80",
		"10.0.0.1/8, FD00:0::1/64":                 v4 + "/8, " + v6 + "/64",
		"127.0.0.1 ::1 0.0.0.0 :: 20:10:42 v1.2.3": "127.0.0.1 ::1 0.0.0.0 :: 20:10:42 v1.2.3",
		"0a:58:0a:f4:00:07, 0A-58-0A-F4-00-07":     card + ", " + card,
		"{IP:fd00::1 Mask:ffff} {Gateway:::}":      "{IP:" + v6 + " Mask:ffff} {Gateway:::}",
		"[&PodIP{IP:fd00::1,} {Iface:FD00::1}]":    "[&PodIP{IP:" + v6 + ",} {Iface:" + v6 + "}]",
		"Source:fd00::1 node:fd00::1:":             "Source:" + v6 + " node:" + v6 + ":",
		`fd00::1: refused\nfd00::1:\tdaa::1`:       v6 + `: refused\n` + v6 + `:\t` + r.pseudonym("ipv6", "daa::1"),
		"fd00::1, fd00::1. and fd00::1%eth0":       v6 + ", " + v6 + ". and " + v6 + "%eth0",
		"IP:2001:db8:0:0:0:0:0:1 IP:2001:db8::1":   "IP:" + full + " IP:" + full,
		"2001:db8:0:0:0:0:0:1:8080":                full + ":8080",
		"::ffff:10.0.0.1 to:64:ff9b::10.0.0.1":     "::ffff:" + v4 + " to:" + nat64,
		"Address:64:ff9b::10.0.0.1:53":             "Address:" + nat64 + ":53",
		"10.0.0.1:fd00::1 Source:::ffff:10.0.0.1":  v4 + ":" + v6 + " Source:::ffff:" + v4,
	} {
		if got := r.text(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	var none *redactor
	none.know(ofPod, "a")
	if none.text("10.0.0.1") != "10.0.0.1" || none.log("shop\n") != "shop\n" {
		t.Error("names are replaced where they are to stay")
	}
}

// JSON in a line of a log is parsed, and text after it is kept.
func TestLog(t *testing.T) {
	r := newRedactor([]byte("salt"))
	r.know(ofPod, "cart-0")
	cart := r.pseudonym(ofPod, "cart-0")
	text := `{"msg":"a\ncart-0","n":1.50}` + "\n" + `2026-01-02T03:04:05Z {"pod":"cart-0"}` + "\n" +
		`{"a": {"b": 1}} cart-0` +
		"\n" + "cart-0 {\n" + "null\nlast cart-0"
	want := strings.ReplaceAll(text, "cart-0", cart)
	if got := r.log(text); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Names that are in no list are found in texts that name them.
func TestHarvest(t *testing.T) {
	r := newRedactor([]byte("salt"))
	r.harvest([]string{`level=info pod=shop/cart-0 node="node-a"`, `{"pod":"team/app-1","namespace": "third"}`,
		`"text": "{\"namespace\":\"gone\",\"name\":\"old-0\"}"`, "the namespace: not found; pods: none; shop/late-2, etc/x"})
	for name, known := range map[string]bool{"shop": true, "cart-0": true, "node-a": true, "team": true, "app-1": true,
		"third": true, "gone": true, "old-0": true, "late-2": true, "not": false, "none": false, "x": false, "etc": false} {
		if (r.names[name] != "") != known {
			t.Errorf("%s: %q", name, r.names[name])
		}
	}
}

// An error does not name the refused user, the API server, or the user's files. Equal names have equal pseudonyms.
func TestProblem(t *testing.T) {
	r := newRedactor([]byte("salt"))
	r.knowHost("https://api.shop.example.com:6443/k8s")
	r.knowHost("https://kubernetes:6443")
	r.knowHost("https://10.0.0.1:6443")
	r.know(ofNamespace, "shop")
	host, jane := r.pseudonym(ofHost, "api.shop.example.com"), r.pseudonym(ofUser, "jane@example.com")
	for text, want := range map[string]string{
		`pods is forbidden: User "jane@example.com" cannot list resource "pods" in API group "" in the namespace "shop"`: `` +
			`pods is forbidden: User "` + jane + `" cannot list resource "pods" in API group "" in the namespace "` +
			r.pseudonym(ofNamespace, "shop") + `"`,
		`Get "https://api.shop.example.com:6443/api/v1/nodes": dial tcp: lookup api.shop.example.com on 10.0.0.53:53: ` +
			`no such host`: `Get "https://` + host + `:6443/api/v1/nodes": dial tcp: lookup ` + host + ` on ` +
			r.pseudonym("ipv4", "10.0.0.53") + `:53: no such host`,
		`Get "https://10.0.0.1:6443/api": EOF`:   `Get "https://` + r.pseudonym("ipv4", "10.0.0.1") + `:6443/api": EOF`,
		`Get "https://kubernetes:6443/api": EOF`: `Get "https://` + r.pseudonym(ofHost, "kubernetes") + `:6443/api": EOF`,
		`x509: certificate is valid for a.example.com, b.example.com, not api.shop.example.com`: `x509: certificate is ` +
			`valid for ` + r.pseudonym(ofHost, "a.example.com, b.example.com") + `, not ` + host,
		`open /home/jane/.kube/token: permission denied`: `open ` + r.pseudonym(ofFile, "/home/jane/.kube/token") +
			`: permission denied`,
		"the kubernetes API says no": "the kubernetes API says no",
	} {
		if got := r.problem(text); got != want {
			t.Errorf("%q:\n%q, want\n%q", text, got, want)
		}
	}
	var none *redactor
	if none.problem("https://api.shop.example.com") != "https://api.shop.example.com" {
		t.Error("names are replaced where they are to stay")
	}
}
