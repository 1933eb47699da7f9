package ctl

import (
	"errors"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// valid says what a flag accepts, by its type. A flag of type string accepts everything.
var valid = map[string]string{
	"bool": "true or false", "duration": "a duration, such as 5m", "int": "a whole number", "int64": "a whole number",
	"stringSlice": "values with a comma between",
}

// unreadable converts cobra's error about an invalid value into the usual form.
func unreadable(_ *cobra.Command, err error) error {
	var value *pflag.InvalidValueError
	if errors.As(err, &value) {
		flag := value.GetFlag()
		return outcome.Misuse(invalid.Text("--"+flag.Name, value.GetValue(), "", valid[flag.Value.Type()]))
	}
	return err
}
