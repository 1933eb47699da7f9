package apiserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
)

// Authorize creates the service account of a manifest such as agent/rbac.yaml in an existing namespace, with the rights
// that the manifest grants, and writes a kubeconfig for the account. It appends the namespace to the names of
// cluster-scoped objects, so that several namespaces can have the same manifest.
func (s *Server) Authorize(ctx context.Context, manifest, namespace, kubeconfig string) error {
	client, err := kubernetes.NewForConfig(s.Admin())
	if err != nil {
		return err
	}
	file, err := os.Open(manifest)
	if err != nil {
		return err
	}
	defer file.Close()
	account := ""
	for documents := yaml.NewYAMLReader(bufio.NewReader(file)); ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(document, nil, nil)
		if err != nil {
			return err
		}
		switch o := object.(type) {
		case *corev1.ServiceAccount:
			o.Namespace, account = namespace, o.Name
			_, err = client.CoreV1().ServiceAccounts(namespace).Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.ClusterRole:
			o.Name += "-" + namespace
			_, err = client.RbacV1().ClusterRoles().Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.ClusterRoleBinding:
			o.Name, o.RoleRef.Name, o.Subjects[0].Namespace = o.Name+"-"+namespace, o.RoleRef.Name+"-"+namespace, namespace
			_, err = client.RbacV1().ClusterRoleBindings().Create(ctx, o, metav1.CreateOptions{})
		default:
			err = fmt.Errorf("%s has a %T", manifest, object)
		}
		if err != nil {
			return err
		}
	}
	token, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{},
		metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return s.Kubeconfig(kubeconfig, token.Status.Token)
}
