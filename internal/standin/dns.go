package standin

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"time"
)

// errNoAnswer is the error of what is no answer to the query.
var errNoAnswer = errors.New("what comes back is no answer to the query")

// queryNumber tells the answer to a query of this program. Nobody guesses here.
const queryNumber = 0x7661

// Query asks a DNS server for the address of a name, by UDP or TCP. That there is an answer is all that it says: who
// has no such name answers, too.
func (c Call) Query(name string) error {
	dialer := net.Dialer{Timeout: Patience, Control: c.limit}
	conn, err := dialer.Dial(c.Network, c.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(Patience))
	query := query(name)
	answer := make([]byte, 512)
	if strings.HasPrefix(c.Network, "udp") {
		if _, err := conn.Write(query); err != nil {
			return err
		}
		n, err := conn.Read(answer)
		return answers(answer[:n], err)
	}
	framed := binary.BigEndian.AppendUint16(nil, uint16(len(query))) // RFC 1035, 4.2.2
	if _, err := conn.Write(append(framed, query...)); err != nil {
		return err
	}
	n, err := io.ReadAtLeast(conn, answer, 2+12)
	return answers(answer[min(2, n):n], err)
}

// query is a query for the IPv4 address of a name. Source: RFC 1035, 4.1.
func query(name string) []byte {
	q := binary.BigEndian.AppendUint16(nil, queryNumber)
	q = append(q, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0) // a query, recursion is desired, one question
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 0, 1, 0, 1) // A, IN
}

// answers reports whether it is an answer to the query.
func answers(answer []byte, err error) error {
	switch {
	case err != nil:
		return err
	case len(answer) < 12 || binary.BigEndian.Uint16(answer) != queryNumber || answer[2]&0x80 == 0:
		return errNoAnswer
	}
	return nil
}
