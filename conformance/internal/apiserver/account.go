package apiserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
)

// Authorize creates the service account of a manifest such as agent/rbac.yaml in an existing namespace, with the rights
// that the manifest grants, and writes a kubeconfig for the account. It appends the namespace to the names of
// cluster-scoped objects, so that several namespaces can have the same manifest. The rights are in force when it
// returns.
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
	account, rules := "", []rbacv1.PolicyRule(nil)
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
			o.Name, rules = o.Name+"-"+namespace, append(rules, o.Rules...)
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
	if err := s.InForce(ctx, namespace, account, rules); err != nil {
		return err
	}
	return s.Kubeconfig(kubeconfig, token.Status.Token)
}

// InForce waits until the API server grants a service account these rights. It reads roles and bindings by watches, so
// on a busy machine it refuses requests for some time after their creation.
func (s *Server) InForce(ctx context.Context, namespace, account string, rules []rbacv1.PolicyRule) error {
	client, err := kubernetes.NewForConfig(s.Admin())
	if err != nil {
		return err
	}
	deadline := time.Now().Add(5 * time.Minute)
	for _, request := range requestsOf(rules) {
		for {
			review, err := client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
				Spec: authorizationv1.SubjectAccessReviewSpec{
					User: "system:serviceaccount:" + namespace + ":" + account,
					Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace,
						"system:authenticated"},
					ResourceAttributes: &request,
				}}, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			if review.Status.Allowed {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("the API server still refuses %+v to %s/%s", request, namespace, account)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// requestsOf returns a request for each verb and resource of the rules.
func requestsOf(rules []rbacv1.PolicyRule) (all []authorizationv1.ResourceAttributes) {
	for _, rule := range rules {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				request := authorizationv1.ResourceAttributes{Verb: verb, Group: rule.APIGroups[0]}
				request.Resource, request.Subresource, _ = strings.Cut(resource, "/")
				if len(rule.ResourceNames) > 0 {
					request.Name = rule.ResourceNames[0]
				}
				all = append(all, request)
			}
		}
	}
	return all
}
