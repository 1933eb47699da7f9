package apiserver

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var getOptions = metav1.GetOptions{}

// auditPolicy logs every request of a service account when it is complete, and a watch also when it starts. Patch
// requests are logged with the response.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, Panic]
rules:
- level: None
  userGroups: ["system:masters"]
- level: RequestResponse
  userGroups: ["system:serviceaccounts"]
  verbs: [patch]
- level: Metadata
  userGroups: ["system:serviceaccounts"]
- level: None
`

// Request is one request of a service account, as in the audit log (audit.k8s.io/v1, Event).
type Request struct {
	ID        string    `json:"auditID"`
	Verb      string    `json:"verb"`
	URI       string    `json:"requestURI"`
	UserAgent string    `json:"userAgent"`
	Received  time.Time `json:"requestReceivedTimestamp"`
	User      struct {
		Username string `json:"username"`
	} `json:"user"`
	Object struct {
		Resource, Subresource, Namespace, Name string
	} `json:"objectRef"`
	Status struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
	Response struct {
		Metadata struct {
			UID             string `json:"uid"`
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
	} `json:"responseObject"`
}

// Audit returns the requests that the service accounts of a namespace have made so far.
func (s *Server) Audit(namespace string) ([]Request, error) {
	log, err := os.Open(s.path("audit.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	var requests []Request
	known := map[string]bool{}
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r Request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			continue // an incomplete line: the API server was killed
		}
		if strings.HasPrefix(r.User.Username, "system:serviceaccount:"+namespace+":") && !known[r.ID] {
			known[r.ID] = true
			requests = append(requests, r)
		}
	}
	return requests, lines.Err()
}
