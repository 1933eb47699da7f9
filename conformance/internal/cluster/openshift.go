package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Directories of an OpenShift 4 node (cluster-network-operator, pkg/network/multus.go and
// bindata/network/multus/multus.yaml).
const (
	OpenShiftBinDir  = "/var/lib/cni/bin"          // plugins of the runtime and of Multus
	OpenShiftConfDir = "/etc/kubernetes/cni/net.d" // configurations of the runtime: only Multus's
	MultusConfDir    = "/etc/cni/multus/net.d"     // networks that Multus looks up by name
	// the primary CNI's file; it exists when the primary CNI is ready
	MultusAutoDir    = "/run/multus/cni/net.d"
	AuxDir           = MultusAutoDir + "/" + auxChain            // plugins that Multus runs for every pod
	OVNFile          = MultusAutoDir + "/10-ovn-kubernetes.conf" // the name that OVN-Kubernetes uses
	multusFile       = OpenShiftConfDir + "/00-multus.conf"      // the configuration that the runtime uses
	auxChain         = "vendor-cni-chain"                        // since OpenShift 4.19
	globalNamespaces = "default,openshift-multus,openshift-sriov-network-operator,openshift-cnv"
	multusNamespace  = "openshift-multus"
	multusAccount    = "multus"
)

// openShift creates the directories, the primary CNI, which stands for OVN-Kubernetes, and Multus as in OpenShift up to
// 4.12: a single program, without an auxiliary CNI chain.
func (n *Node) openShift() error {
	for _, dir := range []string{OpenShiftBinDir, OpenShiftConfDir, MultusConfDir, AuxDir} {
		if err := os.MkdirAll(n.Path(dir), 0o755); err != nil {
			return err
		}
	}
	if err := n.link("bridge", "host-local", "loopback", "passthru", "multus", "multus-shim"); err != nil {
		return err
	}
	if err := os.WriteFile(n.Path(OVNFile), n.OVN(), 0o600); err != nil {
		return err
	}
	config := n.cluster.path(n.Name + "-multus.kubeconfig")
	if err := n.cluster.Server.KubeconfigOf(config, "system:multus", "system:masters"); err != nil {
		return err
	}
	var delegate map[string]any
	if err := json.Unmarshal(n.OVN(), &delegate); err != nil {
		return err
	}
	return n.writeJSON(multusFile, map[string]any{
		"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus", "namespaceIsolation": true,
		"globalNamespaces": globalNamespaces,
		"binDir":           OpenShiftBinDir, "readinessindicatorfile": OVNFile, "kubeconfig": config,
		"delegates": []any{delegate},
	})
}

// OVN returns the primary CNI's configuration file.
func (n *Node) OVN() []byte {
	var list struct {
		Plugins []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal([]byte(n.Primary(DualStack)), &list); err != nil {
		panic(err)
	}
	plugin := list.Plugins[0]
	plugin["cniVersion"], plugin["name"] = "0.3.1", "ovn-kubernetes"
	data, err := json.MarshalIndent(plugin, "", "  ")
	if err != nil {
		panic(err)
	}
	return data
}

func (n *Node) writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err == nil {
		err = os.WriteFile(n.Path(path), data, 0o600)
	}
	return err
}

// ThickMultus replaces Multus by the one of OpenShift since 4.14, a daemon and a shim, with the auxiliary CNI chain of
// 4.19.
func (n *Node) ThickMultus() error {
	if err := n.account(); err != nil {
		return err
	}
	if err := os.Remove(n.Path(multusFile)); err != nil {
		return err
	}
	const config = "/run/multus/daemon-config.json"
	err := n.writeJSON(config, map[string]any{
		"cniVersion": "0.3.1", "logToStderr": true, "logLevel": "verbose", "binDir": OpenShiftBinDir,
		"cniConfigDir":     OpenShiftConfDir,
		"multusConfigFile": "auto", "multusAutoconfigDir": MultusAutoDir, "namespaceIsolation": true,
		"globalNamespaces":       globalNamespaces,
		"readinessindicatorfile": OVNFile, "daemonSocketDir": "/run/multus/socket", "socketDir": "/run/multus/socket",
		"auxiliaryCNIChainName": auxChain,
	})
	if err != nil {
		return err
	}
	host, port, _ := strings.Cut(strings.TrimPrefix(n.cluster.Server.URL(), "https://"), ":")
	if err := n.run("multus-daemon", "env", "KUBERNETES_SERVICE_HOST="+host, "KUBERNETES_SERVICE_PORT="+port,
		"MULTUS_NODE_NAME="+n.Name,
		filepath.Join(n.cluster.Bin, "multus-daemon"), "-config="+config); err != nil {
		return err
	}
	return wait("the daemon of Multus has written its configuration", func() bool {
		data, err := os.ReadFile(n.Path(multusFile))
		return err == nil && strings.Contains(string(data), "multus-shim")
	})
}

// account creates a service account for the daemon, and writes its token to where a pod would have it.
func (n *Node) account() error {
	ctx, client := context.Background(), n.cluster.Client
	const namespace = multusNamespace
	_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		metav1.CreateOptions{})
	if err == nil || apierrors.IsAlreadyExists(err) {
		_, err = client.CoreV1().ServiceAccounts(namespace).Create(ctx,
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: multusAccount}}, metav1.CreateOptions{})
	}
	if err == nil || apierrors.IsAlreadyExists(err) {
		_, err = client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: multusAccount}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName,
				Kind: "ClusterRole", Name: "cluster-admin"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: multusAccount, Namespace: namespace}},
		}, metav1.CreateOptions{})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	token, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, multusAccount,
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	authority, err := os.ReadFile(n.cluster.Server.CA())
	if err != nil {
		return err
	}
	const dir = "/run/secrets/kubernetes.io/serviceaccount"
	if err := os.MkdirAll(n.Path(dir), 0o700); err != nil {
		return err
	}
	for name, data := range map[string][]byte{"token": []byte(token.Status.Token), "ca.crt": authority} {
		if err := os.WriteFile(n.Path(filepath.Join(dir, name)), data, 0o600); err != nil {
			return fmt.Errorf("giving Multus its account: %w", err)
		}
	}
	return nil
}

// removeMultusAccount undoes account, and waits until the namespace of Multus is gone.
func (c *Cluster) removeMultusAccount() error {
	ctx, namespaces := context.Background(), c.Client.CoreV1().Namespaces()
	err := c.Client.RbacV1().ClusterRoleBindings().Delete(ctx, multusAccount, metav1.DeleteOptions{})
	if err == nil || apierrors.IsNotFound(err) {
		err = namespaces.Delete(ctx, multusNamespace, metav1.DeleteOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return wait("the namespace of Multus is gone", func() bool {
		_, err := namespaces.Get(ctx, multusNamespace, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}
