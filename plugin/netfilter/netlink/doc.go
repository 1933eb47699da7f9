// Package netlink is the framing of netlink(7): a socket, requests and what the kernel answers. What a message says is
// the caller's business; attributes are encoded and decoded by github.com/mdlayher/netlink, which google/nftables uses
// for its expressions too. Its connection is not used: it reads through Go's poller.
package netlink
