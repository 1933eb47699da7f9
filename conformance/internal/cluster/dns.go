package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The address that pods send DNS queries to, and the port on which the cluster's DNS listens.
const (
	dnsAddress = "10.96.0.10"
	dnsPort    = 10053
	domain     = "cluster.local."
	dnsTTL     = 5
)

// dns starts the cluster's DNS. It follows the specification
// (https://github.com/kubernetes/dns/blob/master/docs/specification.md), and asks the API server for every query. It
// has A and AAAA records of services, headless services and their pods. Other names do not exist.
func (c *Cluster) dns() error {
	packets, err := net.ListenPacket("udp", net.JoinHostPort(Address, strconv.Itoa(dnsPort)))
	if err != nil {
		return err
	}
	go c.answer(packets)
	name, port, udp := "dns", int32(dnsPort), corev1.ProtocolUDP
	meta := metav1.ObjectMeta{Name: "kube-dns", Namespace: metav1.NamespaceSystem,
		Labels: map[string]string{discoveryv1.LabelServiceName: "kube-dns"}}
	_, err = c.Client.CoreV1().Services(meta.Namespace).Create(context.Background(), &corev1.Service{ObjectMeta: meta,
		Spec: corev1.ServiceSpec{ClusterIP: dnsAddress, Ports: []corev1.ServicePort{{Name: name, Port: 53, Protocol: udp}}},
	}, metav1.CreateOptions{})
	_, failed := c.Client.DiscoveryV1().EndpointSlices(meta.Namespace).Create(context.Background(),
		&discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{Address}}},
			Ports:     []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &udp}},
		}, metav1.CreateOptions{})
	return errors.Join(err, failed)
}

// answer answers queries until the socket is closed.
func (c *Cluster) answer(packets net.PacketConn) {
	buffer := make([]byte, 4096)
	for {
		n, from, err := packets.ReadFrom(buffer)
		if err != nil {
			return
		}
		question := slices.Clone(buffer[:n])
		go func() {
			if reply, err := c.reply(question); err == nil {
				_, _ = packets.WriteTo(reply, from)
			}
		}()
	}
}

// reply returns the response to a query with one question.
func (c *Cluster) reply(message []byte) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(message)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	reply := dnsmessage.Message{Header: dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true,
		RecursionDesired: header.RecursionDesired, RecursionAvailable: true}, Questions: []dnsmessage.Question{q}}
	addresses, err := c.resolve(strings.ToLower(q.Name.String()))
	switch {
	case apierrors.IsNotFound(err):
		reply.RCode = dnsmessage.RCodeNameError
	case err != nil:
		reply.RCode = dnsmessage.RCodeServerFailure
	}
	record := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: dnsmessage.ClassINET, TTL: dnsTTL}
	for _, a := range addresses {
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: record, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: record,
				Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return reply.Pack()
}

// errNoName is the API server's error for an object that does not exist.
var errNoName = apierrors.NewNotFound(corev1.Resource("services"), "")

// resolve returns the addresses of SERVICE.NAMESPACE.svc.cluster.local or, for a headless service, of
// HOSTNAME.SERVICE.NAMESPACE.svc.cluster.local.
func (c *Cluster) resolve(name string) ([]netip.Addr, error) {
	rest, found := strings.CutSuffix(name, ".svc."+domain)
	labels := strings.Split(rest, ".")
	if !found || len(labels) < 2 || len(labels) > 3 {
		return nil, errNoName
	}
	host := ""
	if len(labels) == 3 {
		host = labels[0]
	}
	service, namespace := labels[len(labels)-2], labels[len(labels)-1]
	s, err := c.Client.CoreV1().Services(namespace).Get(context.Background(), service, metav1.GetOptions{})
	switch {
	case err != nil:
		return nil, err
	case s.Spec.ClusterIP != corev1.ClusterIPNone && host != "":
		return nil, errNoName
	case s.Spec.ClusterIP != corev1.ClusterIPNone:
		return parsed(s.Spec.ClusterIPs), nil
	}
	slices, err := c.Client.DiscoveryV1().EndpointSlices(namespace).List(context.Background(),
		metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	if err != nil {
		return nil, err
	}
	var addresses []netip.Addr
	for _, slice := range slices.Items {
		for _, e := range slice.Endpoints {
			ready := e.Conditions.Ready == nil || *e.Conditions.Ready || s.Spec.PublishNotReadyAddresses
			if ready && (host == "" || e.Hostname != nil && *e.Hostname == host) {
				addresses = append(addresses, parsed(e.Addresses)...)
			}
		}
	}
	if len(addresses) == 0 {
		return nil, errNoName
	}
	return addresses, nil
}

func parsed(texts []string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			all = append(all, a)
		}
	}
	return all
}
