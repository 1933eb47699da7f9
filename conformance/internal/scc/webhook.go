package scc

import (
	"context"
	"encoding/json"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// FinalPath is the URL path at which Handler only validates. At all other paths it also fills in fields.
const FinalPath = "/final"

// Handler returns an admission webhook for pods, with the constraints in the API server. A namespace without the
// annotation KeyUsers is treated as if it had the annotations in allocate. An error rejects the pod.
func Handler(client kubernetes.Interface, allocate map[string]string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
			http.Error(w, "no AdmissionReview", http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		patch, err := admit(r.Context(), client, allocate, review.Request, r.URL.Path == FinalPath)
		if err != nil {
			review.Response.Allowed, review.Response.Result = false,
				&metav1.Status{Message: err.Error(), Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden}
		} else if patch != nil {
			kind := admissionv1.PatchTypeJSONPatch
			review.Response.Patch, review.Response.PatchType = patch, &kind
		}
		_ = json.NewEncoder(w).Encode(review)
	})
}

// admit returns the changes of an admitted pod as a JSON patch.
func admit(ctx context.Context, client kubernetes.Interface, allocate map[string]string,
	request *admissionv1.AdmissionRequest, final bool) ([]byte, error) {
	var pod corev1.Pod
	if err := json.Unmarshal(request.Object.Raw, &pod); err != nil {
		return nil, err
	}
	namespace, err := client.CoreV1().Namespaces().Get(ctx, request.Namespace, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	given := namespace.Annotations
	if given[KeyUsers] == "" {
		given = allocate
	}
	data, err := client.Discovery().RESTClient().Get().AbsPath(
		"/apis/security.openshift.io/v1/securitycontextconstraints").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	var list struct{ Items []Constraints }
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default" // the API server sets it later
	}
	subjects := []authorizationv1.SubjectAccessReviewSpec{
		{User: request.UserInfo.Username, Groups: request.UserInfo.Groups},
		{User: "system:serviceaccount:" + request.Namespace + ":" + account,
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + request.Namespace, "system:authenticated"}},
	}
	admitted, err := Admit(&pod, given, list.Items,
		func(name string) bool { return mayUse(ctx, client, request.Namespace, name, subjects) }, final)
	if err != nil || final {
		return nil, err
	}
	return json.Marshal([]map[string]any{
		{"op": "replace", "path": "/spec", "value": admitted.Spec}, {"op": "add", "path": "/metadata/annotations",
			"value": admitted.Annotations},
	})
}

// mayUse asks the API server whether one of the subjects may use constraints for pods of the namespace.
func mayUse(ctx context.Context, client kubernetes.Interface, namespace, name string,
	subjects []authorizationv1.SubjectAccessReviewSpec) bool {
	for _, subject := range subjects {
		subject.ResourceAttributes = &authorizationv1.ResourceAttributes{
			Namespace: namespace, Verb: "use", Group: "security.openshift.io", Resource: "securitycontextconstraints",
			Name: name,
		}
		review, err := client.AuthorizationV1().SubjectAccessReviews().Create(ctx,
			&authorizationv1.SubjectAccessReview{Spec: subject}, metav1.CreateOptions{})
		if err == nil && review.Status.Allowed {
			return true
		}
	}
	return false
}
