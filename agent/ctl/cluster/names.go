package cluster

import (
	"cmp"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
)

// What valid names are.
const (
	validNamespace = "1 to 63 characters a-z, 0-9 and -, with none of - at the ends"
	validName      = "1 to 253 characters a-z, 0-9, - and ., with a letter or digit beside each . and at the ends"
	validPod       = "NAME, or NAMESPACE/NAME"
)

// CheckNamespace returns an error unless name is valid for a namespace. key names the flag or argument.
func CheckNamespace(key, name string) error {
	if len(validation.IsDNS1123Label(name)) > 0 {
		return invalid.Text(key, name, "no name of a namespace", validNamespace)
	}
	return nil
}

// CheckNode returns an error unless name is valid for a node.
func CheckNode(key, name string) error { return checkName(key, name, "a node") }

// CheckObject returns an error unless name is valid for a pod or its controller.
func CheckObject(key, name string) error { return checkName(key, name, "an object") }

func checkName(key, name, of string) error {
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return invalid.Text(key, name, "no name of "+of, validName)
	}
	return nil
}

// CheckFlags returns an error, with an exit status, unless the namespaces in the command line have valid names. ""
// names none.
func CheckFlags(set *pflag.FlagSet) (err error) {
	for _, name := range []string{"namespace", "agents-namespace"} {
		if flag := set.Lookup(name); flag != nil && flag.Changed && flag.Value.String() != "" {
			err = cmp.Or(err, outcome.Misuse(CheckNamespace("--"+name, flag.Value.String())))
		}
	}
	return err
}

// ParsePod parses NAME or NAMESPACE/NAME. in is the default namespace. Its error has an exit status.
func ParsePod(key, text, in string) (namespace, name string, err error) {
	namespace, name, said := strings.Cut(text, "/")
	if !said {
		namespace, name = in, text
	}
	switch {
	case namespace == "" || name == "" || strings.Contains(name, "/"):
		return "", "", outcome.Misuse(invalid.Text(key, text, "", validPod))
	case said && CheckNamespace(key, namespace) != nil:
		return "", "", outcome.Misuse(invalid.Text(key, text, "no name of a namespace", validPod+"; a namespace has "+
			validNamespace))
	case len(validation.IsDNS1123Subdomain(name)) > 0:
		return "", "", outcome.Misuse(invalid.Text(key, text, "no name of a pod", validPod+"; a pod has "+validName))
	}
	return namespace, name, nil
}
