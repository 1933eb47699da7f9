package standin

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"time"
)

// errNoAnswer is the error for a packet that is not an answer to the query.
var errNoAnswer = errors.New("what comes back is no answer to the query")

// queryNumber is the ID of this program's queries. It need not be unpredictable here.
const queryNumber = 0x7661

// Query sends a DNS query for a name's address by UDP or TCP. It returns nil for any answer, also for one that says
// that the name does not exist.
func (c Call) Query(name string) error {
	dialer := net.Dialer{Timeout: patience, Control: c.limit}
	conn, err := dialer.Dial(c.Network, c.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	query := query(name)
	answer := make([]byte, 512)
	if strings.HasPrefix(c.Network, "udp") {
		if _, err := conn.Write(query); err != nil {
			return err
		}
		n, err := conn.Read(answer)
		return answers(answer[:n], err)
	}
	framed := binary.BigEndian.AppendUint16(nil, uint16(len(query))) // RFC 1035, section 4.2.2
	if _, err := conn.Write(append(framed, query...)); err != nil {
		return err
	}
	n, err := io.ReadAtLeast(conn, answer, 2+12)
	return answers(answer[min(2, n):n], err)
}

// query returns a query for the IPv4 address of a name. Source: RFC 1035, section 4.1.
func query(name string) []byte {
	q := binary.BigEndian.AppendUint16(nil, queryNumber)
	q = append(q, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0) // a query, recursion desired, one question
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 0, 1, 0, 1) // A, IN
}

// answers returns an error unless the packet is an answer to the query.
func answers(answer []byte, err error) error {
	switch {
	case err != nil:
		return err
	case len(answer) < 12 || binary.BigEndian.Uint16(answer) != queryNumber || answer[2]&0x80 == 0:
		return errNoAnswer
	}
	return nil
}
