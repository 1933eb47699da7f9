package standin

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net"
	"strings"
)

// clientCert is the header in which Envoy puts the caller's certificate. Source: envoyproxy/envoy,
// docs/root/configuration/http/http_conn_man/headers.rst.
const clientCert = "x-forwarded-client-cert"

// ServeApp answers like Serve, as App. It answers HTTP requests by HTTP, with what Envoy says about the caller's
// certificate. With a seal, the path of such a request has the nonce and the tag.
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

// callerOf reads the headers of a request and returns the identity in the caller's certificate, or "".
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

// byMesh is the name of a caller by HTTP.
const byMesh = "mesh"

// requestOf returns the sealed call in the path of a request.
func requestOf(line string) string {
	words := strings.Fields(line)
	return byMesh + strings.ReplaceAll(words[min(1, len(words)-1)], "/", " ")
}

// CallByMesh sends an HTTP request to the app at the address of a Service. It returns the answer: who answers, and the
// identity of the caller's certificate as seen there.
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

// ask sends an HTTP request and returns the body of the response.
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
