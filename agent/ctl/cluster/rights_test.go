package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

// A right is named only if the API server has refused the request for want of it.
func TestNeeds(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	const right = " (it needs the verb list on pods)"
	for want, errs := range map[string][]error{
		right: {
			apierrors.NewForbidden(pods, "", errors.New(`User "reader" cannot list resource "pods"`)),
			fmt.Errorf("asking: %w", apierrors.NewForbidden(pods, "a", errors.New(`User "reader" cannot get resource`))),
			apierrors.NewUnauthorized("Unauthorized"),
			&apierrors.StatusError{ErrStatus: apierrors.NewGenericServerResponse(403, "get", pods, "", "no", 0, true).Status()},
		},
		"": {
			nil, errors.New("connect: connection refused"), context.DeadlineExceeded, apierrors.NewNotFound(pods, "a"),
			apierrors.NewInternalError(errors.New("User cannot")), apierrors.NewTooManyRequestsError("wait"),
			apierrors.NewForbidden(pods, "a", errors.New(`violates PodSecurity "restricted:latest"`)),
			apierrors.NewForbidden(pods, "a", errors.New("exceeded quota")),
		},
	} {
		for _, err := range errs {
			if got := Needs("the verb list on pods", err); got != want {
				t.Errorf("%v: %q, want %q", err, got, want)
			}
		}
	}
}

// The API server refuses an exec by WebSocket and by SPDY. The error of the second attempt is only a text.
func TestRefusedExec(t *testing.T) {
	for name, test := range map[string]struct {
		answer *apierrors.StatusError
		lacks  bool
	}{
		"no right": {apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "agent-a",
			errors.New(`User "reader" cannot get resource "pods/exec"`)), true},
		"no kubelet": {apierrors.NewInternalError(errors.New("dialing backend: connection refused")), false},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, r.Method)
				status := test.answer.Status()
				status.APIVersion, status.Kind = "v1", "Status"
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(int(status.Code))
				_ = json.NewEncoder(w).Encode(status)
			}))
			defer server.Close()
			c := &Cluster{config: &rest.Config{Host: server.URL}}
			var err error
			if c.Core, err = typedcore.NewForConfig(c.config); err != nil {
				t.Fatal(err)
			}
			_, err = c.AskNode(t.Context(), corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "mesh", Name: "agent-a"}})
			if err == nil || LacksRight(err) != test.lacks || !slices.Equal(asked, []string{"GET", "POST"}) {
				t.Errorf("%q: %v", asked, err)
			}
		})
	}
}
