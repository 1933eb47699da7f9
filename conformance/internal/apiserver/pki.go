package apiserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// pair has the paths of a certificate and its key.
type pair struct{ cert, key string }

// pki has the certificates of the API server and its clients.
type pki struct {
	ca, serving, admin pair
	addresses          []net.IP // subject alternative names of the certificates
	root               *x509.Certificate
	key                *ecdsa.PrivateKey
}

// ServiceAddress is the cluster IP of the service `kubernetes`: the first address of the service range.
const ServiceAddress = "10.96.0.1"

// newPKI creates the certificates and keys in a directory. The API server's host may be empty.
func newPKI(dir, host string) (p pki, err error) {
	for _, address := range []string{"127.0.0.1", ServiceAddress, host} {
		if ip := net.ParseIP(address); ip != nil {
			p.addresses = append(p.addresses, ip)
		}
	}
	p.root = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test-ca"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour),
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if p.key, p.ca, err = issue(dir, "ca", p.root, p.root, nil); err != nil {
		return p, err
	}
	if p.serving, err = p.leaf(dir, "serving", "kube-apiserver", ""); err != nil {
		return p, err
	}
	p.admin, err = p.leaf(dir, "admin", "admin", "system:masters")
	return p, err
}

// leaf creates a client certificate for a user in a group. It is also a serving certificate for the API server's
// addresses.
func (p pki) leaf(dir, name, user, group string) (pair, error) {
	subject := pkix.Name{CommonName: user}
	if group != "" {
		subject.Organization = []string{group}
	}
	_, made, err := issue(dir, name, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: subject, NotBefore: p.root.NotBefore,
		NotAfter: p.root.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth,
			x509.ExtKeyUsageClientAuth},
		IPAddresses: p.addresses, DNSNames: []string{"kubernetes.default.svc"},
	}, p.root, p.key)
	return made, err
}

// issue creates a key, and a certificate that is signed by signer, or self-signed if signer is nil.
func issue(dir, name string, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, pair,
	error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, pair{}, err
	}
	if signer == nil {
		signer = key
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, pair{}, err
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, pair{}, err
	}
	p := pair{filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")}
	if err := os.WriteFile(p.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644); err != nil {
		return nil, p, err
	}
	return key, p, os.WriteFile(p.key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded}), 0o600)
}
