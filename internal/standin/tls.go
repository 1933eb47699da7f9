package standin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// ofMesh are the ALPN protocols by which a sidecar recognises calls of the mesh. Source: istio/istio,
// pilot/pkg/networking/util, ALPNInMesh.
var ofMesh = []string{"istio-peer-exchange", "istio"}

// errNameless is the error for a certificate without the identity of a workload.
var errNameless = errors.New("the certificate names no workload")

// identity starts TLS with an address, and returns the identity in the certificate of the server. The client has no
// certificate, so the server may reject it later.
func identity(of netip.AddrPort) (string, error) {
	var named string
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: &tls.Config{
		InsecureSkipVerify: true, // only the mesh knows the issuer
		NextProtos:         ofMesh,
		MinVersion:         tls.VersionTLS12,
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			certificate, err := x509.ParseCertificate(raw[0])
			if err == nil && len(certificate.URIs) > 0 {
				named = certificate.URIs[0].String()
			}
			return err
		},
	}}
	ctx, cancel := context.WithTimeout(context.Background(), patience*3/2)
	defer cancel()
	c, err := dialer.DialContext(ctx, "tcp", of.String())
	if err == nil {
		_ = c.SetDeadline(time.Now())
		_ = c.Close()
	}
	switch {
	case named != "":
		return named, nil
	case err != nil:
		return "", fmt.Errorf("TLS with %s: %w", of, err)
	}
	return "", errNameless
}
