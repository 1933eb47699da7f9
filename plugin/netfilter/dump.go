package netfilter

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// object is one nf_tables object as the kernel lists it: its top-level attributes by type. Nothing of a rule is decoded:
// two rules are equal if the kernel describes them in the same bytes, whichever expressions they use.
type object struct {
	family uint8
	attrs  map[uint16][]byte
}

func (o object) text(attr uint16) string { return strings.TrimRight(string(o.attrs[attr]), "\x00") }

const nfgenmsg = 4 // bytes of struct nfgenmsg: family, version, resource ID

// nfMessage is a request to nf_tables: struct nfgenmsg (version 0, resource ID 0), then attributes.
func nfMessage(kind, flags uint16, family uint8, attrs []byte) nlMessage {
	return nlMessage{unix.NFNL_SUBSYS_NFTABLES<<8 | kind, flags, append([]byte{family, 0, 0, 0}, attrs...)}
}

// dumpNFT lists the objects that an NFT_MSG_GET… request reports; attrs may filter.
func dumpNFT(conn *nlConn, kind uint16, family uint8, attrs []byte) ([]object, error) {
	replies, err := conn.dump(nfMessage(kind, 0, family, attrs))
	if err != nil {
		return nil, fmt.Errorf("listing nftables objects: %w", err)
	}
	objects := make([]object, 0, len(replies))
	for _, data := range replies {
		if len(data) < nfgenmsg {
			return nil, fmt.Errorf("listing nftables objects: message of %d bytes", len(data))
		}
		parsed, err := parseAttrs(data[nfgenmsg:])
		if err != nil {
			return nil, fmt.Errorf("listing nftables objects: %w", err)
		}
		objects = append(objects, object{data[0], parsed})
	}
	return objects, nil
}

// cstr is a zero-terminated string.
func cstr(text string) []byte { return append([]byte(text), 0) }
