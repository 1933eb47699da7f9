// Package netlink implements the framing of netlink(7): a socket, requests, and the kernel's answers. The caller
// defines the contents of messages. Attributes are encoded and decoded by github.com/mdlayher/netlink, which
// google/nftables uses for its expressions too. Its connection is not used, because that reads through Go's poller.
package netlink
