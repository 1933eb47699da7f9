package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// picture merges requests: who has called whom.
type picture struct {
	requests int
	first    []*node
}

// node is a service as one caller has called it.
type node struct {
	service, version, caller, err string
	by, hash                      string // the callee's identity, and the caller's first certificate
	count                         int
	calls                         []*node
}

// add merges one request into the picture.
func (p *picture) add(a answer) {
	p.requests++
	p.first = merge(p.first, a)
}

func merge(nodes []*node, a answer) []*node {
	n := &node{service: a.Service, version: a.Version, err: a.Error}
	if a.Caller != nil {
		n.caller, n.by, n.hash = a.Caller.URI, a.Caller.By, a.Caller.Hash
	}
	i := slices.IndexFunc(nodes, func(o *node) bool {
		return o.service == n.service && o.version == n.version && o.err == n.err && o.caller == n.caller
	})
	if i < 0 {
		nodes = append(nodes, n)
	} else {
		n = nodes[i]
	}
	n.count++
	for _, c := range a.Calls {
		n.calls = merge(n.calls, c)
	}
	slices.SortStableFunc(nodes, func(a, b *node) int {
		return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.version, b.version), cmp.Compare(a.err, b.err))
	})
	return nodes
}

// draw writes the picture: a tree of calls with their number, and what each callee has seen of its caller.
func (p *picture) draw(out io.Writer) {
	rows := [][]string{{"calls", "the callee has seen", "of the certificate"}, {"visitor"}}
	for i, n := range p.first {
		rows = n.draw(rows, "", i == len(p.first)-1)
	}
	width := make([]int, 3)
	for _, row := range rows {
		for i, cell := range row[:len(row)-1] { // the last cell may be long
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			line += cell + strings.Repeat(" ", max(0, width[i]-utf8.RuneCountInString(cell))+3)
		}
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
}

func (n *node) draw(rows [][]string, indent string, last bool) [][]string {
	branch, below := "├─", "│  "
	if last {
		branch, below = "└─", "   "
	}
	name := n.service
	if n.version != "" {
		name += " " + n.version
	}
	rows = append(rows, append([]string{fmt.Sprintf("%s%s %d × ─► %s", indent, branch, n.count, name)}, n.seen()...))
	for i, c := range n.calls {
		rows = c.draw(rows, indent+below, i == len(n.calls)-1)
	}
	return rows
}

// seen returns the other cells of a node's row.
func (n *node) seen() []string {
	switch {
	case n.err != "":
		return []string{"no answer: " + n.err}
	case n.caller == "":
		return []string{"plain text"}
	}
	return []string{short(n.caller), n.hash[:min(len(n.hash), 16)]}
}

// short returns an identity as namespace/account.
func short(uri string) string {
	parts := strings.Split(uri, "/")
	if len(parts) != 7 || parts[3] != "ns" || parts[5] != "sa" {
		return uri
	}
	return parts[4] + "/" + parts[6]
}

// problems returns what differs from a mesh in which all services have sidecars.
func (p *picture) problems() (list []string) {
	for _, n := range p.first {
		list = n.problems("visitor", "", list)
	}
	return list
}

// problems appends the problems of a call. from is the caller, and identity its identity, if that is known. The visitor
// may be outside the mesh.
func (n *node) problems(from, identity string, list []string) []string {
	switch {
	case n.err != "":
		list = append(list, n.service+" has not answered "+from)
	case n.caller == "" && from != "visitor":
		list = append(list, n.service+" was called in plain text by "+from)
	case identity != "" && n.caller != identity:
		list = append(list, n.service+" was called by "+from+", and has seen the certificate of "+n.caller)
	}
	for _, c := range n.calls {
		list = c.problems(n.service, n.by, list)
	}
	return list
}
