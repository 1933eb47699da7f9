package cluster

import (
	"context"
	"slices"
	"strings"
	"time"
)

// shellWithin limits how long a shell waits for names.
const shellWithin = 3 * time.Second

// ForShell connects and calls ask to get names for a shell.
func (f Flags) ForShell(ctx context.Context, ask func(context.Context, *Cluster) error) error {
	c, err := f.Connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, shellWithin)
	defer cancel()
	return ask(ctx, c)
}

// Offered returns the names with prefix and suffix that continue what the user has begun, without those that are there
// already.
func Offered(names []string, prefix, suffix, begun string, there []string) (all []string) {
	for _, name := range names {
		if name = prefix + name + suffix; strings.HasPrefix(name, begun) && !slices.Contains(there, name) {
			all = append(all, name)
		}
	}
	return all
}
