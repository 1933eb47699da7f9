// Package trace says where a packet goes: it walks it through the hooks, chains and rules of a pod, and tells of each
// step which rule takes the packet and why. It is pure, as package redirect is: the same rules and the same packet give
// the same way on every machine, and nothing is sent.
//
// The walk is Linux's, of the first packet of a connection and of the first answer. What a rule means is read off the
// rule set and off nothing else; so that the walk is right is a matter of tests: FuzzTraffic of package netfilter sends
// random packets through random rule sets of every backend, and compares where each lands with what is said here.
package trace
