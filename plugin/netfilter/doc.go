// Package netfilter is the kernel edge: it makes one network namespace match a redirect.RuleSet, compares, and removes.
//
// Two backends write the same rules. nftables speaks netlink, executes no program and commits both families or nothing.
// iptables runs one iptables-restore per family, which commits table by table; a state in between is completed by the
// next Apply and passes no Check.
//
// The order of Apply is: refuse the caller's own namespace, look for rules of others, write addresses and policy routes
// (inert alone), write the packet rules, remove rules that our other backend had written.
package netfilter
