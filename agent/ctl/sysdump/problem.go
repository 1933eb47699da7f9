package sysdump

import (
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// More things with names: a refused user, the API server's host, and names in others' packet rules.
const (
	ofUser    = "user"
	ofHost    = "host"
	ofFile    = "file"
	ofTable   = "table"
	ofChain   = "chain"
	ofComment = "comment"
)

// knowHost makes the redactor replace the host of an address. A name without a domain may be any word, so it is left
// out.
func (r *redactor) knowHost(address string) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil && strings.Contains(u.Hostname(), ".") {
		r.know(ofHost, u.Hostname())
	}
}

// inErrors are expressions for names in errors that are in no list. The groups are the names. Sources:
// k8s.io/apiserver, pkg/endpoints/handlers/responsewriters (ForbiddenStatusError); net/url, Error; net, DNSError;
// crypto/x509, HostnameError; io/fs, PathError.
var inErrors = []struct {
	of     string
	where  *regexp.Regexp
	groups []int
}{
	{ofUser, regexp.MustCompile(`\b[Uu]ser "((?:[^"\\]|\\.)*)"`), []int{1}},
	{ofHost, regexp.MustCompile(`\b(?:https?|wss?)://([^/\s"'?#]+)`), []int{1}},
	{ofHost, regexp.MustCompile(`\blookup ([^\s:]+)`), []int{1}},
	{ofHost, regexp.MustCompile(`\bvalid for (.+?), not ([^\s"]+)`), []int{1, 2}},
	{ofFile, regexp.MustCompile(`(?:/(?:home|Users|root)|[A-Za-z]:\\+Users)[/\\][^\s":]*`), []int{0}},
}

// problem returns an error's text with pseudonyms. The text may name a refused user, and the API server's address.
func (r *redactor) problem(text string) string {
	if r == nil {
		return text
	}
	for _, in := range inErrors {
		text = in.where.ReplaceAllStringFunc(text, func(found string) string {
			groups := in.where.FindStringSubmatch(found)
			for _, group := range in.groups {
				found = strings.Replace(found, groups[group], r.hidden(in.of, groups[group]), 1)
			}
			return found
		})
	}
	return r.text(text)
}

// hidden returns the pseudonym of a name, and keeps its port. For an IP address it is that of addresses.
func (r *redactor) hidden(of, name string) string {
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		host, port = name, ""
	} else {
		port = ":" + port
	}
	if of == ofHost {
		if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
			return name // text replaces it
		}
	}
	if known := r.names[host]; known != "" {
		return known + port
	}
	return r.pseudonym(of, host) + port
}

// Names of tables and chains that iptables and the manual of nft use.
var usual = map[string]bool{
	"nat": true, "filter": true, "mangle": true, "raw": true, "security": true,
	"prerouting": true, "input": true, "forward": true, "output": true, "postrouting": true,
}

// isUsual reports whether the name of a table or a chain says nothing about a cluster.
func isUsual(name string) bool {
	return name == redirect.TableName || usual[strings.ToLower(name)] || strings.HasPrefix(name, "ISTIO_")
}

// rules returns an agent's answer about a pod's packet rules, with pseudonyms for names that others have chosen: their
// tables, chains and comments. It leaves out what it does not expect.
func (r *redactor) rules(answer any) any {
	top, is := answer.(map[string]any)
	if r == nil || !is {
		return answer
	}
	kernel, _ := top["kernel"].(map[string]any)
	for _, table := range objectsIn(kernel["tables"]) {
		name, _ := table["name"].(string)
		if !isUsual(name) {
			table["name"] = r.pseudonym(ofTable, name)
		}
		for _, chain := range objectsIn(table["chains"]) {
			if text, _ := chain["name"].(string); name != redirect.TableName {
				chain["name"] = r.chain(text)
			}
			for _, rule := range objectsIn(chain["rules"]) {
				if comment, _ := rule["comment"].(string); comment != "" {
					rule["comment"] = r.pseudonym(ofComment, comment)
				}
				if does, is := rule["does"].(string); is && name != redirect.TableName {
					rule["does"] = leads.ReplaceAllStringFunc(does, func(found string) string {
						verdict, to, _ := strings.Cut(found, " ")
						return verdict + " " + r.chain(to)
					})
				}
			}
		}
	}
	return answer
}

// leads matches a verdict that names a chain.
var leads = regexp.MustCompile(`\b(?:jump|goto) [^,\s]+`)

func (r *redactor) chain(name string) string {
	if isUsual(name) {
		return name
	}
	return r.pseudonym(ofChain, name)
}

// objectsIn returns the objects of a list.
func objectsIn(list any) (all []map[string]any) {
	items, _ := list.([]any)
	for _, item := range items {
		if o, is := item.(map[string]any); is {
			all = append(all, o)
		}
	}
	return all
}
