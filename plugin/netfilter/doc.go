// Package netfilter writes a redirect.RuleSet into a network namespace, compares it with the kernel's rules, and
// removes it.
//
// Two backends write the same rules. nftables uses netlink, runs no program, and commits both families in one
// transaction. iptables runs one iptables-restore per family, which commits table by table. If it is interrupted, Check
// fails, and the next Apply completes the rules.
//
// Apply works in this order: it refuses the caller's own namespace, looks for rules of others, writes addresses and
// policy routes (which change nothing alone), writes the packet rules, and removes rules that our other backend has
// written.
package netfilter
