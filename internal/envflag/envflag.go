// Package envflag lets every flag of a program be an environment variable too, as a container's manifest wants it.
package envflag

import (
	"flag"
	"fmt"
	"strings"
)

// Set sets the flags for which there is an environment variable that is not empty: prefix + NAME, where --conf-dir is
// CONF_DIR. It is called before the command line is parsed, which so wins. The error names the variable and its value.
func Set(flags *flag.FlagSet, prefix string, getenv func(string) string) (err error) {
	flags.VisitAll(func(f *flag.Flag) {
		name := prefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value := getenv(name); value != "" && err == nil {
			if failed := flags.Set(f.Name, value); failed != nil {
				err = fmt.Errorf("%s=%q: %w", name, value, failed)
			}
		}
	})
	return err
}
