package standin

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net"
	"strings"
)

// clientCert is the header by which Envoy says whose certificate a caller has. Source: envoyproxy/envoy,
// docs/root/configuration/http/http_conn_man/headers.rst.
const clientCert = "x-forwarded-client-cert"

// ServeApp answers as Serve does as App; who asks by HTTP is answered by HTTP, and told what Envoy has said of its
// certificate. Sealed, such a request has nonce and tag in its path.
func ServeApp(l net.Listener, seal Seal) error {
	return accept(l, func(c *net.TCPConn) {
		lines := bufio.NewReader(io.LimitReader(c, 64<<10))
		line, err := lines.ReadString('\n')
		switch {
		case err != nil:
		case strings.Contains(line, " HTTP/1."):
			answer := App + " " + callerOf(lines)
			if name, nonce, known := seal.called(requestOf(line)); known && name == byMesh {
				answer = seal.answer(nonce, answer)
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(answer), answer)
		default:
			fmt.Fprintln(c, seal.guarded(func(string) string { return App + " " + Destination(c) })(strings.TrimSpace(line)))
		}
	})
}

// callerOf reads the headers of a request, and returns the identity of the caller's certificate, "" if there is none.
func callerOf(lines *bufio.Reader) (identity string) {
	for {
		line, err := lines.ReadString('\n')
		name, value, found := strings.Cut(strings.TrimSpace(line), ":")
		if err != nil || !found {
			return identity
		}
		if strings.EqualFold(name, clientCert) {
			for part := range strings.FieldsFuncSeq(value, func(r rune) bool { return strings.ContainsRune(";,", r) }) {
				if uri, is := strings.CutPrefix(strings.TrimSpace(part), "URI="); is {
					identity = strings.Trim(uri, `"`)
				}
			}
		}
	}
}

// byMesh is the name of who calls by HTTP.
const byMesh = "mesh"

// requestOf is the sealed call in the path of a request.
func requestOf(line string) string {
	words := strings.Fields(line)
	return byMesh + strings.ReplaceAll(words[min(1, len(words)-1)], "/", " ")
}

// CallByMesh asks the app at the address of a Service by HTTP, and returns its answer: who answers, and by whose
// certificate the caller is known there.
func CallByMesh(address string, seal Seal) (string, error) {
	line, nonce := seal.call(byMesh)
	path := strings.ReplaceAll(strings.TrimPrefix(line, byMesh), " ", "/")
	answer, err := ask(address, "GET "+cmp.Or(path, "/")+" ", address)
	if err != nil {
		return "", err
	}
	answer, err = seal.answered(nonce, answer)
	return strings.TrimSpace(answer), err
}

// ask makes a request of HTTP, and returns the body of its answer.
func ask(address, what, host string) (string, error) {
	what += "HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r"
	answer, err := Call{Network: "tcp", Address: address, Name: what}.Make()
	if err != nil {
		return "", err
	}
	head, body, _ := strings.Cut(answer, "\r\n\r\n")
	status, _, _ := strings.Cut(head, "\r\n")
	if !strings.HasPrefix(status, "HTTP/1.1 200") {
		return "", fmt.Errorf("it answers %.40q", status)
	}
	return strings.TrimSpace(body), nil
}
