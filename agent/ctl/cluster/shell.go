package cluster

import (
	"context"
	"slices"
	"strings"
	"time"
)

// shellWithin bounds how long a shell waits for names.
const shellWithin = 3 * time.Second

// ForShell connects, and has ask ask the cluster for names that a shell is to be offered.
func (f Flags) ForShell(ctx context.Context, ask func(context.Context, *Cluster) error) error {
	c, err := f.Connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, shellWithin)
	defer cancel()
	return ask(ctx, c)
}

// Offered are the names, between a prefix and a suffix, that go on as the user has begun, without those that are there.
func Offered(names []string, prefix, suffix, begun string, there []string) (all []string) {
	for _, name := range names {
		if name = prefix + name + suffix; strings.HasPrefix(name, begun) && !slices.Contains(there, name) {
			all = append(all, name)
		}
	}
	return all
}
